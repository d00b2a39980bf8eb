"""Displacement along a direction: projections, erosion, the whole triangle, separation, distances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from remi_core.statistics.resampling import (
    TINY,
    ClusterResamples,
    Estimate,
    clipped_cosine,
    cluster_estimate,
    cluster_folds,
    cluster_sums,
    combine,
    index_clusters,
    refuse_nan,
)

Activations = Float[np.ndarray, "dialogue layer d_model"]
"""Mean block outputs of dialogues in one window, or differences of two models' of the same dialogues."""


# Erosion: how far a variant's mean activation has moved from instruct back towards base, layer by layer.
# D_X = mean(X) − mean(instruct) over the same dialogues, and e = Σ_k ⟨D_X^k, D_B^−k⟩ / Σ_k ⟨D_B^k, D_B^−k⟩
# over folds k of prompt templates: 0 is instruct, 1 is base. Products within a fold never occur, so sampling noise
# adds nothing on average. The cosine c and the residual length r use the same products for both squared norms, so that
# all belong to one triangle: r² = N_XX / N_BB − e² and c = e √(N_BB / N_XX). All come from Gram matrices of cluster
# sums, so the cost of a resample does not depend on d_model.


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
    shift: Activations,
    base_shift: Activations,
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
    shift: Activations,
    base_shift: Activations,
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
    variant, counts = cluster_sums(shift, clusters, names)
    base, _ = cluster_sums(base_shift, clusters, names)
    folds = cluster_folds(len(names), n_folds=n_folds, seed=resamples.seed)
    grams = np.stack(
        [layer_grams(variant, base), layer_grams(base, base), layer_grams(variant, variant)], axis=1
    )

    def products(weights: np.ndarray) -> np.ndarray:
        return cross_fitted(grams, counts, folds, weights)

    return cluster_estimate(products, names, resamples)


