"""Gram matrices, losses and shares of two groups: identities, other programs, planted effects, exact chance."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy.stats import binom
from sklearn.decomposition import PCA
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.proportion import proportion_confint

from remi_book import quantities, statistics
from remi_book.chapters import gradients
from remi_book.chapters.controls import rate_row
from remi_core.errors import MissingInput
from remi_core.statistics import groups
from remi_core.statistics.groups import cosine_matrix, pair_means
from remi_core.statistics.nulls import permutation_p_value, permuted_labels
from remi_core.statistics.resampling import make_resamples
from remi_core.store import Store
from remi_lab.presets import get_preset
from remi_lab.results import Results
from remi_lab.statistics import FACTORS, centred_gram, cosine_of_means, cosine_of_rows, factor_shares


def two_groups(seed: int, distance: float, n: int = 40, d: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Vectors around a large common mean, the second group (60 %) shifted; and their labels."""
    vectors = 2 + np.random.default_rng(seed).standard_normal((n, d))
    labels = (np.arange(n) >= 0.4 * n).astype(np.int64)
    vectors[:, 0] += distance * labels
    return vectors, labels


def test_centred_gram_is_the_gram_of_centred_vectors() -> None:
    vectors, _ = two_groups(0, 1)
    centred, projector = vectors - vectors.mean(axis=0), np.eye(40) - 1 / 40
    gram = centred_gram(vectors @ vectors.T)
    np.testing.assert_allclose(gram, centred @ centred.T, atol=1e-10)
    np.testing.assert_allclose(gram, projector @ (vectors @ vectors.T) @ projector, atol=1e-10)
    assert abs(gram.sum()) < 1e-8
    assert abs(cosine_matrix(gram).sum()) > 0.1, "normalising after centring breaks the sum"
    np.testing.assert_allclose(cosine_matrix(3 * gram), cosine_matrix(gram))


@pytest.mark.parametrize("distance", [0.0, 0.5, 5.0])
def test_between_group_mean_after_centring_is_forced(distance) -> None:
    vectors, labels = two_groups(1, distance)
    gram, across = vectors @ vectors.T, np.ix_(labels == 0, labels == 1)
    between, forced = statistics.centring_identity(gram, labels)
    np.testing.assert_allclose(between, forced, rtol=1e-9)
    assert between < 0 < gram[across].mean(), "aligned vectors, negative all the same"
    d = vectors[labels == 1].mean(axis=0) - vectors[labels == 0].mean(axis=0)
    np.testing.assert_allclose(forced, -0.4 * 0.6 * (d @ d))
    _, cosine_forced = statistics.centring_identity(cosine_matrix(gram), labels)
    cosine_between = cosine_matrix(centred_gram(gram))[across].mean()
    assert not np.isclose(cosine_between, cosine_forced, rtol=1e-3), "no identity for cosines"


def test_distance_without_the_diagonal_is_unbiased_and_with_it_is_not() -> None:
    unbiased, naive = [], []
    for seed in range(300):
        vectors, labels = two_groups(seed, 1.0, n=20)
        unbiased.append(statistics.squared_distance(pair_means(vectors @ vectors.T, labels[None]))[0])
        d = vectors[labels == 1].mean(axis=0) - vectors[labels == 0].mean(axis=0)
        naive.append(d @ d)
    error = np.std(unbiased) / np.sqrt(300)
    assert abs(np.mean(unbiased) - 1) < 3 * error
    np.testing.assert_allclose(np.mean(naive) - 1, 30 * (1 / 8 + 1 / 12), atol=5 * error)


def test_distance_with_clusters_needs_pairs_from_different_clusters() -> None:
    generator, labels = np.random.default_rng(2), np.repeat([[0, 1]], 20, axis=1)
    clusters, distances = [f"{i // 4:02d}" for i in range(40)], []
    for _ in range(200):
        templates = np.repeat(generator.standard_normal((10, 20)), 4, axis=0)
        vectors = templates + generator.standard_normal((40, 20))
        means = [pair_means(vectors @ vectors.T, labels, names) for names in (clusters, None)]
        distances.append([statistics.squared_distance(one)[0] for one in means])
    apart, together = np.mean(distances, axis=0)
    assert abs(apart) < 3 * np.std(distances, axis=0)[0] / np.sqrt(200)
    assert together > 3, "only dropping the diagonal leaves the noise of templates in"


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


