"""Identities of centred Gram matrices, an unbiased group distance, and the 2 × 2 of loss vectors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from sklearn.decomposition import PCA
from statsmodels.stats.anova import anova_lm

from remi_book.statistics import centring_identity, paired_cosine, pca_coordinates, squared_distance
from remi_core.statistics.groups import (
    FACTORS,
    centred_gram,
    cosine_matrix,
    cosine_of_rows,
    factor_shares,
    model_swap_shares,
    pair_means,
    within_between_estimate,
    within_minus_between,
)
from remi_core.statistics.nulls import permutation_p_value, permuted_labels
from remi_core.statistics.resampling import make_resamples


def two_groups(seed: int, distance: float, n: int = 40, d: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Vectors around a large common mean, the second group (60 %) shifted; and their labels."""
    vectors = 2 + np.random.default_rng(seed).standard_normal((n, d))
    labels = (np.arange(n) >= 0.4 * n).astype(np.int64)
    vectors[:, 0] += distance * labels
    return vectors, labels


def test_centred_gram_is_the_gram_of_centred_vectors() -> None:
    vectors, _ = two_groups(0, 1)
    centred = vectors - vectors.mean(axis=0)
    gram = centred_gram(vectors @ vectors.T)
    projector = np.eye(40) - 1 / 40
    np.testing.assert_allclose(gram, centred @ centred.T, atol=1e-10)
    np.testing.assert_allclose(gram, projector @ (vectors @ vectors.T) @ projector, atol=1e-10)
    assert abs(gram.sum()) < 1e-8
    assert abs(cosine_matrix(gram).sum()) > 0.1, "normalising after centring breaks the sum"
    np.testing.assert_allclose(cosine_matrix(3 * gram), cosine_matrix(gram))


@pytest.mark.parametrize("distance", [0.0, 0.5, 5.0])
def test_between_group_mean_after_centring_is_forced(distance) -> None:
    vectors, labels = two_groups(1, distance)
    gram = vectors @ vectors.T
    between, forced = centring_identity(gram, labels)
    np.testing.assert_allclose(between, forced, rtol=1e-9)
    assert between < 0 < gram[np.ix_(labels == 0, labels == 1)].mean(), (
        "aligned vectors, negative all the same"
    )
    d = vectors[labels == 1].mean(axis=0) - vectors[labels == 0].mean(axis=0)
    np.testing.assert_allclose(forced, -0.4 * 0.6 * (d @ d))
    cosine_between = cosine_matrix(centred_gram(gram))[np.ix_(labels == 0, labels == 1)].mean()
    _, cosine_forced = centring_identity(cosine_matrix(gram), labels)
    assert not np.isclose(cosine_between, cosine_forced, rtol=1e-3), "no identity for cosines"


def test_distance_without_the_diagonal_is_unbiased_and_with_it_is_not() -> None:
    unbiased, naive = [], []
    for seed in range(300):
        vectors, labels = two_groups(seed, 1.0, n=20)
        gram = vectors @ vectors.T
        unbiased.append(squared_distance(pair_means(gram, labels[None]))[0])
        d = vectors[labels == 1].mean(axis=0) - vectors[labels == 0].mean(axis=0)
        naive.append(d @ d)
    error = np.std(unbiased) / np.sqrt(300)
    assert abs(np.mean(unbiased) - 1) < 3 * error
    np.testing.assert_allclose(np.mean(naive) - 1, 30 * (1 / 8 + 1 / 12), atol=5 * error)


def test_distance_with_clusters_needs_pairs_from_different_clusters() -> None:
    generator = np.random.default_rng(2)
    clusters = [f"{i // 4:02d}" for i in range(40)]
    labels = (np.arange(40) >= 20).astype(np.int64)
    apart, together = [], []
    for _ in range(200):
        vectors = np.repeat(generator.standard_normal((10, 20)), 4, axis=0) + generator.standard_normal(
            (40, 20)
        )
        gram = vectors @ vectors.T
        apart.append(squared_distance(pair_means(gram, labels[None], clusters))[0])
        together.append(squared_distance(pair_means(gram, labels[None]))[0])
    assert abs(np.mean(apart)) < 3 * np.std(apart) / np.sqrt(200)
    assert np.mean(together) > 3, "only dropping the diagonal leaves the noise of templates in"


def test_pair_means_agree_with_loops_in_every_relabelling_and_resample() -> None:
    vectors, labels = two_groups(3, 1, n=14)
    gram, clusters = vectors @ vectors.T, [f"{i % 5}" for i in range(14)]
    rows = permuted_labels(labels, n_permutations=3, seed=0)
    weights = np.random.default_rng(4).integers(1, 4, (3, 14)).astype(float)
    found = pair_means(gram, rows, clusters, weights=weights)
    for row in range(3):
        for place, (a, b) in enumerate(((0, 0), (1, 1), (0, 1))):
            pairs = [
                (i, j)
                for i in range(14)
                for j in range(14)
                if rows[row, i] == a and rows[row, j] == b and clusters[i] != clusters[j]
            ]
            expected = np.average(
                [gram[p] for p in pairs], weights=[weights[row, i] * weights[row, j] for i, j in pairs]
            )
            np.testing.assert_allclose(found[row, place], expected)


