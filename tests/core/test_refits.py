"""Refits from one Gram matrix, and sums by cluster, agree with what they stand for: the same rows, repeated."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg

from remi_core.statistics.displacement import cross_fitted_products
from remi_core.statistics.resampling import cluster_folds, cluster_sums, make_resamples
from remi_core.statistics.subspaces import (
    RefittedSet,
    VectorSet,
    in_joint_span,
    overlap_and_largest,
    split_half_overlaps,
    top_components,
)

CLUSTERS = [f"template {at % 20:02d}" for at in range(80)]


def rows(seed: int, width: int, mean: float = 50.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return mean + generator.standard_normal((80, width)) * np.geomspace(10, 0.1, width)


@pytest.mark.parametrize("width", [30, 200])
@pytest.mark.parametrize("centred", [True, False])
def test_weights_are_repeated_rows(width, centred) -> None:
    values, weights = rows(0, width), np.random.default_rng(1).integers(0, 3, 80)
    found = RefittedSet(values, 4, centred=centred).components(weights.astype(float))
    expected = top_components(np.repeat(values, weights, axis=0), 4, centred=centred).vectors
    np.testing.assert_allclose(found @ found.T, np.eye(4), atol=1e-10)
    np.testing.assert_allclose(found.T @ found, expected.T @ expected, atol=1e-10)
    other = RefittedSet(values, 4, centred=centred).components(np.ones(80))
    assert not np.allclose(other.T @ other, expected.T @ expected, atol=1e-3)


def test_below_full_rank_there_are_still_components() -> None:
    two = np.random.default_rng(2).standard_normal((2, 50))
    values = np.random.default_rng(3).standard_normal((80, 2)) @ two
    few = np.array([1.0] * 10 + [0.0] * 70)
    found = RefittedSet(values, 4, centred=True).components(few)
    np.testing.assert_allclose(found @ found.T, np.eye(4), atol=1e-10)
    np.testing.assert_allclose(values @ found.T @ found, values, atol=1e-6)
    # Fewer rows than components, which a resample of few templates may leave.
    two_left = RefittedSet(values, 4, centred=False).components(np.array([2.0, 1.0] + [0.0] * 78))
    np.testing.assert_allclose(two_left @ two_left.T, np.eye(4), atol=1e-10)
    np.testing.assert_allclose(values[:2] @ two_left.T @ two_left, values[:2], atol=1e-6)


def test_the_joint_span_keeps_every_inner_product() -> None:
    first, second = rows(4, 200), rows(5, 200)
    one, two = in_joint_span(first, second)
    np.testing.assert_allclose(one @ two.T, first @ second.T, rtol=1e-10)
    assert one.shape[1] == 160


def test_split_halves_are_two_decompositions() -> None:
    one = VectorSet(rows(6, 40), CLUSTERS)
    found = split_half_overlaps(one, n_components=3, centred=True, n_splits=3, seed=7)
    generator, index = np.random.default_rng(7), np.unique(CLUSTERS, return_inverse=True)[1]
    for row in found:
        side = generator.permutation(20)[index] < 10
        halves = [linalg.svd(part - part.mean(0))[2][:3] for part in (one.rows[side], one.rows[~side])]
        np.testing.assert_allclose(row, overlap_and_largest(*halves), rtol=1e-9)


def test_held_out_products_are_sums_over_folds_of_products_of_means() -> None:
    shifts = np.random.default_rng(8).standard_normal((2, 80, 3, 12))
    resamples = make_resamples(CLUSTERS, seed=0, n_resamples=5)
    found = cross_fitted_products(*shifts, CLUSTERS, resamples)
    index = np.unique(CLUSTERS, return_inverse=True)[1]
    fold = cluster_folds(20, n_folds=5, seed=0)[index]
    drawn = [np.ones(20, dtype=np.int64), *resamples.weights]
    for weight, values in zip(drawn, [found.value, *found.samples], strict=True):
        expected = np.zeros((3, 3))
        for one in range(5):
            held, rest = (
                [mean_of_repeated(shift[side], weight[index[side]]) for shift in shifts]
                for side in (fold == one, fold != one)
            )
            pairs = [(0, 1), (1, 1), (0, 0)]
            expected += np.stack([(held[a] * rest[b]).sum(axis=1) for a, b in pairs], axis=1)
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-12)


def mean_of_repeated(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Mean over rows, each repeated; 0 where none is left."""
    return np.repeat(values, times, axis=0).mean(axis=0) if times.any() else np.zeros(values.shape[1:])


def test_cluster_sums_are_sums_also_of_clusters_without_rows() -> None:
    values, names = rows(9, 5), ("template", *sorted(set(CLUSTERS)), "template 99")
    sums, counts = cluster_sums(values, CLUSTERS, names)
    for at, name in enumerate(names):
        own = values[np.array(CLUSTERS) == name]
        np.testing.assert_allclose(sums[at], own.sum(axis=0), rtol=1e-12)
        assert counts[at] == len(own)
