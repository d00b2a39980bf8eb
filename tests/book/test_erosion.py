"""A planted shift is recovered, a random one is not erosion, and both hold per layer with intervals."""

from __future__ import annotations

import numpy as np
import pytest

from remi_book.statistics import alignment_axis, onset_layer, projection_in_sample, random_direction_null
from remi_core.statistics.displacement import Erosion, measure_erosion
from remi_core.statistics.resampling import ClusterResamples, make_resamples

N_CLUSTERS, SIZE, LAYERS, D_MODEL = 30, 6, 4, 64
CLUSTERS = [f"template {i:02d}" for i in range(N_CLUSTERS) for _ in range(SIZE)]
RESAMPLES: ClusterResamples = make_resamples(CLUSTERS, seed=0, n_resamples=300)


def noise(seed: int, scale: float = 0.3) -> np.ndarray:
    """Per-dialogue noise that dialogues of a template share in half."""
    generator = np.random.default_rng(seed)
    shape = (N_CLUSTERS, SIZE, LAYERS, D_MODEL)
    mixed = generator.standard_normal(shape) + generator.standard_normal((N_CLUSTERS, 1, LAYERS, D_MODEL))
    return scale * mixed.reshape(-1, LAYERS, D_MODEL)


def planted_base() -> np.ndarray:
    """Base − instruct with a mean that grows with depth."""
    direction = np.random.default_rng(99).standard_normal((LAYERS, D_MODEL))
    return direction * np.arange(1, LAYERS + 1)[:, None] / 2 + noise(1)


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.4, 1.0, 1.7])
def test_planted_shift_is_its_erosion(alpha) -> None:
    base = planted_base()
    result: Erosion = measure_erosion(alpha * base + noise(2, 0.02), base, CLUSTERS, RESAMPLES)
    np.testing.assert_allclose(result.erosion.value, alpha, atol=0.01)
    assert (result.residual.value < 0.05).all() and result.defined.all()
    assert (result.erosion.low <= alpha + 1e-3).all() and (result.erosion.high >= alpha - 1e-3).all()
    if alpha:
        assert (np.sign(alpha) * result.cosine.value > 0.99).all()
    np.testing.assert_allclose(result.layer_mean.value, result.erosion.value.mean())


def test_exact_shift_gives_exact_values_and_scale_changes_nothing() -> None:
    base, shift = planted_base(), noise(3) + 0.3 * planted_base()
    exact = measure_erosion(0.4 * base, base, CLUSTERS, RESAMPLES)
    np.testing.assert_allclose(exact.erosion.samples, 0.4, rtol=1e-9)
    np.testing.assert_allclose(exact.cosine.value, 1, rtol=1e-9)
    np.testing.assert_allclose(exact.residual.value, 0, atol=1e-6)
    one = measure_erosion(shift, base, CLUSTERS, RESAMPLES)
    scaled = measure_erosion(7 * shift, 7 * base, CLUSTERS, RESAMPLES)
    np.testing.assert_allclose(scaled.erosion.value, one.erosion.value, rtol=1e-9)
    np.testing.assert_allclose(scaled.residual.value, one.residual.value, rtol=1e-9)
    stretched = measure_erosion(7 * shift, base, CLUSTERS, RESAMPLES)
    assert not np.allclose(stretched.erosion.value, one.erosion.value), "only a common scale drops out"


def test_random_displacement_is_not_erosion() -> None:
    base = planted_base()
    length = np.linalg.norm(base.mean(axis=0), axis=1)
    direction = np.random.default_rng(7).standard_normal(D_MODEL)
    random = direction / np.linalg.norm(direction) * length[:, None]
    result = measure_erosion(random + noise(4), base, CLUSTERS, RESAMPLES)
    null = random_direction_null(random + noise(4), base, n_draws=2000)
    low, high = np.quantile(null, [0.025, 0.975], axis=0)
    assert ((low < result.erosion.value) & (result.erosion.value < high)).all()
    assert (np.abs(result.cosine.value) < 0.3).all() and (result.residual.value > 0.8).all()
    np.testing.assert_allclose(null.std(axis=0), 1 / np.sqrt(D_MODEL), rtol=0.25)
    eroded = measure_erosion(0.6 * base + noise(5), base, CLUSTERS, RESAMPLES)
    assert (eroded.erosion.value > high).all(), "a planted erosion of the same length is outside"


def test_cross_fitting_removes_the_bias_of_shared_noise() -> None:
    crossed, naive = [], []
    for seed in range(40):
        own, base = noise(1000 + seed), noise(2000 + seed)
        base[..., 0] += 1.0
        shared = noise(3000 + seed)
        result = measure_erosion(own + shared, base + shared, CLUSTERS, RESAMPLES)
        crossed.append(result.erosion.value)
        first, second = (own + shared).mean(axis=0), (base + shared).mean(axis=0)
        naive.append((first * second).sum(axis=1) / np.square(second).sum(axis=1))
    assert abs(np.mean(crossed)) < 0.03
    assert np.mean(naive) > 0.1, "in sample, the noise of instruct alone looks like erosion"


def test_undefined_where_base_is_instruct() -> None:
    base = planted_base()
    base[:, 0] = noise(6)[:, 0]
    result = measure_erosion(0.5 * planted_base(), base, CLUSTERS, RESAMPLES)
    assert result.defined.tolist() == [False, True, True, True]
    for one in (result.erosion, result.cosine, result.residual):
        assert np.isnan([one.value[0], one.low[0], one.high[0]]).all()
        assert np.isfinite([one.value[1:], one.low[1:], one.high[1:]]).all()
    np.testing.assert_allclose(result.layer_mean.value, result.erosion.value[1:].mean())
    nowhere = measure_erosion(base, noise(8), CLUSTERS, RESAMPLES)
    assert np.isnan([nowhere.layer_mean.value, nowhere.layer_mean.low]).all() and not nowhere.defined.any()


def test_onset_is_the_planted_layer() -> None:
    base = planted_base()
    shift = noise(9)
    shift[:, 2:] += 0.5 * base[:, 2:]
    result = measure_erosion(shift, base, CLUSTERS, RESAMPLES)
    assert onset_layer(result.erosion) == 2
    assert onset_layer(result.erosion, boundary=0.9) is None


def test_refusals() -> None:
    base = planted_base()
    broken = base.copy()
    broken[5] = np.nan
    with pytest.raises(ValueError, match="1 of 180 rows hold NaN"):
        measure_erosion(broken, base, CLUSTERS, RESAMPLES)
    with pytest.raises((ValueError, TypeError)):
        measure_erosion(base[1:], base, CLUSTERS, RESAMPLES)
    with pytest.raises(ValueError, match="exactly at layer 1"):
        random_direction_null(base, np.where(np.arange(LAYERS)[:, None] == 1, 0.0, base))
    with pytest.raises(ValueError, match="same mean at layer 0"):
        alignment_axis(base, base)


def test_projections_place_base_and_instruct() -> None:
    instruct = noise(10) + 5
    base = instruct + planted_base()
    axis = alignment_axis(base, instruct)
    np.testing.assert_allclose(np.linalg.norm(axis, axis=1), 1)
    gap = projection_in_sample(instruct, base, instruct) - projection_in_sample(base, base, instruct)
    np.testing.assert_allclose(gap.mean(axis=0), np.linalg.norm((instruct - base).mean(axis=0), axis=1))
