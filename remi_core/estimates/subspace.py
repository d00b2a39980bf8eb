"""Section 4.4: do the top singular directions of instruct − base agree between domains, and compared with what?"""

from __future__ import annotations

import numpy as np

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
    results: Results, seed: int, pair: tuple[str, str], *, window: str, layer: int = -1, centred: bool = True
) -> Overlap:
    """S and the largest |cos| between the top components of two sets, with intervals over templates."""
    first, second = (residuals(results, seed, name, window=window, layer=layer) for name in pair)
    preset = results.preset
    return measure_overlap(
        first, second, shared_resamples(preset), n_components=preset.n_components, centred=centred
    )


def shared_subspace(
    results: Results, seed: int, pair: tuple[str, str], benign: tuple[str, str], *, window: str
) -> Measured:
    """C17: S of two harmful sets at the last block, centred as published; null: two benign sets.

    Beside it the largest |cos|, the floor (mean of random subspaces) and the ceiling (split halves).
    """
    preset = results.preset
    found = overlap(results, seed, pair, window=window)
    null = overlap(results, seed, benign, window=window)
    first = residuals(results, seed, pair[0], window=window)
    ceiling = split_half_overlaps(first, n_components=preset.n_components, centred=True, seed=preset.seed)
    floor = random_overlaps(first.rows.shape[1], preset.n_components, seed=preset.seed)
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
