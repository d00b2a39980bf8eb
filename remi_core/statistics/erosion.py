"""Erosion: how far a variant's mean activation has moved from instruct back towards base, layer by layer.

D_X = mean(X) − mean(instruct) over the same dialogues, and

    e = Σ_k ⟨D_X^k, D_B^−k⟩ / Σ_k ⟨D_B^k, D_B^−k⟩

over folds k of prompt templates: 0 is instruct, 1 is base. The cosine c and the residual length r use the
same cross-fitted products for both squared norms, so that e, c and r belong to one triangle: r² = N_XX /
N_BB − e² and c = e √(N_BB / N_XX). Products within a fold never occur, so sampling noise adds nothing to
any of them on average. All come from Gram matrices of cluster sums, so the cost of a resample does not
depend on d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from remi_core.statistics.bootstrap import (
    ClusterResamples,
    cluster_sums,
    index_clusters,
    refuse_nan,
    simultaneous_band,
)
from remi_core.statistics.folds import cluster_folds
from remi_core.statistics.intervals import Estimate, cluster_estimate, combine


@dataclass(frozen=True, eq=False)
class Erosion:
    """Erosion by layer with its companions; every estimate carries its own interval over prompt templates."""

    erosion: Estimate
    """e by layer (layer,), a pure number; NaN where undefined."""
    cosine: Estimate
    """c by layer (layer,), in [-1, 1]; NaN where either displacement cannot be told from 0."""
    residual: Estimate
    """r by layer (layer,), in units of the length of D_B; NaN where e is undefined."""
    layer_mean: Estimate
    """e averaged over the layers where it is defined (no axis); NaN if there is none."""
    denominator: Estimate
    """Cross-fitted squared length of D_B by layer, summed over folds."""
    defined: Bool[np.ndarray, " layer"]
    """Whether the lower end of the denominator's 95 % interval is above 0."""


def measure_erosion(
    shift: Float[np.ndarray, "dialogue layer d_model"],
    base_shift: Float[np.ndarray, "dialogue layer d_model"],
    clusters: Sequence[str],
    resamples: ClusterResamples,
    *,
    n_folds: int = 5,
) -> Erosion:
    """e, c and r by layer, with directions refitted in every resample of prompt templates.

    Raises:
        ValueError: if a value is NaN, shapes differ, or there are fewer than two clusters.
    """
    return erosion_of_products(cross_fitted_products(shift, base_shift, clusters, resamples, n_folds=n_folds))


def cross_fitted_products(
    shift: Float[np.ndarray, "dialogue layer d_model"],
    base_shift: Float[np.ndarray, "dialogue layer d_model"],
    clusters: Sequence[str],
    resamples: ClusterResamples,
    *,
    n_folds: int = 5,
) -> Estimate:
    """⟨D_X, D_B⟩, ‖D_B‖² and ‖D_X‖² by layer, shape (layer, 3), each the sum over folds of held-out products.

    ``shift`` is variant − instruct and ``base_shift`` base − instruct, dialogue by dialogue, for the mean
    block output in one window. Folds follow the clusters, so copies of one template never sit on both
    sides.

    Raises:
        ValueError: if a value is NaN, shapes differ, or there are fewer than two clusters.
    """
    if shift.shape != base_shift.shape:
        raise ValueError(
            f"variant and base displacements differ in shape: {shift.shape} and {base_shift.shape}"
        )
    names, _ = index_clusters(clusters)
    own, counts = cluster_sums(shift, clusters, names)
    base, _ = cluster_sums(base_shift, clusters, names)
    folds = cluster_folds(len(names), n_folds=n_folds, seed=resamples.seed)
    grams = np.stack([_layer_grams(own, base), _layer_grams(base, base), _layer_grams(own, own)], axis=1)

    def products(weights: np.ndarray) -> np.ndarray:
        return _cross_fitted(grams, counts, folds, weights)

    return cluster_estimate(products, names, resamples)