@pytest.mark.parametrize(("distance", "differs"), [(0.0, False), (4.0, True)])
def test_within_minus_between_against_shuffled_labels_and_by_interval(distance, differs) -> None:
    clusters, (vectors, labels) = [f"{i % 25:02d}" for i in range(50)], two_groups(5, distance, n=50)
    cosines = cosine_matrix(vectors @ vectors.T)
    observed, null = (
        groups.within_minus_between(pair_means(cosines, drawn))
        for drawn in (labels[None], permuted_labels(labels, n_permutations=199))
    )
    assert (permutation_p_value(observed[0], null) <= 0.05) == differs
    resamples = make_resamples(clusters, seed=0, n_resamples=200)
    assert (quantities.within_between_estimate(cosines, labels, clusters, resamples).low > 0) == differs


def test_pca_coordinates_equal_scikit_learn() -> None:
    vectors, labels = two_groups(6, 6)
    coordinates, share = statistics.pca_coordinates(vectors @ vectors.T, 3)
    reference = PCA(n_components=3).fit(vectors)
    np.testing.assert_allclose(np.abs(coordinates), np.abs(reference.transform(vectors)), atol=1e-8)
    np.testing.assert_allclose(share, reference.explained_variance_ratio_)
    assert abs(np.corrcoef(coordinates[:, 0], labels)[0, 1]) > 0.9


def test_losses_are_never_opposed_and_pairing_matters() -> None:
    draw = np.random.default_rng(7).exponential
    completion = draw(size=(30, 16))
    first, second = (completion + 0.3 * draw(size=(30, 16)) for _ in range(2))
    assert (cosine_of_rows(first, second) >= 0).all()
    assert permutation_p_value(*statistics.paired_cosine(first, second, n_permutations=199)) == 1 / 200
    strangers = [statistics.paired_cosine(first, draw(size=(30, 16)), n_permutations=99) for _ in range(20)]
    assert sum(permutation_p_value(*stranger) <= 0.05 for stranger in strangers) <= 4


@pytest.mark.parametrize("factor", ["model", "data", "interaction"])
def test_two_by_two_shares_find_the_planted_factor(factor) -> None:
    generator, labels = np.random.default_rng(8), (np.arange(60) >= 25).astype(np.int64)
    sign, data = np.repeat([[0.0], [1.0]], 60, axis=1), np.stack([labels, labels])
    effect = {"model": sign, "data": data, "interaction": (sign - 0.5) * (data - 0.5) * 4}
    losses = generator.standard_normal((2, 60, 8)) + 3.0 * effect[factor][..., None]
    shares, place = factor_shares(losses, labels[None])[0], FACTORS.index(factor)
    np.testing.assert_allclose(shares.sum(), 1)
    assert (shares > -1e-12).all() and np.argmax(shares[:3]) == place
    assert shares[place] > 0.4 and np.sort(shares[:3])[1] < 0.06
    coins = np.random.default_rng(9).integers(0, 2, (199, 60))
    swapped, unswapped = (
        statistics.model_swap_shares(losses, labels, one) for one in (coins, np.zeros_like(coins[:1]))
    )
    shuffled = factor_shares(losses, permuted_labels(labels, n_permutations=199))
    null = (swapped if factor == "model" else shuffled)[:, place]
    assert permutation_p_value(shares[place], null) == 1 / 200
    np.testing.assert_allclose(unswapped[0], shares)


def test_shares_agree_with_statsmodels_on_the_first_component_and_weights_are_repeated_rows() -> None:
    generator, labels = np.random.default_rng(10), (np.arange(30) >= 12).astype(np.int64)
    losses = generator.standard_normal((2, 30, 5))
    losses[1] += 1.0
    scores = PCA(1).fit_transform(losses.reshape(-1, 5)).reshape(2, 30, 1)
    frame = pd.DataFrame({"y": scores.ravel(), "m": np.repeat([0, 1], 30), "d": np.tile(labels, 2)})
    squares = anova_lm(smf.ols("y ~ C(m) * C(d)", frame).fit())["sum_sq"].to_numpy()
    np.testing.assert_allclose(factor_shares(scores, labels[None])[0], squares / squares.sum())
    repeated = generator.integers(1, 4, 30)
    weighted = factor_shares(losses, labels[None], weights=repeated[None].astype(float))
    twice = np.repeat(losses, repeated, axis=1), np.repeat(labels, repeated)[None]
    np.testing.assert_allclose(weighted, factor_shares(*twice))


def test_what_is_no_pair_of_groups_and_no_share_is_refused() -> None:
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
    with pytest.raises(ValueError, match="non-negative"):
        statistics.participation_ratio(np.array([1.0, -1.0]))
    for successes, trials in ((1, 0), (-1, 3), (4, 3)):
        with pytest.raises(ValueError, match=f"{successes} successes of {trials} trials"):
            quantities.wilson_interval(successes, trials)