def test_within_minus_between_against_shuffled_labels_and_by_interval() -> None:
    clusters = [f"{i % 25:02d}" for i in range(50)]
    resamples = make_resamples(clusters, seed=0, n_resamples=200)
    for distance, differs in ((0.0, False), (4.0, True)):
        vectors, labels = two_groups(5, distance, n=50)
        cosines = cosine_matrix(vectors @ vectors.T)
        observed = within_minus_between(pair_means(cosines, labels[None]))[0]
        null = within_minus_between(pair_means(cosines, permuted_labels(labels, n_permutations=199)))
        assert (permutation_p_value(observed, null) <= 0.05) == differs
        estimate = within_between_estimate(cosines, labels, clusters, resamples)
        assert (estimate.low > 0) == differs


def test_pca_coordinates_equal_scikit_learn() -> None:
    vectors, labels = two_groups(6, 6)
    coordinates, share = pca_coordinates(vectors @ vectors.T, 3)
    reference = PCA(n_components=3).fit(vectors)
    np.testing.assert_allclose(np.abs(coordinates), np.abs(reference.transform(vectors)), atol=1e-8)
    np.testing.assert_allclose(share, reference.explained_variance_ratio_)
    assert abs(np.corrcoef(coordinates[:, 0], labels)[0, 1]) > 0.9


def test_losses_are_never_opposed_and_pairing_matters() -> None:
    generator = np.random.default_rng(7)
    completion = generator.exponential(size=(30, 16))
    first, second = (completion + 0.3 * generator.exponential(size=(30, 16)) for _ in range(2))
    assert (cosine_of_rows(first, second) >= 0).all()
    observed, null = paired_cosine(first, second, n_permutations=199)
    assert permutation_p_value(observed, null) == 1 / 200
    strangers = [
        paired_cosine(first, generator.exponential(size=(30, 16)), n_permutations=99) for _ in range(20)
    ]
    assert sum(permutation_p_value(*stranger) <= 0.05 for stranger in strangers) <= 4


def test_two_by_two_shares_find_the_planted_factor() -> None:
    generator = np.random.default_rng(8)
    labels = (np.arange(60) >= 25).astype(np.int64)
    for factor in ("model", "data", "interaction"):
        losses = generator.standard_normal((2, 60, 8))
        sign = np.stack([np.zeros(60), np.ones(60)])
        effect = {
            "model": sign,
            "data": np.stack([labels, labels]),
            "interaction": (sign - 0.5) * (labels - 0.5) * 4,
        }
        losses += 3.0 * effect[factor][..., None]
        shares = factor_shares(losses, labels[None])[0]
        np.testing.assert_allclose(shares.sum(), 1)
        assert (shares > -1e-12).all()
        assert FACTORS[int(np.argmax(shares[:3]))] == factor and shares[:3].max() > 0.4
        assert np.sort(shares[:3])[1] < 0.06
        null = factor_shares(losses, permuted_labels(labels, n_permutations=199))
        swaps = np.random.default_rng(9).integers(0, 2, (199, 60))
        swapped = model_swap_shares(losses, labels, swaps)
        place = FACTORS.index(factor)
        assert (
            permutation_p_value(shares[place], (swapped if factor == "model" else null)[:, place]) == 1 / 200
        )
        np.testing.assert_allclose(
            model_swap_shares(losses, labels, np.zeros((1, 60), dtype=np.int64))[0], shares
        )


def test_shares_agree_with_statsmodels_on_the_first_component() -> None:
    generator = np.random.default_rng(10)
    losses = generator.standard_normal((2, 30, 5))
    losses[1] += 1.0
    labels = (np.arange(30) >= 12).astype(np.int64)
    scores = PCA(1).fit_transform(losses.reshape(-1, 5)).reshape(2, 30, 1)
    frame = pd.DataFrame({"y": scores.ravel(), "m": np.repeat([0, 1], 30), "d": np.tile(labels, 2)})
    squares = anova_lm(smf.ols("y ~ C(m) * C(d)", frame).fit())["sum_sq"].to_numpy()
    np.testing.assert_allclose(factor_shares(scores, labels[None])[0], squares / squares.sum())
    repeated = generator.integers(1, 4, 30)
    twice = np.repeat(losses, repeated, axis=1)
    np.testing.assert_allclose(
        factor_shares(losses, labels[None], weights=repeated[None].astype(float)),
        factor_shares(twice, np.repeat(labels, repeated)[None]),
    )


def test_refusals() -> None:
    vectors, labels = two_groups(11, 1)
    gram = vectors @ vectors.T
    with pytest.raises(ValueError, match="0 or 1"):
        pair_means(gram, labels[None] + 1)
    with pytest.raises(ValueError, match="no pair of groups 0 and 0"):
        pair_means(gram, labels[None], labels.astype(str).tolist())
    with pytest.raises(ValueError, match="1 of 40 vectors have length 0"):
        cosine_matrix(np.where(np.eye(40) * (np.arange(40) == 3), 0.0, gram))
    with pytest.raises(ValueError, match="2 of 6 rows hold NaN"):
        cosine_of_rows(np.array([[1.0, np.nan]] * 2), np.ones((4, 2)))
    with pytest.raises(ValueError, match="leave a data set empty"):
        factor_shares(np.ones((2, 4, 3)), np.zeros((1, 4), dtype=np.int64))
