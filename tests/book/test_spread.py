"""How far classes lie apart in few components: chance is taken off exactly, and few examples say little."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from remi_book.quantities import above_chance, between_share, draw_rows, flipped_between, small_draws
from remi_core.statistics.groups import cosine_of_means, pair_means


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
    assert (found.mean() > 0.2) == apart
    assert found.std() > 0.02
    assert abs(null.mean()) < 0.03
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