def erosion_of_products(products: Estimate) -> Erosion:
    """e, c and r by layer from ``cross_fitted_products``."""
    across, of_base, of_variant = (combine(lambda rows, i=i: rows[..., i], products) for i in range(3))
    defined = of_base.low > 0

    def erosion(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        return np.where(defined, top / np.where(bottom == 0, TINY, bottom), np.nan)

    def residual(share: np.ndarray, bottom: np.ndarray, squared: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(squared / np.where(bottom == 0, TINY, bottom) - share**2, 0))

    by_layer = combine(erosion, across, of_base)
    return Erosion(
        erosion=by_layer,
        cosine=cosine_of_products(across, of_base, of_variant),
        residual=combine(residual, by_layer, of_base, of_variant),
        layer_mean=layer_average(by_layer),
        denominator=of_base,
        defined=defined,
    )


def cosine_of_products(product: Estimate, first: Estimate, second: Estimate) -> Estimate:
    """The cosine from an inner product and both squared lengths; NaN where one of these cannot be told from 0."""
    certain = (first.low > 0) & (second.low > 0)
    return combine(lambda *rows: np.where(certain, clipped_cosine(*rows), np.nan), product, first, second)


def cross_fitted_length(squared: Estimate, n_folds: int = 5) -> Estimate:
    """Length by layer from its square summed over folds (``cross_fitted_products``); NaN where it may be 0."""
    certain = squared.low > 0
    return combine(lambda rows: np.where(certain, np.sqrt(np.maximum(rows, 0) / n_folds), np.nan), squared)


def layer_average(by_layer: Estimate) -> Estimate:
    """Mean over the layers where the value is defined (no axis); NaN if there is none."""
    defined = ~np.isnan(by_layer.value)

    def mean(rows: np.ndarray) -> np.ndarray:
        return rows[:, defined].mean(axis=1) if defined.any() else np.full(len(rows), np.nan)

    return combine(mean, by_layer)


def layer_grams(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Inner products of the rows of two arrays (row, layer, d_model) by layer, (layer, row, row)."""
    return first.transpose(1, 0, 2) @ second.transpose(1, 2, 0)


def cross_fitted(
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
        held, rest = (weights[:, side] for side in (inside, outside))
        for drawn, side in ((held, inside), (rest, outside)):
            totals = (drawn @ counts[side])[:, None]
            # A fold that a resample missed entirely adds nothing to numerator and denominator alike.
            np.divide(drawn, totals, out=drawn, where=totals > 0)
        between = np.moveaxis(grams[..., inside[:, None], outside], -2, 0).reshape(len(inside), -1)
        # One product for all layers and kinds together: each row of it is small, and there are many.
        across = (held @ between).reshape(*total.shape, len(outside))
        total += np.einsum("rko,ro->rk", across, rest)
    return total.reshape(len(weights), *kinds)


# Separation d′ and AUROC of two groups on a held-out axis, with interval and label-exchange null. The axis of a fold is
# a weighted sum of cluster sums, so every projection is a weighted sum of inner products that are computed once:
# resamples and relabellings only change the weights.


@dataclass(frozen=True, eq=False)
class Contrast:
    """Two groups of activations of the same dialogues in the same order, and what their axis is fitted on."""

    first: Activations
    second: Activations
    reference: Activations | None = None
    """With a reference the axis runs from it to ``first`` (base to instruct); without, first to second."""

    def axis(self, *, swapped: bool = False) -> Activations:
        """Per-dialogue differences whose mean is the axis; ``swapped`` exchanges the two groups."""
        first, second = (self.second, self.first) if swapped else (self.first, self.second)
        return second - first if self.reference is None else first - self.reference


@dataclass(frozen=True, eq=False)
class Separation:
    """How far the second group lies beyond the first along the held-out axis, by layer."""

    d_prime: Estimate
    """Difference of means over the pooled standard deviation, positive where the second group is further."""
    rank: Callable[[], Estimate]
    """What gives ``auroc``: sorting every resample takes as long as all the rest, and few ask for it."""

    @cached_property
    def auroc(self) -> Estimate:
        """Probability that a dialogue of the second group projects further than one of the first, in [0, 1]."""
        return self.rank()


_Layer = tuple[
    Float[np.ndarray, "dialogue atom"], Float[np.ndarray, "dialogue atom"], Float[np.ndarray, "atom atom"]
]
"""Inner products of one layer: dialogues of each group with atoms, and atoms with atoms."""


def measure_separation(
    contrast: Contrast, clusters: Sequence[str], resamples: ClusterResamples, *, n_folds: int = 5
) -> Separation:
    """d′ and AUROC by layer, with the axis refitted in every resample of prompt templates.

    Raises:
        ValueError: if a value is NaN, there are fewer than two clusters, or the axis has no direction.
    """
    names, index = index_clusters(clusters)
    folds = cluster_folds(len(names), n_folds=n_folds, seed=resamples.seed)
    layers = _layers(contrast, clusters, names, swaps=False)

    def by_layer(score: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> Estimate:
        def statistic(weights: np.ndarray) -> np.ndarray:
            columns = [score(*_scores(layer, weights, folds, index), weights[:, index]) for layer in layers]
            return np.stack(columns, axis=1)

        return cluster_estimate(statistic, names, resamples)

    return Separation(d_prime=by_layer(_d_prime), rank=lambda: by_layer(_auroc))


def separation_null(
    contrast: Contrast,
    clusters: Sequence[str],
    *,
    n_permutations: int = 1000,
    n_folds: int = 5,
    seed: int = 0,
) -> Float[np.ndarray, "permutation layer"]:
    """d′ by layer when the groups exchange places in a random half of the prompt templates, axis refitted.

    Raises:
        ValueError: if a value is NaN, there are fewer than two clusters, or the axis has no direction.
    """
    names, index = index_clusters(clusters)
    folds = cluster_folds(len(names), n_folds=n_folds, seed=seed)
    coins = np.random.default_rng(seed).integers(0, 2, size=(n_permutations, len(names))).astype(np.float64)
    weights = np.concatenate([1 - coins, coins], axis=1)
    swapped, ones = coins[:, index] == 1, np.ones((n_permutations, len(index)))
    columns = []
    for layer in _layers(contrast, clusters, names, swaps=True):
        first, second = _scores(layer, weights, np.tile(folds, 2), index)
        columns.append(_d_prime(np.where(swapped, second, first), np.where(swapped, first, second), ones))
    return np.stack(columns, axis=1)


def _layers(
    contrast: Contrast, clusters: Sequence[str], names: Sequence[str], *, swaps: bool
) -> list[_Layer]:
    refuse_nan(contrast.first, "first group")
    refuse_nan(contrast.second, "second group")
    axes = [contrast.axis(swapped=swapped) for swapped in ((False, True) if swaps else (False,))]
    atoms = np.concatenate([cluster_sums(axis, clusters, names)[0] for axis in axes])
    first, second = contrast.first.astype(np.float64), contrast.second.astype(np.float64)
    return [
        tuple(rows[:, i] @ atoms[:, i].T for rows in (first, second, atoms)) for i in range(first.shape[1])
    ]


def _scores(
    layer: _Layer,
    weights: Float[np.ndarray, "row atom"],
    folds: Int[np.ndarray, " atom"],
    index: Int[np.ndarray, " dialogue"],
) -> tuple[np.ndarray, np.ndarray]:
    """Projection of every dialogue of both groups on the other folds' unit axis, (row, dialogue) each."""
    *groups, atoms = layer
    scores = np.empty((2, len(weights), len(index)))
    for fold in np.unique(folds):
        inside, outside = folds[index] == fold, np.flatnonzero(folds != fold)
        axis = weights[:, outside]
        squared = ((axis @ atoms[np.ix_(outside, outside)]) * axis).sum(axis=1)
        if (squared <= 0).any():
            raise ValueError(
                f"the axis is 0 in {int((squared <= 0).sum())} of {len(squared)} refits: no direction"
            )
        # Unit length, so that folds with axes of different length can be pooled.
        axis = axis / np.sqrt(squared)[:, None]
        for found, products in zip(scores, groups, strict=True):
            found[:, inside] = axis @ products[np.ix_(inside, outside)].T
    return scores[0], scores[1]


def _d_prime(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=1)
    low, high = ((weights * values).sum(axis=1) / total for values in (first, second))
    spreads = [
        (weights * np.square(values - mean[:, None])).sum(axis=1) / (total - 1)
        for values, mean in ((first, low), (second, high))
    ]
    return (high - low) / np.sqrt((spreads[0] + spreads[1]) / 2)


def _auroc(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    values = np.concatenate([first, second], axis=1)
    order = np.argsort(values, axis=1)
    tied = (np.diff(np.take_along_axis(values, order, axis=1), axis=1) == 0).any(axis=1)
    none = np.zeros_like(weights)
    ones, twos = (
        np.take_along_axis(np.concatenate(sides, axis=1), order, axis=1)
        for sides in ((weights, none), (none, weights))
    )
    result = (twos * np.cumsum(ones, axis=1)).sum(axis=1) / weights.sum(axis=1) ** 2
    for row in np.flatnonzero(tied):
        # Ties count half, so that two identical groups give one half exactly.
        order = np.argsort(first[row])
        below = np.concatenate([[0.0], np.cumsum(weights[row, order])])
        left, right = (np.searchsorted(first[row, order], second[row], side) for side in ("left", "right"))
        result[row] = (weights[row] * (below[left] + below[right])).sum() / (2 * below[-1] ** 2)
    return result
