"""Label shuffles respect their groups, p values are never 0, and Holm is monotone."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from remi_core.statistics.nulls import against_null, holm, null_interval, permutation_p_value, permuted_labels


def sums_by(groups: list[str], labels: np.ndarray) -> np.ndarray:
    """Sum of the labels in each group, one row per relabelling."""
    members = np.array(sorted(set(groups)))[:, None] == np.array(groups)
    return np.atleast_2d(labels) @ members.T


def test_within_keeps_group_totals_and_free_does_not() -> None:
    groups = ["b", "a", "b", "a", "c", "b", "c"]
    labels = np.array([0, 1, 1, 0, 1, 1, 1])
    within = permuted_labels(labels, groups, scheme="within", n_permutations=300)
    assert (sums_by(groups, within) == sums_by(groups, labels)).all()
    assert len(np.unique(within, axis=0)) == 6, "2 orders in a, 3 in b, 1 in c"
    free = permuted_labels(labels, n_permutations=300)
    assert (free.sum(axis=1) == labels.sum()).all()
    assert (sums_by(groups, free) != sums_by(groups, labels)).any()


def test_whole_groups_move_together() -> None:
    groups = ["a", "a", "b", "b", "b", "c", "d"]
    constant = permuted_labels(np.array([0, 0, 1, 1, 1, 1, 0]), groups, scheme="whole", n_permutations=200)
    assert (constant[:, 0] == constant[:, 1]).all() and (constant[:, 2] == constant[:, 4]).all()
    assert len(np.unique(constant, axis=0)) == 6, "4 groups, 2 of them labelled 1"
    pairs = permuted_labels(np.array([0, 1, 0, 1]), ["a", "a", "b", "b"], scheme="whole", n_permutations=200)
    assert len(np.unique(pairs, axis=0)) == 4 and (pairs[:, 0] != pairs[:, 1]).all()
    with pytest.raises(ValueError, match="1 of 2 groups hold one label"):
        permuted_labels(np.array([0, 1, 1, 1]), ["a", "a", "b", "b"], scheme="whole")
    with pytest.raises(ValueError, match="needs one group per label"):
        permuted_labels(np.array([0, 1]), ["a"], scheme="within")


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
    assert permutation_p_value(9.0, null) == 1 / 5
    assert permutation_p_value(3.0, null) == 3 / 5
    assert permutation_p_value(9.0, null, alternative="less") == 1
    assert permutation_p_value(9.0, null, alternative="two-sided") == 2 / 5
    assert permutation_p_value(4.0 + 1e-13, null) == 2 / 5, "rounding is a tie"
    with pytest.raises(ValueError, match="1 of 2 rows hold NaN"):
        permutation_p_value(1.0, np.array([0.0, np.nan]))


def test_null_interval_is_central_and_goes_with_its_p_value() -> None:
    null = np.arange(1001.0)
    np.testing.assert_allclose(null_interval(null), (25, 975))
    result = against_null(980.0, null, kind="labels shuffled")
    assert (result.low, result.high) == null_interval(null) and result.kind == "labels shuffled"
    assert result.p_value == 22 / 1002


def test_holm_by_hand_monotone_and_never_below_the_raw_value() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    ties = [0.2, 0.01, 0.01, 0.9, 0.04, 1.0]
    np.testing.assert_allclose(holm(ties), multipletests(ties, method="holm")[1])
    raw = np.random.default_rng(1).random(40) ** 3
    adjusted = holm(raw.tolist())
    assert (np.diff(adjusted[np.argsort(raw)]) >= 0).all()
    assert (adjusted >= raw).all() and (adjusted > raw).any() and (adjusted <= 1).all()
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        holm([0.1, float("nan")])
