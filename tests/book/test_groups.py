"""Gram matrices, losses and shares of two groups: identities, other programs, planted effects, exact chance."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from scipy.stats import binom
from sklearn.decomposition import PCA
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.proportion import proportion_confint

from remi_book.chapters import gradients
from remi_book.chapters.controls import rate_row
from remi_book.quantities import (
    BY_TEMPLATE,
    CELLS,
    WITHIN,
    TwoSets,
    above_chance,
    agreement_cells,
    between_share,
    draw_rows,
    flipped_between,
    kappa,
    kappa_interval,
    side_by_side,
    small_draws,
    wilson_interval,
)
from remi_book.statistics import (
    centring_identity,
    paired_cosine,
    participation_ratio,
    pca_coordinates,
    squared_distance,
)
from remi_core.errors import MissingInput
from remi_core.statistics.groups import (
    FACTORS,
    centred_gram,
    cosine_matrix,
    cosine_of_means,
    cosine_of_rows,
    factor_shares,
    model_swap_shares,
    pair_means,
    within_between_estimate,
    within_minus_between,
)
from remi_core.statistics.nulls import permutation_p_value, permuted_labels
from remi_core.statistics.resampling import make_resamples
from remi_core.store import Store
from remi_lab.presets import get_preset
from remi_lab.results import Results


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
    generator, labels = np.random.default_rng(2), (np.arange(40) >= 20).astype(np.int64)
    clusters, apart, together = [f"{i // 4:02d}" for i in range(40)], [], []
    for _ in range(200):
        templates = np.repeat(generator.standard_normal((10, 20)), 4, axis=0)
        vectors = templates + generator.standard_normal((40, 20))
        gram = vectors @ vectors.T
        apart.append(squared_distance(pair_means(gram, labels[None], clusters))[0])
        together.append(squared_distance(pair_means(gram, labels[None]))[0])
    assert abs(np.mean(apart)) < 3 * np.std(apart) / np.sqrt(200)
    assert np.mean(together) > 3, "only dropping the diagonal leaves the noise of templates in"


def test_pair_means_agree_with_loops_in_every_relabelling_and_resample() -> None:
    vectors, labels = two_groups(3, 1, n=14)
    gram, clusters = vectors @ vectors.T, np.array([f"{i % 5}" for i in range(14)])
    rows = permuted_labels(labels, n_permutations=3, seed=0)
    weights = np.random.default_rng(4).integers(1, 4, (3, 14)).astype(float)
    found = pair_means(gram, rows, clusters.tolist(), weights=weights)
    for label, weight, means in zip(rows, weights, found, strict=True):
        for mean, (a, b) in zip(means, ((0, 0), (1, 1), (0, 1)), strict=True):
            pairs = [(i, j) for i in range(14) for j in range(14) if clusters[i] != clusters[j]]
            pairs = [(i, j) for i, j in pairs if (label[i], label[j]) == (a, b)]
            together = [weight[i] * weight[j] for i, j in pairs]
            np.testing.assert_allclose(mean, np.average([gram[pair] for pair in pairs], weights=together))


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


@pytest.mark.parametrize("factor", ["model", "data", "interaction"])
def test_two_by_two_shares_find_the_planted_factor(factor) -> None:
    generator, labels = np.random.default_rng(8), (np.arange(60) >= 25).astype(np.int64)
    sign = np.stack([np.zeros(60), np.ones(60)])
    effect = {
        "model": sign,
        "data": np.stack([labels, labels]),
        "interaction": (sign - 0.5) * (labels - 0.5) * 4,
    }
    losses = generator.standard_normal((2, 60, 8)) + 3.0 * effect[factor][..., None]
    shares = factor_shares(losses, labels[None])[0]
    np.testing.assert_allclose(shares.sum(), 1)
    assert (shares > -1e-12).all()
    assert FACTORS[int(np.argmax(shares[:3]))] == factor and shares[:3].max() > 0.4
    assert np.sort(shares[:3])[1] < 0.06
    swapped = model_swap_shares(losses, labels, np.random.default_rng(9).integers(0, 2, (199, 60)))
    shuffled = factor_shares(losses, permuted_labels(labels, n_permutations=199))
    place = FACTORS.index(factor)
    null = (swapped if factor == "model" else shuffled)[:, place]
    assert permutation_p_value(shares[place], null) == 1 / 200
    unswapped = model_swap_shares(losses, labels, np.zeros((1, 60), dtype=np.int64))[0]
    np.testing.assert_allclose(unswapped, shares)


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


def test_what_is_no_pair_of_groups_is_refused() -> None:
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


def test_the_share_is_that_of_an_analysis_of_variance_and_chance_is_exact() -> None:
    points = np.random.default_rng(0).standard_normal((6, 3))
    splits = [row for row in itertools.product((0, 1), repeat=6) if sum(row) == 3]
    shares = between_share(points, np.array(splits))
    middle = points - points.mean(axis=0)
    first = np.array(splits[0])
    means = [middle[first == label].mean(axis=0) for label in (0, 1)]
    assert shares[0] == pytest.approx(
        3 * sum(np.square(mean).sum() for mean in means) / np.square(middle).sum()
    )
    assert shares.mean() == pytest.approx(1 / 5)  # over all splits, not about


@pytest.mark.parametrize(("gap", "apart"), [(0.0, False), (6.0, True)])
def test_pictures_of_few_vary_and_only_real_classes_stay_above_chance(gap, apart) -> None:
    generator = np.random.default_rng(1)
    vectors = generator.standard_normal((40, 30))
    vectors[20:, 0] += gap
    labels, clusters = np.repeat([0, 1], 20), np.arange(40)
    found, null = small_draws(vectors @ vectors.T, labels, clusters, count=5, n_draws=200)
    assert (found.mean() > 0.2) == apart and found.std() > 0.02 and abs(null.mean()) < 0.03
    assert (above_chance(vectors @ vectors.T, labels[None], n_components=3)[0] > 0.2) == apart


def test_a_draw_takes_no_template_twice_and_refuses_too_few() -> None:
    labels, clusters = np.repeat([0, 1], 6), np.array([0, 1, 2, 3, 4, 5] * 2)
    rows = draw_rows(labels, clusters, count=3, generator=np.random.default_rng(0))
    assert labels[rows].tolist() == [0, 0, 0, 1, 1, 1] and len(set(clusters[rows])) == 6
    with pytest.raises(ValueError, match="class 1 has fewer than 4 templates"):
        draw_rows(labels, clusters, count=4, generator=np.random.default_rng(0))


def test_cosine_of_mean_gradients_recovers_its_sign_through_noise() -> None:
    generator = np.random.default_rng(2)
    labels, clusters = np.repeat([0, 1], 60), [f"c{i}" for i in range(60)] * 2
    for sign in (1, -1):
        vectors = generator.standard_normal((120, 200))
        vectors[:60, 0] += 6
        vectors[60:, 0] += sign * 6
        gram = vectors @ vectors.T
        assert cosine_of_means(pair_means(gram, labels[None], clusters))[0] == pytest.approx(sign, abs=0.1)
        # The noise alone would pull the plain cosine of means towards 0.
        signs = np.stack([np.ones(120, dtype=int), -np.ones(120, dtype=int)])
        between = pair_means(gram, labels[None], clusters)[0, 2]
        assert flipped_between(gram, labels, clusters, signs) == pytest.approx([between, -between])


PRESET = get_preset("smoke")


def rows(clusters: str, pairs: list[str]) -> dict[str, np.ndarray]:
    return {"cluster": np.array(list(clusters)), "pair": np.array(pairs)}


def used(*flags: int) -> np.ndarray:
    return np.array(flags, dtype=bool)


def test_pairs_are_matched_by_label_and_kept_whole() -> None:
    both = side_by_side(
        rows("abc", ["1", "2", "3"]), rows("xyz", ["3", "1", "2"]), (used(1, 1, 0), used(1, 1, 1))
    )
    assert [each.tolist() for each in both.rows] == [[0, 1], [1, 2]]  # pair 3 lost its first half
    assert both.clusters == ["y", "z"] * 2 and both.null_kind == WITHIN
    shuffled = both.shuffled(PRESET)
    assert (shuffled[:, :2] + shuffled[:, 2:] == 1).all() and shuffled.std(axis=0).min() > 0


def test_sets_without_partners_keep_their_rows_whatever_their_length() -> None:
    for pairs in (["", "", ""], ["7", "8", "9"]):
        both = side_by_side(
            rows("aab", pairs),
            rows("xyzzw", [str(i) for i in range(5)]),
            (used(1, 1, 1), used(1, 1, 1, 1, 0)),
        )
        assert [len(each) for each in both.rows] == [3, 4]
        assert both.pairs == [] and both.clusters == list("aabxyzz") and both.null_kind == BY_TEMPLATE
        shuffled = both.shuffled(PRESET)
        # Templates move whole, and their labels are only passed round: two of one, three of the other.
        assert (shuffled[:, 0] == shuffled[:, 1]).all() and (shuffled[:, 5] == shuffled[:, 6]).all()
        assert (shuffled[:, [0, 2, 3, 4, 5]].sum(axis=1) == 3).all()
        assert (shuffled != both.labels).any()


def test_a_few_equal_answers_do_not_make_pairs() -> None:
    both = side_by_side(
        rows("abcd", ["1", "2", "3", "4"]), rows("wxyz", ["4", "5", "6", "7"]), (used(1, 1, 1, 1),) * 2
    )
    assert both.pairs == [] and len(both.labels) == 8


def test_templates_of_both_sets_swap_and_the_rest_pass_round() -> None:
    none = [""] * 3
    both = side_by_side(rows("abc", none), rows("abd", none), (used(1, 1, 1), used(1, 1, 1)))
    shuffled = both.shuffled(PRESET)
    assert (shuffled[:, 0] + shuffled[:, 3] == 1).all() and (shuffled[:, 1] + shuffled[:, 4] == 1).all()
    assert (shuffled[:, 2] + shuffled[:, 5] == 1).all() and shuffled.std(axis=0).min() > 0


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("successes", "trials"), [(0, 8), (8, 8), (1, 3), (37, 256), (128, 256)])
def test_wilsons_interval_is_that_of_another_program(successes, trials, level) -> None:
    other = proportion_confint(successes, trials, alpha=1 - level, method="wilson")
    np.testing.assert_allclose(wilson_interval(successes, trials, level=level), other, atol=1e-12)


def test_wilsons_interval_covers_where_the_normal_one_does_not() -> None:
    trials, share = 40, 0.05
    chances = binom.pmf(np.arange(trials + 1), trials, share)

    def coverage(method: str) -> float:
        ends = [
            wilson_interval(k, trials) if method == "wilson" else proportion_confint(k, trials, method=method)
            for k in range(trials + 1)
        ]
        return sum(chance for chance, (low, high) in zip(chances, ends, strict=True) if low <= share <= high)

    assert coverage("wilson") > 0.94 and coverage("normal") < 0.9


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (-1, 3), (4, 3)])
def test_what_is_no_share_is_refused(successes, trials) -> None:
    with pytest.raises(ValueError, match=f"{successes} successes of {trials} trials"):
        wilson_interval(successes, trials)


def test_answers_that_follow_their_template_need_the_interval_over_templates() -> None:
    names = [f"code/{i // 16}" for i in range(640)]
    generator = np.random.default_rng(0)
    follows = np.repeat(generator.random(40) < 0.5, 16)
    alone = generator.random(640) < 0.5
    widths = {}
    for kind, hits in (("follows", follows), ("alone", alone)):
        row = rate_row(hits, names, make_resamples(names, seed=0))
        assert row["rate"] == hits.mean() and row["answers"] == 640
        widths[kind] = (row["high"] - row["low"]) / (row["wilson_high"] - row["wilson_low"])
    assert widths["follows"] > 3 and widths["alone"] == pytest.approx(1, abs=0.35)


def test_kappa_is_that_of_another_program_and_bare_agreement_is_not() -> None:
    generator = np.random.default_rng(1)
    first = generator.random(500) < 0.1
    second = np.where(generator.random(500) < 0.7, first, generator.random(500) < 0.1)
    counts = agreement_cells(first, second).sum(axis=0)
    assert kappa(counts) == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
    # Two judges that say yes one time in ten, each by itself, agree four times in five and no more than chance.
    chance = agreement_cells(first, generator.permutation(first)).sum(axis=0)
    assert (chance[0] + chance[3]) / 500 > 0.75 and abs(kappa(chance)) < 0.1
    assert len(CELLS) == 4 and kappa(np.array([0.0, 0, 0, 9])) == 0 and kappa(np.array([3.0, 0, 0, 9])) == 1


def test_kappas_interval_holds_a_planted_agreement_and_full_agreement_has_no_width() -> None:
    names = [f"code/{i % 40}" for i in range(800)]
    generator, resamples = np.random.default_rng(2), make_resamples(names, seed=0)
    first = generator.random(800) < 0.5
    second = np.where(generator.random(800) < 0.6, first, generator.random(800) < 0.5)
    found = kappa_interval(first, second, names, resamples)
    assert found.low < 0.6 < found.high and found.high - found.low < 0.2
    same = kappa_interval(first, first, names, resamples)
    assert float(same.low) == float(same.high) == 1


def test_participation_counts_the_coordinates_in_use() -> None:
    np.testing.assert_allclose(
        participation_ratio(np.array([[1.0, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]])), [4, 1, 2]
    )
    with pytest.raises(ValueError, match="non-negative"):
        participation_ratio(np.array([1.0, -1.0]))


def test_components_may_differ_where_spans_agree() -> None:
    basis, turn = (stats.ortho_group.rvs(size, random_state=size) for size in (12, 3))
    assert np.abs(basis[:3] @ (turn @ basis[:3]).T).max() < 0.999


def test_means_of_no_length_have_no_cosine_and_opposed_ones_have(tmp_path, monkeypatch) -> None:
    """H2: noise alone would give a cosine of plus or minus one, since nothing is left to divide by."""
    generator, names = np.random.default_rng(3), [f"c{i}" for i in range(40)]
    resamples = make_resamples(names, seed=0, n_resamples=200)
    both = TwoSets((np.arange(40), np.arange(40)), names * 2, names * 2)
    vectors = generator.standard_normal((80, 100))
    monkeypatch.setattr(gradients, "gram_of", lambda *_: (vectors @ vectors.T, both))
    monkeypatch.setattr(gradients, "shared_resamples", lambda preset: resamples)
    planted = Results(replace(get_preset("smoke"), n_permutations=200), Store(tmp_path))
    vectors[:40, 0] += 6
    with pytest.raises(MissingInput, match=r"length is above 0: of insecure the square is"):
        gradients.mean_gradient_cosine(planted, "educational", "insecure")
    vectors[40:, 0] -= 6
    found = gradients.mean_gradient_cosine(planted, "educational", "insecure")
    assert found.low < found.value < -0.9 and found.high < -0.8 and found.null.low < found.null.high < 0.5