def test_the_share_is_that_of_an_analysis_of_variance_and_chance_is_exact() -> None:
    points = np.random.default_rng(0).standard_normal((6, 3))
    splits = np.array([row for row in itertools.product((0, 1), repeat=6) if sum(row) == 3])
    shares = quantities.between_share(points, splits)
    middle = points - points.mean(axis=0)
    means = np.stack([middle[splits[0] == label].mean(axis=0) for label in (0, 1)])
    assert shares[0] == pytest.approx(3 * np.square(means).sum() / np.square(middle).sum())
    assert shares.mean() == pytest.approx(1 / 5)  # over all splits, not about


@pytest.mark.parametrize(("gap", "apart"), [(0.0, False), (6.0, True)])
def test_pictures_of_few_vary_and_only_real_classes_stay_above_chance(gap, apart) -> None:
    vectors, labels = np.random.default_rng(1).standard_normal((40, 30)), np.repeat([0, 1], 20)
    vectors[20:, 0] += gap
    gram = vectors @ vectors.T
    found, null = quantities.small_draws(gram, labels, np.arange(40), count=5, n_draws=200)
    assert (found.mean() > 0.2) == apart and found.std() > 0.02 and abs(null.mean()) < 0.03
    assert (quantities.above_chance(gram, labels[None], n_components=3)[0] > 0.2) == apart


def test_a_draw_takes_no_template_twice_and_refuses_too_few() -> None:
    labels, clusters, generator = np.repeat([0, 1], 6), np.tile(np.arange(6), 2), np.random.default_rng(0)
    rows = quantities.draw_rows(labels, clusters, count=3, generator=generator)
    assert labels[rows].tolist() == [0, 0, 0, 1, 1, 1] and len(set(clusters[rows])) == 6
    with pytest.raises(ValueError, match="class 1 has fewer than 4 templates"):
        quantities.draw_rows(labels, clusters, count=4, generator=generator)


@pytest.mark.parametrize("sign", [1, -1])
def test_cosine_of_mean_gradients_recovers_its_sign_through_noise(sign) -> None:
    labels, clusters = np.repeat([0, 1], 60), [f"c{i}" for i in range(60)] * 2
    vectors = np.random.default_rng(2).standard_normal((120, 200))
    vectors[:, 0] += np.where(labels, sign * 6, 6)
    gram = vectors @ vectors.T
    means, flips = pair_means(gram, labels[None], clusters), np.repeat([[1], [-1]], 120, axis=1)
    # The noise alone would pull the plain cosine of means towards 0.
    assert cosine_of_means(means)[0] == pytest.approx(sign, abs=0.1)
    flipped = quantities.flipped_between(gram, labels, clusters, flips)
    assert flipped == pytest.approx([means[0, 2], -means[0, 2]])


