"""Section 4.4: do the top singular directions of instruct − base agree between domains, and compared with what?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from remi_core.estimates.measured import Measured, measured, null_from_estimate, shared_resamples
from remi_core.results import Results
from remi_core.statistics.overlap import (
    Overlap,
    VectorSet,
    measure_overlap,
    random_overlaps,
    split_half_overlaps,
)


def residuals(results: Results, seed: int, dataset: str, *, window: str, layer: int = -1) -> VectorSet:
    """Instruct − base activations of each dialogue at one block, shape (dialogue, d_model)."""
    instruct, base = (
        results.activations(name, seed, dataset, window)[:, layer] for name in ("instruct", "base")
    )
    return VectorSet(instruct.astype(np.float64) - base, results.clusters(dataset))


def overlap(
    results: Results,
    seed: int,
    pair: tuple[str, str],
    *,
    window: str,
    layer: int = -1,
    centred: bool = True,
    draws: bool = False,
) -> Overlap:
    """S and the largest |cos| between the top components of two sets, with intervals over templates.

    The interval is the jackknife's; ``draws`` gives the bootstrap samples too, which a p value is made from.
    """
    preset, resamples = results.preset, shared_resamples(results.preset)
    return measure_overlap(
        *(residuals(results, seed, name, window=window, layer=layer) for name in pair),
        resamples if draws else resamples.with_one_draw(),
        n_components=preset.n_components,
        centred=centred,
    )


def split_halves(
    results: Results, seed: int, dataset: str, *, window: str, layer: int = -1, centred: bool = True
) -> Float[np.ndarray, "split 2"]:
    """S and the largest |cos| between halves of one set's templates: the ceiling, kept with the results."""
    preset = results.preset
    rows = residuals(results, seed, dataset, window=window, layer=layer)
    return results.once(
        ("split halves", seed, dataset, window, layer, centred),
        lambda: split_half_overlaps(
            rows, n_components=preset.n_components, centred=centred, seed=preset.seed
        ),
    )


def shared_subspace(
    results: Results, seed: int, pair: tuple[str, str], benign: tuple[str, str], *, window: str
) -> Measured:
    """C17: S of two harmful sets at the last block, centred as published; null: two benign sets.

    Beside it the largest |cos|, the floor (mean of random subspaces) and the ceiling (split halves).
    """
    preset = results.preset
    found, null = (overlap(results, seed, one, window=window, draws=True) for one in (pair, benign))
    ceiling = split_halves(results, seed, pair[0], window=window)
    width = residuals(results, seed, pair[0], window=window).rows.shape[1]
    floor = random_overlaps(width, preset.n_components, seed=preset.seed)
    return measured(
        found.overlap,
        null_from_estimate(found.overlap, null.overlap, f"benign × benign ({benign[0]}, {benign[1]})"),
        companions={
            "largest cosine": float(found.largest.value),
            "benign largest cosine": float(null.largest.value),
            "floor": float(floor[:, 0].mean()),
            "ceiling": float(ceiling[:, 0].mean()),
        },
    )
