"""Intervals over prompt templates and label shuffles: coverage, textbook formulas, whole groups, and refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from remi_core.statistics.nulls import against_null, holm, permutation_p_value, permuted_labels
from remi_core.statistics.resampling import (
    ClusterResamples,
    Estimate,
    cluster_sums,
    combine,
    difference,
    fieller_set,
    make_resamples,
    mean_interval,
    percentile_interval,
    ratio,
    resampled_means,
)


def clustered_values(generator: np.random.Generator, n_clusters: int, size: int) -> tuple:
    """Values with mean 0 whose clusters carry most of the variance, and the cluster of each."""
    effect = np.repeat(generator.standard_normal(n_clusters), size)
    names = [f"template {i:03d}" for i in range(n_clusters) for _ in range(size)]
    return effect + 0.3 * generator.standard_normal(n_clusters * size), names


def test_resamples_are_shared_and_seeded() -> None:
    names = [f"code {i}" for i in range(30)] + [f"people {i}" for i in range(25)]
    strata = {name: name.split()[0] for name in names}
    one, again = (make_resamples(names, seed=3, n_resamples=50, strata=strata) for _ in range(2))
    assert (one.weights == again.weights).all()
    assert (one.weights != make_resamples(names, seed=4, n_resamples=50, strata=strata).weights).any()
    assert one.names == tuple(sorted(names))
    code = one.positions(names[:30])
    assert (one.weights[:, code].sum(axis=1) == 30).all(), "a topic keeps its number of clusters"
    alone = make_resamples(names[:30], seed=3, n_resamples=50, strata=strata)
    assert (one.weights[:, code] == alone.weights[:, alone.positions(names[:30])]).all()
    free = make_resamples(names, seed=3, n_resamples=50)
    assert (free.weights[:, code].sum(axis=1) != 30).any(), "without strata it does not"


def test_resampled_mean_equals_the_mean_of_repeated_rows() -> None:
    generator = np.random.default_rng(0)
    clusters = [f"c{i}" for i in generator.integers(0, 25, 80)]
    values = generator.standard_normal((80, 2, 3)).astype(np.float32)
    names = sorted(set(clusters))
    resamples = make_resamples(names, seed=0, n_resamples=4)
    means = resampled_means(*cluster_sums(values, clusters, names), resamples.weights)
    for row, weights in enumerate(resamples.weights):
        repeats = [weights[names.index(cluster)] for cluster in clusters]
        np.testing.assert_allclose(means[row], np.repeat(values, repeats, axis=0).mean(axis=0), atol=1e-6)


def test_cluster_bootstrap_covers_and_the_naive_one_does_not() -> None:
    generator, covered = np.random.default_rng(1), {"clusters": 0, "dialogues": 0}
    for trial in range(200):
        values, clusters = clustered_values(generator, 30, 8)
        for kind, names in (("clusters", clusters), ("dialogues", [str(at) for at in range(len(values))])):
            estimate = mean_interval(values, names, make_resamples(names, seed=trial, n_resamples=200))
            covered[kind] += bool(estimate.low <= 0 <= estimate.high)
    assert covered["clusters"] >= 176 and covered["dialogues"] <= 140, covered


def test_few_clusters_use_t_with_g_minus_one() -> None:
    generator = np.random.default_rng(2)
    for n_clusters, method in ((7, "t"), (25, "bootstrap")):
        values, clusters = clustered_values(generator, n_clusters, 4)
        estimate = mean_interval(values, clusters, make_resamples(clusters, seed=0))
        means = values.reshape(n_clusters, 4).mean(axis=1)
        textbook = stats.t.interval(0.95, n_clusters - 1, means.mean(), stats.sem(means))
        assert estimate.method == method and f", {n_clusters} clusters)" in repr(estimate)
        assert np.allclose(estimate.interval(), textbook, rtol=1e-9) == (method == "t")


def test_expanded_percentiles_of_a_mean_are_the_ends_of_the_textbook_t_interval() -> None:
    generator = np.random.default_rng(7)
    names = [f"t{i:02d}" for i in range(24)]
    values = generator.standard_normal(24)
    free = mean_interval(values, names, make_resamples(names, seed=0, n_resamples=20_000))
    textbook = stats.t.interval(0.95, 23, values.mean(), stats.sem(values))
    np.testing.assert_allclose(free.interval(), textbook, atol=0.03 * (textbook[1] - textbook[0]))
    plain = np.ptp(percentile_interval(free.samples))
    assert plain < 0.96 * (free.high - free.low), "percentiles as they are fall short"
    # In two strata the variance is the sum of two, each of its own twelve, with 22 degrees of freedom.
    topics = {name: str(place < 12) for place, name in enumerate(names)}
    within = mean_interval(values, names, make_resamples(names, seed=0, n_resamples=20_000, strata=topics))
    error = np.hypot(stats.sem(values[:12]), stats.sem(values[12:])) / 2
    width = 2 * stats.t.ppf(0.975, 22) * error
    assert within.n_strata == 2 and within.high - within.low == pytest.approx(width, rel=0.04)


def test_error_of_a_square_counts_the_bias_that_a_mean_does_not_have() -> None:
    """The jackknife's bias of the square of a mean is s² / n, exactly; that of the mean itself is 0."""
    values = np.random.default_rng(0).normal(0.3, 1, 30)
    clusters = [f"template {i:02d}" for i in range(30)]
    mean = mean_interval(values, clusters, make_resamples(clusters, seed=0, n_resamples=20))
    for function, bias in ((np.square, values.var(ddof=1) / 30), (np.positive, 0)):
        alone = replace(combine(function, mean), repeats_bias=True)
        both = combine(np.positive, replace(alone, counts_bias=True))
        half, wider = (float(one.high - one.value) / stats.t.ppf(0.975, 29) for one in (alone, both))
        np.testing.assert_allclose(wider, np.hypot(half, bias))
        assert (wider > half * (1 + 1e-9)) == (bias > 0)


