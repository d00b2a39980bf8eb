"""Components agree with scikit-learn, refits with repeated rows; overlaps stand between a known floor and ceiling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats
from sklearn.decomposition import PCA

from remi_core.statistics.displacement import cross_fitted_products
from remi_core.statistics.resampling import cluster_folds, cluster_sums, make_resamples
from remi_core.statistics.subspaces import (
    RefittedSet,
    VectorSet,
    in_joint_span,
    measure_overlap,
    overlap_and_largest,
    random_overlaps,
    split_half_overlaps,
    top_components,
)

CLUSTERS = [f"template {at % 20:02d}" for at in range(80)]
FORTY = [f"template {at % 40:02d}" for at in range(200)]


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
    generator = np.random.default_rng(3)
    values = generator.standard_normal((80, 2)) @ generator.standard_normal((2, 50))
    # The last has fewer rows than components, which a resample of few templates may leave.
    for centred, weights, kept in ((True, [1.0] * 10, slice(None)), (False, [2.0, 1.0], slice(2))):
        found = RefittedSet(values, 4, centred=centred).components(np.pad(weights, (0, 80 - len(weights))))
        np.testing.assert_allclose(found @ found.T, np.eye(4), atol=1e-10)
        np.testing.assert_allclose(values[kept] @ found.T @ found, values[kept], atol=1e-6)


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
    members = np.array(names)[:, None] == np.array(CLUSTERS)
    np.testing.assert_allclose(sums, members @ values, rtol=1e-10)
    np.testing.assert_array_equal(counts, members.sum(axis=1))


def rows_with(seed: int, axes: np.ndarray, mean: float = 0.0) -> np.ndarray:
    """200 rows: unit noise, distinct large variance along the given axes, a mean in the last coordinate."""
    generator = np.random.default_rng(seed)
    strong = np.arange(len(axes), 0, -1)[:, None] * 4.0 * axes
    rows = generator.standard_normal((200, axes.shape[1]))
    rows += generator.standard_normal((200, len(axes))) @ strong
    rows[:, -1] += mean
    return rows


def test_centred_components_are_pca_and_uncentred_are_not() -> None:
    rows = rows_with(0, np.eye(3, 20), mean=30.0)
    reference = PCA(n_components=3).fit(rows)
    centred, raw = (top_components(rows, 3, centred=flag) for flag in (True, False))
    np.testing.assert_allclose(np.abs((centred.vectors * reference.components_).sum(axis=1)), 1, rtol=1e-9)
    np.testing.assert_allclose(centred.share[:3], reference.explained_variance_ratio_)
    assert abs(raw.vectors[0] @ reference.components_[0]) < 0.3
    assert abs(raw.vectors[0, -1]) > 0.99, "uncentred, the first component is the mean"
    alike = top_components(rows - rows.mean(axis=0), 3, centred=False)
    np.testing.assert_allclose(np.abs(alike.vectors), np.abs(centred.vectors), atol=1e-9)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_overlap_survives_rotation_and_matches_angles(seed, k) -> None:
    one, other, turn = stats.ortho_group.rvs(10, size=3, random_state=seed)
    first, second = one[:k], other[:k]
    overlap = overlap_and_largest(first, second)[0]
    np.testing.assert_allclose(overlap_and_largest(first @ turn, second @ turn)[0], overlap)
    assert not np.isclose(overlap_and_largest(first @ turn, second)[0], overlap, rtol=1e-6)
    angles = linalg.subspace_angles(first.T, second.T)
    np.testing.assert_allclose(np.square(np.cos(angles)).mean(), overlap)


def test_random_floor_has_mean_k_over_d() -> None:
    null = random_overlaps(32, 4, n_draws=800)
    np.testing.assert_allclose(null[:, 0].mean(), 4 / 32, atol=3 * null[:, 0].std() / np.sqrt(800))
    single = random_overlaps(32, 1, n_draws=800)
    assert null[:, 1].mean() > single[:, 1].mean() + 0.1, "the largest of 16 cosines is no single cosine"
    np.testing.assert_allclose(random_overlaps(4, 4, n_draws=3)[:, 0], 1)


def test_measured_overlap_of_shared_and_unshared_axes() -> None:
    resamples = make_resamples(FORTY, seed=0, n_resamples=60)
    shared = VectorSet(rows_with(3, np.eye(2, 20)), FORTY)
    again = VectorSet(rows_with(4, np.eye(2, 20)), FORTY)
    apart = VectorSet(rows_with(5, np.eye(4, 20)[2:]), FORTY)
    ceiling = split_half_overlaps(shared, n_components=2, centred=True, n_splits=20)
    floor = random_overlaps(20, 2, n_draws=300)
    for other, alike in ((again, True), (apart, False)):
        result = measure_overlap(shared, other, resamples, n_components=2, centred=True)
        bases = (top_components(s.rows, 2, centred=True).vectors for s in (shared, other))
        np.testing.assert_allclose(result.overlap.value, overlap_and_largest(*bases)[0])
        assert (result.overlap.low > np.quantile(floor[:, 0], 0.975)) == alike
        assert (result.largest.value > np.quantile(floor[:, 1], 0.975)) == alike
    assert ceiling[:, 0].min() > 0.9


def test_a_common_mean_makes_uncentred_overlap_high_by_itself() -> None:
    resamples = make_resamples(FORTY, seed=0, n_resamples=20)
    one, two = (VectorSet(rows_with(6 + i, np.eye(4, 20)[i : i + 1], mean=40.0), FORTY) for i in (0, 1))
    raw, centred = (
        measure_overlap(one, two, resamples, n_components=1, centred=flag) for flag in (False, True)
    )
    assert raw.overlap.value > 0.98 and centred.overlap.value < 0.1


def test_what_has_no_components_is_refused() -> None:
    rows = rows_with(0, np.eye(3, 20))
    with pytest.raises(ValueError, match="valid are 1 to 20"):
        top_components(rows, 21, centred=True)
    rows[7] = np.nan
    with pytest.raises(ValueError, match="1 of 200 rows hold NaN"):
        VectorSet(rows, FORTY)
    with pytest.raises(ValueError, match="all 5 rows are equal"):
        top_components(np.ones((5, 3)), 1, centred=True)


def test_overlap_interval_holds_the_value_where_resampling_alone_is_biased() -> None:
    """The failing twin: percentiles of the resamples lie below the value, since repeated rows add noise."""
    generator, clusters = np.random.default_rng(0), [f"template {i}" for i in range(40)]
    shared = generator.standard_normal((40, 3)) @ generator.standard_normal((3, 24))
    sides = [VectorSet(shared + 2 * generator.standard_normal((40, 24)), clusters) for _ in range(2)]
    resamples = make_resamples(clusters, seed=0, n_resamples=200)
    found = measure_overlap(*sides, resamples, n_components=3, centred=True).overlap
    assert found.method == "t" and found.low < found.value < found.high
    assert np.mean(found.samples) < found.value


def test_interval_of_the_overlap_counts_bias_and_that_of_the_largest_cosine_does_not() -> None:
    """Against left-out rows decomposed one by one; by variance alone the interval of the overlap is narrower."""
    generator, clusters = np.random.default_rng(0), [f"template {i:02d}" for i in range(30)]
    # A second component that hardly stands out: it turns when one row is left out.
    rows = [generator.standard_normal((30, 6)) * [4, 2, 1.8, 1, 1, 1] for _ in range(2)]
    sides, once = [VectorSet(one, clusters) for one in rows], make_resamples(clusters, seed=0, n_resamples=1)
    found = measure_overlap(*sides, once, n_components=2, centred=True)
    whole, *left = (
        overlap_and_largest(*(top_components(one[kept], 2, centred=True).vectors for one in rows))
        for kept in (np.ones(30, dtype=bool), *~np.eye(30, dtype=bool))
    )
    deviations = np.stack(left) - whole
    error, bias = np.sqrt(29 / 30 * np.square(deviations).sum(axis=0)), 29 * deviations.mean(axis=0)
    half = stats.t.ppf(0.975, 29) * np.array([np.hypot(error, bias)[0], error[1]])
    free = [replace(one, inside=(-np.inf, np.inf)) for one in (found.overlap, found.largest)]
    np.testing.assert_allclose(np.array([one.high for one in free]) - whole, half, rtol=1e-6)
    alone = replace(free[0], counts_bias=False)
    assert alone.high - whole[0] < 0.99 * half[0]
    # No overlap is outside of [0, 1], and no end of its interval: there it stops, and nowhere before.
    assert (found.overlap.low, found.overlap.high) == (max(free[0].low, 0), 1) != (free[0].low, free[0].high)