def erosion_of_products(products: Estimate) -> Erosion:
    """e, c and r by layer from ``cross_fitted_products``."""
    across, of_base, of_variant = (combine(lambda rows, i=i: rows[..., i], products) for i in range(3))
    defined = of_base.low > 0
    cosine_defined = defined & (of_variant.low > 0)
    floor = np.finfo(np.float64).tiny

    def erosion(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        return np.where(defined, top / np.where(bottom == 0, floor, bottom), np.nan)

    def cosine(top: np.ndarray, bottom: np.ndarray, own: np.ndarray) -> np.ndarray:
        # In a rare resample a squared norm is below 0; the cosine's limit there, ±1, is what clipping gives.
        length = np.sqrt(np.maximum(bottom, floor)) * np.sqrt(np.maximum(own, floor))
        return np.where(cosine_defined, np.clip(top / length, -1, 1), np.nan)

    def residual(share: np.ndarray, bottom: np.ndarray, own: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(own / np.where(bottom == 0, floor, bottom) - share**2, 0))

    by_layer = combine(erosion, across, of_base)
    return Erosion(
        erosion=by_layer,
        cosine=combine(cosine, across, of_base, of_variant),
        residual=combine(residual, by_layer, of_base, of_variant),
        layer_mean=combine(lambda rows: _mean_over(rows, defined), by_layer),
        denominator=of_base,
        defined=defined,
    )


def _mean_over(rows: np.ndarray, defined: np.ndarray) -> np.ndarray:
    return rows[:, defined].mean(axis=1) if defined.any() else np.full(len(rows), np.nan)


def erosion_of_weights(
    shift: Float[np.ndarray, "atom layer d_model"],
    base_shift: Float[np.ndarray, "atom layer d_model"],
    counts: Int[np.ndarray, " atom"],
    folds: Int[np.ndarray, " atom"],
    weights: Float[np.ndarray, "row atom"],
) -> Float[np.ndarray, "row layer"]:
    """e by layer for each row of weights, from sums over atoms (such as the dialogues of one template and set).

    Raises:
        ValueError: if a value is NaN.
    """
    refuse_nan(shift, "displacements")
    top, bottom = (
        _cross_fitted(_layer_grams(first, base_shift), counts, folds, weights)
        for first in (shift, base_shift)
    )
    return top / np.where(bottom == 0, np.finfo(np.float64).tiny, bottom)


def _layer_grams(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first.transpose(1, 0, 2) @ second.transpose(1, 2, 0)


def _cross_fitted(
    grams: Float[np.ndarray, " *kinds cluster cluster"],
    counts: Int[np.ndarray, " cluster"],
    folds: Int[np.ndarray, " cluster"],
    weights: Float[np.ndarray, "row cluster"],
) -> Float[np.ndarray, " row *kinds"]:
    """Sum over folds of the product of the mean inside the fold with the mean outside it."""
    kinds = grams.shape[:-2]
    total = np.zeros((len(weights), int(np.prod(kinds))))
    for fold in np.unique(folds):
        inside, outside = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        held, rest = (_mean_weights(weights[:, side], counts[side]) for side in (inside, outside))
        between = np.moveaxis(grams[..., inside[:, None], outside], -2, 0).reshape(len(inside), -1)
        # One product for all layers and kinds together: each row of it is small, and there are many.
        across = (held @ between).reshape(*total.shape, len(outside))
        total += np.einsum("rko,ro->rk", across, rest)
    return total.reshape(len(weights), *kinds)


def _mean_weights(weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    totals = weights @ counts
    # A fold that a resample missed entirely adds nothing to numerator and denominator alike.
    return np.divide(weights, totals[:, None], out=np.zeros_like(weights), where=totals[:, None] > 0)


def random_direction_null(
    shift: Float[np.ndarray, "dialogue layer d_model"],
    base_shift: Float[np.ndarray, "dialogue layer d_model"],
    *,
    n_draws: int = 1000,
    seed: int = 0,
) -> Float[np.ndarray, "draw layer"]:
    """e of random displacements as long as D_X, by layer.

    One isotropic direction is drawn for all layers of a draw: layers share the residual stream, so
    independent directions would make the null of a mean over layers too narrow. Products are in sample, the
    lengths too.

    Raises:
        ValueError: if D_B is exactly 0 at a layer.
    """
    own, base = (values.mean(axis=0, dtype=np.float64) for values in (shift, base_shift))
    squared = np.square(base).sum(axis=1)
    if (squared == 0).any():
        raise ValueError(
            f"base equals instruct exactly at layer {int(np.argmin(squared))}: erosion has no direction"
        )
    draws = np.random.default_rng(seed).standard_normal((n_draws, own.shape[1]))
    draws /= np.linalg.norm(draws, axis=1, keepdims=True)
    return (draws @ base.T) * np.linalg.norm(own, axis=1) / squared


def onset_layer(estimate: Estimate, *, boundary: float = 0.0, level: float = 0.95) -> int | None:
    """First layer whose simultaneous lower band lies above the boundary; None if there is none.

    Layers where the estimate is undefined take no part.

    Raises:
        ValueError: if a sample is NaN at a layer where the value is defined.
    """
    defined = np.flatnonzero(~np.isnan(estimate.value))
    if not len(defined):
        return None
    low, _ = simultaneous_band(estimate.value[defined], estimate.samples[:, defined], level=level)
    above = defined[low > boundary]
    return int(above[0]) if len(above) else None