def test_interval_of_a_combination_keeps_the_shared_resamples() -> None:
    generator = np.random.default_rng(3)
    for n_clusters in (10, 40):
        values, clusters = clustered_values(generator, n_clusters, 5)
        noise = 0.01 * generator.standard_normal(len(values))
        resamples = make_resamples([*clusters, "elsewhere"], seed=0)
        first, second = (mean_interval(v, clusters, resamples) for v in (values + 1 + noise, values))
        direct = mean_interval(1 + noise, clusters, resamples)
        contrast = difference(first, second)
        np.testing.assert_allclose(contrast.interval(), direct.interval(), atol=1e-12)
        assert contrast.high - contrast.low < 0.1 * (first.high - first.low), "common noise cancels"
        assert contrast.n_clusters == n_clusters


def test_ratio_is_undefined_where_the_denominator_reaches_zero() -> None:
    generator = np.random.default_rng(4)
    values, clusters = clustered_values(generator, 30, 3)
    resamples = make_resamples(clusters, seed=0)
    columns = mean_interval(np.stack([values, values + 10], axis=1), clusters, resamples)
    index = ratio(columns, columns)
    assert np.isnan([index.value[0], index.low[0], index.high[0]]).all()
    np.testing.assert_allclose([index.value[1], index.low[1], index.high[1]], 1)


def pair(values: np.ndarray, resamples: ClusterResamples) -> list[Estimate]:
    """Means of (cluster, quantity, trial) as numerator and denominator."""
    return [mean_interval(values[:, side], resamples.names, resamples) for side in (0, 1)]


def test_fieller_set_is_what_a_t_test_of_top_minus_ratio_times_bottom_keeps() -> None:
    """An interval, all but an interval, or the line: as the doubt about the denominator grows."""
    names, noise = [f"t{i:02d}" for i in range(12)], np.random.default_rng(0).standard_normal((12, 2))
    resamples = make_resamples(names, seed=0, n_resamples=10)
    noise, limit = noise - noise.mean(axis=0), stats.t.ppf(0.975, 11)
    for means, kept in (((1, 2), "10"), ((3, 0.4), "01"), ((0.1, 0.1), "11")):
        low, high, doubt = fieller_set(*pair(noise + means, resamples))

        def gap(rho: float, values: np.ndarray = noise + means) -> float:
            return abs(stats.ttest_1samp(values @ [1, -rho], 0).statistic)

        for end in (low, high):
            assert np.isinf(end) or gap(end) == pytest.approx(limit, rel=1e-6)
        assert [gap(rho) < limit for rho in (means[0] / means[1], 1e6)] == [True, kept[1] == "1"]
        assert (low < high, doubt < 1) == ((kept != "01"), kept == "10")
        assert np.isinf(low) == (kept == "11")
        undefined = ratio(*pair(noise + means, resamples))
        assert np.isnan(undefined.value) == (doubt >= 1)


def test_fieller_sets_cover_where_percentiles_of_a_ratio_do_not() -> None:
    """A denominator of almost nothing, of three standard errors and of twenty, where both cover and agree."""
    generator, n, covered = np.random.default_rng(1), 40, {}
    resamples = make_resamples([f"t{i:02d}" for i in range(n)], seed=0)
    for errors in ((10, 0.03), (9, 3), (60, 20)):
        means, true = np.array(errors)[:, None] / np.sqrt(n), errors[0] / errors[1]
        top, bottom = pair(generator.standard_normal((n, 2, 1500)) + means, resamples)
        low, high, doubt = fieller_set(top, bottom)
        inside = np.where(low <= high, (low <= true) & (high >= true), (low <= true) | (high >= true))
        ends = percentile_interval(top.samples / bottom.samples)
        covered[errors] = inside.mean(), ((ends[0] <= true) & (ends[1] >= true)).mean()
        index = ratio(top, bottom)
        assert np.isnan(index.value[doubt >= 1]).all() and (doubt >= 1).any() == (errors[1] < 20)
        near = np.isfinite(index.value) & (doubt >= 0.05)
        np.testing.assert_array_equal(index.low[near], low[near])
    assert all(0.93 <= kept <= 0.97 for kept, _ in covered.values()), covered
    assert covered[10, 0.03][1] < 0.6 and covered[60, 20][1] > 0.93, covered


