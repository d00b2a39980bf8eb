"""d′ of known Gaussians, its sign, its held-out axis, and agreement with scikit-learn's AUROC."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from remi_book.statistics import released_separation
from remi_core.statistics.displacement import Contrast, _auroc, measure_separation, separation_null
from remi_core.statistics.nulls import against_null
from remi_core.statistics.resampling import cluster_folds, make_resamples

N, LAYERS, D_MODEL = 400, 2, 16
CLUSTERS = [f"template {i % 40:02d}" for i in range(N)]
RESAMPLES = make_resamples(CLUSTERS, seed=0, n_resamples=200)


def gaussians(seed: int, shift: float) -> np.ndarray:
    """Unit noise in every dimension, shifted along the first."""
    values = np.random.default_rng(seed).standard_normal((N, LAYERS, D_MODEL))
    values[..., 0] += shift
    return values


def test_known_gaussians_have_known_d_prime_and_auroc() -> None:
    result = measure_separation(Contrast(gaussians(0, 0), gaussians(1, 2)), CLUSTERS, RESAMPLES)
    np.testing.assert_allclose(result.d_prime.value, 2, atol=0.2)
    np.testing.assert_allclose(result.auroc.value, stats.norm.cdf(2 / np.sqrt(2)), atol=0.02)
    assert (result.d_prime.low < 2).all() and (result.d_prime.high > 2).all()
    assert (result.d_prime.high - result.d_prime.low < 0.8).all()


def test_sign_flips_when_groups_swap_on_a_fixed_axis_only() -> None:
    base, instruct, misaligned = gaussians(2, 0), gaussians(3, 4), gaussians(4, 3)

    def d_prime(first: np.ndarray, second: np.ndarray, reference: np.ndarray | None) -> np.ndarray:
        return measure_separation(Contrast(first, second, reference), CLUSTERS, RESAMPLES).d_prime.value

    assert (d_prime(instruct, misaligned, base) < -0.7).all()
    assert (d_prime(misaligned, instruct, base) > 0.7).all()
    forward, backward = d_prime(instruct, misaligned, None), d_prime(misaligned, instruct, None)
    np.testing.assert_allclose(forward, backward, err_msg="an axis fitted on the groups turns with them")


def test_no_difference_gives_no_separation_only_when_held_out() -> None:
    first, second = np.random.default_rng(5).standard_normal((2, 60, 20, D_MODEL))  # 20 independent layers
    clusters = [f"{i:02d}" for i in range(60)]
    resamples = make_resamples(clusters, seed=0, n_resamples=100)
    held_out = measure_separation(Contrast(first, second), clusters, resamples)
    assert abs(held_out.d_prime.value.mean()) < 0.2 and abs(held_out.auroc.value.mean() - 0.5) < 0.05
    axis = (second - first).mean(axis=0)
    scores = [np.einsum("nld,ld->nl", group, axis) for group in (first, second)]
    assert (2 * released_separation(*scores)).mean() > 0.5, "in sample there always is one"


def test_shuffled_labels_give_the_null() -> None:
    base, instruct = gaussians(7, 0), gaussians(8, 4)
    same, other = Contrast(instruct, gaussians(9, 4), base), Contrast(instruct, gaussians(10, 3), base)
    for contrast, differs in ((same, False), (other, True)):
        value = measure_separation(contrast, CLUSTERS, RESAMPLES).d_prime.value
        null = separation_null(contrast, CLUSTERS, n_permutations=199)
        p_values = [
            against_null(v, null[:, i], kind="labels shuffled", alternative="two-sided").p_value
            for i, v in enumerate(value)
        ]
        assert np.abs(null.mean(axis=0)).max() < 0.1
        assert all((p <= 0.01) == differs for p in p_values), p_values


def test_resampled_d_prime_equals_refitting_on_repeated_rows() -> None:
    contrast = Contrast(gaussians(11, 0), gaussians(12, 1))
    row = RESAMPLES.weights[3]
    names, index = np.unique(CLUSTERS, return_inverse=True)
    kept = np.repeat(np.arange(N), row[index])
    # Repeated rows keep their template's name, hence its fold; absent templates must keep their place too.
    result = measure_separation(contrast, CLUSTERS, RESAMPLES)
    folds = cluster_folds(len(names), seed=RESAMPLES.seed)[index][kept]
    first, second = contrast.first[kept, 0], contrast.second[kept, 0]
    scores = np.empty((2, len(kept)))
    for fold in np.unique(folds):
        axis = (second - first)[folds != fold].mean(axis=0)
        for place, group in enumerate((first, second)):
            scores[place, folds == fold] = group[folds == fold] @ axis / np.linalg.norm(axis)
    expected = np.diff(scores.mean(axis=1))[0] / np.sqrt(scores.var(axis=1, ddof=1).mean())
    np.testing.assert_allclose(result.d_prime.samples[3, 0], expected)
    auroc = roc_auc_score(np.repeat([0, 1], len(kept)), scores.ravel())
    np.testing.assert_allclose(result.auroc.samples[3, 0], auroc)


def test_auroc_counts_ties_as_half() -> None:
    generator = np.random.default_rng(13)
    first, second = generator.integers(0, 4, (2, 1, 50)).astype(float)
    weights = generator.integers(0, 3, (1, 50)).astype(float)
    labels = np.repeat([0, 1], 50)
    expected = roc_auc_score(
        labels, np.concatenate([first[0], second[0]]), sample_weight=np.tile(weights[0], 2)
    )
    np.testing.assert_allclose(_auroc(first, second, weights), expected)
    np.testing.assert_allclose(_auroc(first, first, weights), 0.5)


def test_released_score_is_half_of_d_prime_for_equal_spreads() -> None:
    first, second = gaussians(14, 0)[..., 0], gaussians(15, 3)[..., 0]
    np.testing.assert_allclose(released_separation(first, second), 1.5, atol=0.15)
    assert (released_separation(second, first) < 0).all()


def test_refusals() -> None:
    broken = gaussians(0, 0)
    broken[2, 1, 3] = np.nan
    with pytest.raises(ValueError, match="1 of 400 rows hold NaN"):
        measure_separation(Contrast(broken, gaussians(1, 0)), CLUSTERS, RESAMPLES)
    with pytest.raises(ValueError, match="no direction"):
        measure_separation(Contrast(gaussians(0, 0), gaussians(0, 0)), CLUSTERS, RESAMPLES)
