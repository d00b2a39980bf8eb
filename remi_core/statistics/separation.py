"""Separation d′ and AUROC of two groups on a held-out axis, with interval and label-exchange null.

The axis of a fold is a weighted sum of cluster sums, so every projection is a weighted sum of inner
products that are computed once: resamples and relabellings only change the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from remi_core.statistics.bootstrap import ClusterResamples, cluster_sums, index_clusters, refuse_nan
from remi_core.statistics.folds import cluster_folds
from remi_core.statistics.intervals import Estimate, cluster_estimate


@dataclass(frozen=True, eq=False)
class Contrast:
    """Two groups of activations of the same dialogues in the same order, and what their axis is fitted on."""

    first: Float[np.ndarray, "dialogue layer d_model"]
    second: Float[np.ndarray, "dialogue layer d_model"]
    reference: Float[np.ndarray, "dialogue layer d_model"] | None = None
    """With a reference the axis runs from it to ``first`` (base to instruct); without, first to second."""

    def axis(self, *, swapped: bool = False) -> Float[np.ndarray, "dialogue layer d_model"]:
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


@dataclass(frozen=True, eq=False)
class _Layer:
    """Inner products of one layer: dialogues of each group with atoms, and atoms with atoms."""

    first: Float[np.ndarray, "dialogue atom"]
    second: Float[np.ndarray, "dialogue atom"]
    atoms: Float[np.ndarray, "atom atom"]


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
    atoms = np.concatenate(
        [
            cluster_sums(contrast.axis(swapped=swapped), clusters, names)[0]
            for swapped in ((False, True) if swaps else (False,))
        ]
    )
    first, second = contrast.first.astype(np.float64), contrast.second.astype(np.float64)
    return [
        _Layer(first[:, i] @ atoms[:, i].T, second[:, i] @ atoms[:, i].T, atoms[:, i] @ atoms[:, i].T)
        for i in range(first.shape[1])
    ]


def _scores(
    layer: _Layer,
    weights: Float[np.ndarray, "row atom"],
    folds: Int[np.ndarray, " atom"],
    index: Int[np.ndarray, " dialogue"],
) -> tuple[np.ndarray, np.ndarray]:
    """Projection of every dialogue of both groups on the other folds' unit axis, (row, dialogue) each."""
    first = np.empty((len(weights), len(index)))
    second = np.empty_like(first)
    for fold in np.unique(folds):
        inside, outside = folds[index] == fold, np.flatnonzero(folds != fold)
        axis = weights[:, outside]
        squared = ((axis @ layer.atoms[np.ix_(outside, outside)]) * axis).sum(axis=1)
        if (squared <= 0).any():
            raise ValueError(
                f"the axis is 0 in {int((squared <= 0).sum())} of {len(squared)} refits: no direction"
            )
        # Unit length, so that folds with axes of different length can be pooled.
        axis = axis / np.sqrt(squared)[:, None]
        first[:, inside] = axis @ layer.first[np.ix_(inside, outside)].T
        second[:, inside] = axis @ layer.second[np.ix_(inside, outside)].T
    return first, second


def _d_prime(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    (low, low_spread), (high, high_spread) = (_moments(group, weights) for group in (first, second))
    return (high - low) / np.sqrt((low_spread + high_spread) / 2)


def _moments(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    total = weights.sum(axis=1)
    mean = (weights * values).sum(axis=1) / total
    return mean, (weights * np.square(values - mean[:, None])).sum(axis=1) / (total - 1)


def _auroc(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    values = np.concatenate([first, second], axis=1)
    order = np.argsort(values, axis=1)
    tied = (np.diff(np.take_along_axis(values, order, axis=1), axis=1) == 0).any(axis=1)
    none = np.zeros_like(weights)
    own, other = (
        np.take_along_axis(np.concatenate(sides, axis=1), order, axis=1)
        for sides in ((weights, none), (none, weights))
    )
    result = (other * np.cumsum(own, axis=1)).sum(axis=1) / weights.sum(axis=1) ** 2
    for row in np.flatnonzero(tied):
        result[row] = _auroc_with_ties(first[row], second[row], weights[row])
    return result


def _auroc_with_ties(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> float:
    order = np.argsort(first)
    ranked, below = first[order], np.concatenate([[0.0], np.cumsum(weight[order])])
    left, right = (np.searchsorted(ranked, second, side=side) for side in ("left", "right"))
    # Ties count half, so that two identical groups give one half exactly.
    return float((weight * (below[left] + below[right])).sum() / (2 * below[-1] ** 2))


def released_separation(
    first: Float[np.ndarray, "token layer"], second: Float[np.ndarray, "token layer"]
) -> Float[np.ndarray, " layer"]:
    """Difference of mean projections over the sum of the standard deviations, tokens pooled, as released.

    About half of d′ where both spreads agree. Source: Giordani (2025), section 4.3, released scripts.

    Raises:
        ValueError: if a projection is NaN.
    """
    refuse_nan(first, "first group's projections")
    refuse_nan(second, "second group's projections")
    spread = first.std(axis=0, ddof=1, dtype=np.float64) + second.std(axis=0, ddof=1, dtype=np.float64)
    return (second.mean(axis=0, dtype=np.float64) - first.mean(axis=0, dtype=np.float64)) / spread