def rows(clusters: str, pairs: str, flags: str = "") -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A set, a template a letter and a pair between commas, and which of its rows are used: all, or those flagged 1."""
    used = np.array([flag == "1" for flag in flags or "1" * len(clusters)])
    return {"cluster": np.array(list(clusters)), "pair": np.array(pairs.split(","))}, used


def beside(one: tuple, other: tuple) -> tuple[quantities.TwoSets, np.ndarray]:
    """Two sets side by side, and their shuffled labels."""
    both = quantities.side_by_side(one[0], other[0], (one[1], other[1]))
    return both, both.shuffled(get_preset("smoke"))


def test_pairs_are_matched_by_label_and_kept_whole() -> None:
    both, shuffled = beside(rows("abc", "1,2,3", "110"), rows("xyz", "3,1,2"))
    assert [each.tolist() for each in both.rows] == [[0, 1], [1, 2]]  # pair 3 lost its first half
    assert both.clusters == ["y", "z"] * 2 and both.null_kind == quantities.WITHIN
    assert (shuffled[:, :2] + shuffled[:, 2:] == 1).all() and shuffled.std(axis=0).min() > 0


@pytest.mark.parametrize("pairs", [",,", "7,8,9"])
def test_sets_without_partners_keep_their_rows_whatever_their_length(pairs) -> None:
    both, shuffled = beside(rows("aab", pairs), rows("xyzzw", "0,1,2,3,4", "11110"))
    assert [len(each) for each in both.rows] == [3, 4]
    assert both.pairs == [] and both.clusters == list("aabxyzz") and both.null_kind == quantities.BY_TEMPLATE
    # Templates move whole, and their labels are only passed round: two of one, three of the other.
    assert (shuffled[:, 0] == shuffled[:, 1]).all() and (shuffled[:, 5] == shuffled[:, 6]).all()
    assert (shuffled[:, [0, 2, 3, 4, 5]].sum(axis=1) == 3).all()
    assert (shuffled != both.labels).any()


def test_a_few_equal_answers_make_no_pairs_and_only_templates_of_both_sets_swap() -> None:
    few, _ = beside(rows("abcd", "1,2,3,4"), rows("wxyz", "4,5,6,7"))
    assert few.pairs == [] and len(few.labels) == 8
    _, shuffled = beside(rows("abc", ",,"), rows("abd", ",,"))
    assert (shuffled[:, :3] + shuffled[:, 3:] == 1).all() and shuffled.std(axis=0).min() > 0


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("successes", "trials"), [(0, 8), (8, 8), (1, 3), (37, 256), (128, 256)])
def test_wilsons_interval_is_that_of_another_program(successes, trials, level) -> None:
    other = proportion_confint(successes, trials, alpha=1 - level, method="wilson")
    np.testing.assert_allclose(quantities.wilson_interval(successes, trials, level=level), other, atol=1e-12)


def test_wilsons_interval_covers_where_the_normal_one_does_not() -> None:
    counts, share = np.arange(41), 0.05
    wilson = np.transpose([quantities.wilson_interval(count, 40) for count in counts.tolist()])
    covered = [
        binom.pmf(counts[(low <= share) & (share <= high)], 40, share).sum()
        for low, high in (wilson, proportion_confint(counts, 40, method="normal"))
    ]
    assert covered[0] > 0.94 and covered[1] < 0.9


def test_answers_that_follow_their_template_need_the_interval_over_templates() -> None:
    generator, names = np.random.default_rng(0), [f"code/{i // 16}" for i in range(640)]
    widths = []
    for chances in (np.repeat(generator.random(40), 16), generator.random(640)):
        row = rate_row(chances < 0.5, names, make_resamples(names, seed=0))
        assert row["rate"] == (chances < 0.5).mean() and row["answers"] == 640
        widths.append((row["high"] - row["low"]) / (row["wilson_high"] - row["wilson_low"]))
    assert widths[0] > 3 and widths[1] == pytest.approx(1, abs=0.35)


def test_kappa_is_that_of_another_program_and_bare_agreement_is_not() -> None:
    generator, kappa = np.random.default_rng(1), quantities.kappa
    first = generator.random(500) < 0.1
    second = np.where(generator.random(500) < 0.7, first, generator.random(500) < 0.1)
    counts, chance = (
        quantities.agreement_cells(first, other).sum(axis=0)
        for other in (second, generator.permutation(first))
    )
    assert kappa(counts) == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
    # Two judges that say yes one time in ten, each by itself, agree four times in five and no more than chance.
    assert (chance[0] + chance[3]) / 500 > 0.75 and abs(kappa(chance)) < 0.1
    assert kappa(np.array([0.0, 0, 0, 9])) == 0 and kappa(np.array([3.0, 0, 0, 9])) == 1


def test_kappas_interval_holds_a_planted_agreement_and_full_agreement_has_no_width() -> None:
    names, generator = [f"code/{i % 40}" for i in range(800)], np.random.default_rng(2)
    first = generator.random(800) < 0.5
    second = np.where(generator.random(800) < 0.6, first, generator.random(800) < 0.5)
    resamples = make_resamples(names, seed=0)
    found, same = (quantities.kappa_interval(first, one, names, resamples) for one in (second, first))
    assert found.low < 0.6 < found.high and found.high - found.low < 0.2
    assert float(same.low) == float(same.high) == 1


def test_participation_counts_the_coordinates_in_use() -> None:
    points = np.array([[1.0, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]])
    np.testing.assert_allclose(statistics.participation_ratio(points), [4, 1, 2])


def test_means_of_no_length_have_no_cosine_and_opposed_ones_have(tmp_path, monkeypatch) -> None:
    """H2: noise alone would give a cosine of plus or minus one, since nothing is left to divide by."""
    names = [f"c{i}" for i in range(40)]
    resamples = make_resamples(names, seed=0, n_resamples=200)
    both = quantities.TwoSets((np.arange(40), np.arange(40)), names * 2, names * 2)
    vectors = np.random.default_rng(3).standard_normal((80, 100))
    monkeypatch.setattr(gradients, "gram_of", lambda *_: (vectors @ vectors.T, both))
    monkeypatch.setattr(gradients, "shared_resamples", lambda preset: resamples)
    planted = Results(replace(get_preset("smoke"), n_permutations=200), Store(tmp_path))
    vectors[:40, 0] += 6
    with pytest.raises(MissingInput, match=r"length is above 0: of insecure the square is"):
        gradients.mean_gradient_cosine(planted, "educational", "insecure")
    vectors[40:, 0] -= 6
    found = gradients.mean_gradient_cosine(planted, "educational", "insecure")
    assert found.low < found.value < -0.9 and found.high < -0.8 and found.null.low < found.null.high < 0.5
