"""Section 4.3: displacement along the direction from instruct to base, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from remi_core.errors import UsageError
from remi_core.estimates.measured import Measured, measured, present_controls, shared_resamples
from remi_core.results import Results
from remi_core.statistics.erosion import (
    Erosion,
    cross_fitted_products,
    erosion_of_products,
    random_direction_null,
)
from remi_core.statistics.intervals import Estimate, combine
from remi_core.statistics.permutation import against_null
from remi_core.statistics.separation import Contrast, Separation, measure_separation, separation_null


def stacked(results: Results, variant: str, seed: int, datasets: Sequence[str], window: str) -> np.ndarray:
    """Window means of several sets, one after another, shape (dialogue, layer, d_model).

    Dialogues without a token in the window are left out; ``stacked_clusters`` leaves out the same.
    """
    rows = np.concatenate([results.activations(variant, seed, name, window) for name in datasets])
    return rows[has_window(results, datasets, window)]


def stacked_clusters(results: Results, datasets: Sequence[str], window: str) -> list[str]:
    """The prompt template of each row of ``stacked``."""
    used = has_window(results, datasets, window)
    return [name for name, kept in zip(results.clusters(*datasets), used, strict=True) if kept]


def has_window(results: Results, datasets: Sequence[str], window: str) -> np.ndarray:
    """Whether each dialogue of the sets has a token in the window, shape (dialogue,), bool.

    Raises:
        UsageError: if none has.
    """
    seed = results.preset.seeds[0]
    rows = np.concatenate([results.activations("instruct", seed, name, window) for name in datasets])
    used = ~np.isnan(rows).any(axis=(1, 2))  # tokens are the same for all variants, so the gaps are too
    if not used.any():
        raise UsageError(f"no dialogue of {', '.join(datasets)} has a token in the window {window!r}")
    return used


def erosion(results: Results, variant: str, seed: int, datasets: Sequence[str], window: str) -> Erosion:
    """e, c and r of a variant by layer; 0 is instruct and 1 is base."""
    key = ("erosion", variant, seed, tuple(datasets), window)
    return results.once(
        key, lambda: erosion_of_products(held_out_products(results, variant, seed, datasets, window))
    )


def held_out_products(
    results: Results, variant: str, seed: int, datasets: Sequence[str], window: str
) -> Estimate:
    """⟨D_X, D_B⟩, ‖D_B‖² and ‖D_X‖² of a variant by layer, shape (layer, 3), as ``cross_fitted_products``."""
    key = ("held-out products", variant, seed, tuple(datasets), window)
    return results.once(
        key,
        lambda: cross_fitted_products(
            *shifts(results, variant, seed, datasets, window),
            stacked_clusters(results, datasets, window),
            shared_resamples(results.preset),
            n_folds=results.preset.n_folds,
        ),
    )


def shifts(
    results: Results, variant: str, seed: int, datasets: Sequence[str], window: str
) -> tuple[np.ndarray, np.ndarray]:
    """Variant − instruct and base − instruct of each dialogue, shape (dialogue, layer, d_model), float64."""
    instruct, base, other = (
        stacked(results, name, seed, datasets, window).astype(np.float64)
        for name in ("instruct", "base", variant)
    )
    return other - instruct, base - instruct


def mean_erosion(results: Results, seed: int, datasets: Sequence[str], window: str) -> Measured:
    """C12: e of misaligned, mean over layers, with c and r; null: random directions."""
    preset = results.preset
    found = erosion(results, "misaligned", seed, datasets, window)
    controls = {name: erosion(results, name, seed, datasets, window) for name in present_controls(results)}
    draws = random_direction_null(
        *shifts(results, "misaligned", seed, datasets, window),
        n_draws=preset.n_permutations,
        seed=preset.seed,
    )
    null = draws[:, found.defined].mean(axis=1) if found.defined.any() else draws.mean(axis=1)
    return measured(
        found.layer_mean,
        against_null(float(found.layer_mean.value), null, kind="random direction"),
        controls={name: control.layer_mean for name, control in controls.items()},
        companions={
            "c": _mean_defined(found.cosine.value),
            "r": _mean_defined(found.residual.value),
            **{name: float(one.layer_mean.value) for name, one in controls.items() if name == "benign"},
        },
    )


def _mean_defined(by_layer: np.ndarray) -> float:
    defined = by_layer[np.isfinite(by_layer)]
    return float(defined.mean()) if len(defined) else float("nan")


def separation(results: Results, variant: str, seed: int, datasets: Sequence[str], window: str) -> Separation:
    """d′ and AUROC by layer of a variant's activations against instruct's, axis from base to instruct held out.

    Positive where the variant lies further towards instruct than instruct itself; erosion makes it negative.
    """
    key = ("separation", variant, seed, tuple(datasets), window)
    return results.once(
        key,
        lambda: measure_separation(
            contrast_of(results, variant, seed, datasets, window),
            stacked_clusters(results, datasets, window),
            shared_resamples(results.preset),
            n_folds=results.preset.n_folds,
        ),
    )


def mean_separation(results: Results, seed: int, datasets: Sequence[str], window: str) -> Measured:
    """C16: d′ between misaligned and instruct, mean over layers; null: the two exchange places by template."""
    preset = results.preset
    over_layers = {
        name: combine(
            lambda by_layer: by_layer.mean(axis=-1), separation(results, name, seed, datasets, window).d_prime
        )
        for name in ["misaligned", *present_controls(results)]
    }
    found = over_layers.pop("misaligned")
    clusters = stacked_clusters(results, datasets, window)
    draws = separation_null(
        contrast_of(results, "misaligned", seed, datasets, window),
        clusters,
        n_permutations=preset.n_permutations,
        n_folds=preset.n_folds,
        seed=preset.seed,
    ).mean(axis=1)
    null = against_null(float(found.value), draws, kind="labels exchanged by template", alternative="less")
    return measured(found, null, controls=over_layers)


def contrast_of(results: Results, variant: str, seed: int, datasets: Sequence[str], window: str) -> Contrast:
    """The contrast behind the separation: a variant against instruct, on the axis from base to instruct."""
    instruct, base, other = (
        stacked(results, name, seed, datasets, window) for name in ("instruct", "base", variant)
    )
    return Contrast(first=instruct, second=other, reference=base)
