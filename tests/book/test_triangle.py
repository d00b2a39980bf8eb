"""The triangle of three models against plane geometry, distances of data, and erosion from sums over atoms."""

from __future__ import annotations

import numpy as np
import pytest

from remi_book.statistics import random_third_null
from remi_core.statistics.displacement import (
    cosine_distance,
    cross_fitted_products,
    erosion_of_weights,
    layer_average,
    measure_erosion,
    triangle,
)
from remi_core.statistics.resampling import cluster_folds, cluster_sums, make_resamples

N_TEMPLATES, WIDTH = 40, 60
NAMES = [f"t{i:02d}" for i in range(N_TEMPLATES)]
RESAMPLES = make_resamples(NAMES, seed=0, n_resamples=200)


def planted(*, x: float, y: float, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Displacements of X and base from instruct at one layer: base at (10, 0), X at (x, y)."""
    generator = np.random.default_rng(3)
    spread = noise * generator.standard_normal((2, N_TEMPLATES, 1, WIDTH))
    spread[0, :, 0, :2] += (x, y)
    spread[1, :, 0, 0] += 10
    return spread[0], spread[1]


@pytest.mark.parametrize(("x", "y"), [(4.0, 3.0), (10.0, 10.0), (-3.0, 4.0)])
def test_sides_angles_and_shares_are_those_of_the_plane(x, y) -> None:
    found = triangle(cross_fitted_products(*planted(x=x, y=y), NAMES, RESAMPLES), n_folds=5, third="X")
    to_base, to_third = np.hypot(x - 10, y), np.hypot(x, y)
    sides = {name: float(one.value[0]) for name, one in found.sides.items()}
    assert sides == pytest.approx(
        {"instruct – base": 10, "instruct – X": to_third, "base – X": to_base}, abs=0.4
    )
    angles = {name: float(one.value[0]) for name, one in found.angles.items()}
    assert sum(angles.values()) == pytest.approx(180, abs=1e-6)
    assert angles["instruct"] == pytest.approx(np.degrees(np.arctan2(y, x)), abs=4)
    shares = {name: float(one.value[0]) for name, one in found.shares.items()}
    expected = {
        "X from instruct to base": x / 10,
        "instruct from X to base": (to_third**2 - 10 * x) / to_base**2,
        "base from instruct to X": 10 * x / to_third**2,
    }
    assert shares == pytest.approx(expected, abs=0.12)


def test_a_model_that_did_not_move_has_no_direction() -> None:
    shift, base = planted(x=0, y=0)
    found = triangle(cross_fitted_products(shift, base, NAMES, RESAMPLES), n_folds=5)
    assert np.isnan(found.shares["base from instruct to misaligned"].value[0])
    assert np.isnan(float(layer_average(found.angles["misaligned"]).value))
    assert float(layer_average(found.shares["misaligned from instruct to base"]).value) == pytest.approx(
        0, abs=0.05
    )


def test_a_random_third_model_seems_to_put_instruct_between() -> None:
    shift, base = planted(x=0, y=10, noise=0.01)
    draws = random_third_null(shift, base, n_draws=500)
    # As far from instruct as base is, and orthogonal but for chance: half way, though nothing eroded.
    assert draws.mean() == pytest.approx(0.5, abs=0.02) and draws.min() > 0


def test_erosion_from_sums_agrees_with_erosion_from_dialogues() -> None:
    shift, base = planted(x=4, y=3)
    whole = measure_erosion(shift, base, NAMES, RESAMPLES)
    sums = [cluster_sums(values, NAMES, NAMES)[0] for values in (shift, base)]
    counts, folds = np.ones(N_TEMPLATES, dtype=np.int64), cluster_folds(N_TEMPLATES)
    rows = np.stack([np.ones(N_TEMPLATES), np.arange(N_TEMPLATES) % 2.0])
    found = erosion_of_weights(*sums, counts, folds, rows)
    assert found[0] == pytest.approx(whole.erosion.value) and found[1] != pytest.approx(found[0])


def test_cosine_distance_of_means_is_the_plain_one_and_knows_its_noise() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.standard_normal((2, N_TEMPLATES, 3, WIDTH)) + 1
    found = cosine_distance((first, NAMES), (second, NAMES), RESAMPLES)
    one, two = first.mean(axis=0), second.mean(axis=0)
    plain = 1 - (one * two).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    assert found.value == pytest.approx(plain)
    assert (found.low < found.high).all()
    assert cosine_distance((first, NAMES), (first, NAMES), RESAMPLES).value == pytest.approx(0, abs=1e-12)