def test_a_share_of_a_way_that_goes_the_wrong_way_is_undefined() -> None:
    values, clusters = clustered_values(np.random.default_rng(4), 30, 3)
    columns = mean_interval(values + 10, clusters, make_resamples(clusters, seed=0))
    assert [bool(np.isnan(ratio(columns, columns, sign=sign).value)) for sign in (-1, 0, 1)] == [
        True,
        False,
        False,
    ]


def test_nan_and_strangers_are_refused_by_count() -> None:
    values, clusters = clustered_values(np.random.default_rng(6), 20, 2)
    resamples = make_resamples(clusters, seed=0, n_resamples=200)
    broken = np.stack([values, values], axis=1)
    broken[[3, 5, 8], 0] = np.nan
    for given, message in (
        ((broken, clusters, resamples), "3 of 40 rows hold NaN"),
        ((values, ["other", *clusters[1:]], resamples), "not in the resamples.*'other'"),
        ((values, ["one"] * 40, make_resamples(["one"], seed=0)), "at least 2"),
        ((values[:4], clusters[:4], resamples), "use strata"),
    ):
        with pytest.raises(ValueError, match=message):
            mean_interval(*given)


def test_within_keeps_group_totals_and_free_does_not() -> None:
    groups, labels = list("babacbc"), np.array([0, 1, 1, 0, 1, 1, 1])
    members = (np.array(sorted(set(groups)))[:, None] == np.array(groups)).T
    within = permuted_labels(labels, groups, scheme="within", n_permutations=300)
    assert (within @ members == labels @ members).all()
    assert len(np.unique(within, axis=0)) == 6, "2 orders in a, 3 in b, 1 in c"
    free = permuted_labels(labels, n_permutations=300)
    assert (free.sum(axis=1) == labels.sum()).all() and (free @ members != labels @ members).any()


def test_whole_groups_move_together() -> None:
    def whole(labels: str, groups: str) -> np.ndarray:
        drawn = np.array(list(labels), dtype=int)
        return permuted_labels(drawn, list(groups), scheme="whole", n_permutations=200)

    constant = whole("0011110", "aabbbcd")
    assert (constant[:, 0] == constant[:, 1]).all() and (constant[:, 2] == constant[:, 4]).all()
    assert len(np.unique(constant, axis=0)) == 6, "4 groups, 2 of them labelled 1"
    pairs = whole("0101", "aabb")
    assert len(np.unique(pairs, axis=0)) == 4 and (pairs[:, 0] != pairs[:, 1]).all()
    with pytest.raises(ValueError, match="1 of 2 groups hold one label"):
        whole("0111", "aabb")
    with pytest.raises(ValueError, match="needs one group per label"):
        whole("01", "a")


def test_whole_groups_hold_the_level_where_free_shuffles_do_not() -> None:
    generator = np.random.default_rng(0)
    groups = [f"{i:02d}" for i in range(12) for _ in range(10)]
    labels = np.repeat(np.arange(12) % 2, 10)
    rejected = {"free": 0, "whole": 0}
    for trial in range(100):
        values = np.repeat(generator.standard_normal(12), 10) + 0.3 * generator.standard_normal(120)
        for scheme in rejected:
            shuffled = permuted_labels(labels, groups, scheme=scheme, n_permutations=199, seed=trial)
            null = np.abs((2 * shuffled - 1) @ values)
            rejected[scheme] += permutation_p_value(abs(float((2 * labels - 1) @ values)), null) <= 0.05
    assert rejected["whole"] <= 11 and rejected["free"] >= 30, rejected


def test_p_values_by_hand() -> None:
    null = np.array([1.0, 2.0, 3.0, 4.0])
    assert [permutation_p_value(value, null) for value in (9.0, 3.0)] == [1 / 5, 3 / 5]
    assert permutation_p_value(9.0, null, alternative="less") == 1
    assert permutation_p_value(9.0, null, alternative="two-sided") == 2 / 5
    assert permutation_p_value(4.0 + 1e-13, null) == 2 / 5, "rounding is a tie"
    with pytest.raises(ValueError, match="1 of 2 rows hold NaN"):
        permutation_p_value(1.0, np.array([0.0, np.nan]))
    # The interval is central and goes with the p-value.
    result = against_null(980.0, np.arange(1001.0), kind="labels shuffled")
    assert (result.low, result.high) == pytest.approx((25, 975)) and result.p_value == 22 / 1002


def test_holm_by_hand_and_as_statsmodels_has_it() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    for raw in ([0.2, 0.01, 0.01, 0.9, 0.04, 1.0], (np.random.default_rng(1).random(40) ** 3).tolist()):
        np.testing.assert_allclose(holm(raw), multipletests(raw, method="holm")[1])
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        holm([0.1, float("nan")])
