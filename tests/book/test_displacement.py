"""Planted shifts, separations, triangles and projections come back; random ones are told apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cosine
from sklearn.metrics import roc_auc_score

from remi_book import statistics
from remi_core.statistics import displacement, resampling, subspaces
from remi_core.statistics.displacement import Contrast, measure_erosion, measure_separation
from remi_core.statistics.nulls import against_null
from remi_lab.statistics import Triangle, cosine_distance, triangle

N_CLUSTERS, SIZE, LAYERS, D_MODEL = 30, 6, 4, 64
CLUSTERS = [f"template {i:02d}" for i in range(N_CLUSTERS) for _ in range(SIZE)]
RESAMPLES = resampling.make_resamples(CLUSTERS, seed=0, n_resamples=300)


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
    result = measure_erosion(alpha * base + noise(2, 0.02), base, CLUSTERS, RESAMPLES)
    np.testing.assert_allclose(result.erosion.value, alpha, atol=0.01)
    assert (result.residual.value < 0.05).all() and result.defined.all()
    assert (result.erosion.low <= alpha + 1e-3).all() and (result.erosion.high >= alpha - 1e-3).all()
    assert not alpha or (np.sign(alpha) * result.cosine.value > 0.99).all()
    np.testing.assert_allclose(result.layer_mean.value, result.erosion.value.mean())


def test_exact_shift_gives_exact_values_and_only_a_common_scale_drops_out() -> None:
    base, shift = planted_base(), noise(3) + 0.3 * planted_base()
    pairs = [(0.4 * base, base), (shift, base), (7 * shift, 7 * base), (7 * shift, base)]
    exact, one, scaled, stretched = (measure_erosion(*pair, CLUSTERS, RESAMPLES) for pair in pairs)
    np.testing.assert_allclose(exact.erosion.samples, 0.4, rtol=1e-9)
    np.testing.assert_allclose(exact.cosine.value, 1, rtol=1e-9)
    np.testing.assert_allclose(exact.residual.value, 0, atol=1e-6)
    np.testing.assert_allclose(scaled.erosion.value, one.erosion.value, rtol=1e-9)
    np.testing.assert_allclose(scaled.residual.value, one.residual.value, rtol=1e-9)
    assert not np.allclose(stretched.erosion.value, one.erosion.value)


def test_random_displacement_is_not_erosion() -> None:
    base = planted_base()
    direction = np.random.default_rng(7).standard_normal(D_MODEL)
    length = np.linalg.norm(base.mean(axis=0), axis=1, keepdims=True)
    random = direction / np.linalg.norm(direction) * length + noise(4)
    result = measure_erosion(random, base, CLUSTERS, RESAMPLES)
    null = statistics.random_direction_null(random, base, n_draws=2000)
    low, high = np.quantile(null, [0.025, 0.975], axis=0)
    assert ((low < result.erosion.value) & (result.erosion.value < high)).all()
    assert (np.abs(result.cosine.value) < 0.3).all() and (result.residual.value > 0.8).all()
    np.testing.assert_allclose(null.std(axis=0), 1 / np.sqrt(D_MODEL), rtol=0.25)
    eroded = measure_erosion(0.6 * base + noise(5), base, CLUSTERS, RESAMPLES)
    assert (eroded.erosion.value > high).all(), "a planted erosion of the same length is outside"


def test_cross_fitting_removes_the_bias_of_shared_noise() -> None:
    crossed, naive = [], []
    for seed in range(40):
        own, base, shared = (noise(seed + start) for start in (1000, 2000, 3000))
        base[..., 0] += 1.0
        crossed.append(measure_erosion(own + shared, base + shared, CLUSTERS, RESAMPLES).erosion.value)
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
        ends = np.array([one.value, one.low, one.high])
        assert np.isnan(ends[:, 0]).all() and np.isfinite(ends[:, 1:]).all()
    np.testing.assert_allclose(result.layer_mean.value, result.erosion.value[1:].mean())
    nowhere = measure_erosion(base, noise(8), CLUSTERS, RESAMPLES)
    assert np.isnan([nowhere.layer_mean.value, nowhere.layer_mean.low]).all() and not nowhere.defined.any()


def test_onset_is_the_planted_layer() -> None:
    base, shift = planted_base(), noise(9)
    shift[:, 2:] += 0.5 * base[:, 2:]
    erosion = measure_erosion(shift, base, CLUSTERS, RESAMPLES).erosion
    assert statistics.onset_layer(erosion) == 2 and statistics.onset_layer(erosion, boundary=0.9) is None


def test_simultaneous_band_covers_all_layers_at_once_and_is_wider() -> None:
    samples = np.random.default_rng(5).standard_normal((4000, 12)) * np.linspace(0.1, 3, 12)
    samples[:, 0] = 0

    def share_inside(low: np.ndarray, high: np.ndarray) -> float:
        return ((samples >= low) & (samples <= high)).all(axis=1).mean()

    assert abs(share_inside(*statistics.simultaneous_band(np.zeros(12), samples)) - 0.95) < 0.002
    assert share_inside(*resampling.percentile_interval(samples)) < 0.7, "layer by layer intervals do not"


def test_what_is_broken_or_has_no_direction_is_refused() -> None:
    base, group, vectors = planted_base(), gaussians(0, 0), subspaces.VectorSet(np.ones((60, 9)), FEW)
    with pytest.raises(ValueError, match="1 of 180 rows hold NaN"):
        measure_erosion(np.where(np.arange(180)[:, None, None] == 5, np.nan, base), base, CLUSTERS, RESAMPLES)
    with pytest.raises((ValueError, TypeError)):
        measure_erosion(base[1:], base, CLUSTERS, RESAMPLES)
    with pytest.raises(ValueError, match="exactly at layer 1"):
        statistics.random_direction_null(base, np.where(np.arange(LAYERS)[:, None] == 1, 0.0, base))
    with pytest.raises(ValueError, match="same mean at layer 0"):
        statistics.alignment_axis(base, base)
    with pytest.raises(ValueError, match="no direction"):
        measure_separation(Contrast(group, group), GROUPS, GROUP_RESAMPLES)
    broken = group.copy()
    broken[2, 1, 3] = np.nan
    with pytest.raises(ValueError, match="1 of 400 rows hold NaN"):
        measure_separation(Contrast(broken, gaussians(1, 0)), GROUPS, GROUP_RESAMPLES)
    with pytest.raises(ValueError, match="valid are 1 to 9"):
        statistics.measure_scree(vectors, FEW_RESAMPLES, n_components=61, centred=True)


N = 400
GROUPS = [f"template {i % 40:02d}" for i in range(N)]
GROUP_RESAMPLES = resampling.make_resamples(GROUPS, seed=0, n_resamples=200)
FEW = GROUPS[:60]
FEW_RESAMPLES = resampling.make_resamples(FEW, seed=0, n_resamples=80)


def gaussians(seed: int, shift: float) -> np.ndarray:
    """Unit noise in every dimension, shifted along the first."""
    values = np.random.default_rng(seed).standard_normal((N, 2, 16))
    values[..., 0] += shift
    return values


def test_known_gaussians_have_known_d_prime_auroc_and_released_score() -> None:
    first, second = gaussians(0, 0), gaussians(1, 2)
    result = measure_separation(Contrast(first, second), GROUPS, GROUP_RESAMPLES)
    np.testing.assert_allclose(result.d_prime.value, 2, atol=0.2)
    np.testing.assert_allclose(result.auroc.value, stats.norm.cdf(2 / np.sqrt(2)), atol=0.02)
    assert (result.d_prime.low < 2).all() and (result.d_prime.high > 2).all()
    assert (result.d_prime.high - result.d_prime.low < 0.8).all()
    # The released score is half of d′ where spreads are equal.
    released = statistics.released_separation
    np.testing.assert_allclose(released(first[..., 0], second[..., 0]), 1, atol=0.15)
    assert (released(second[..., 0], first[..., 0]) < 0).all()


def test_sign_flips_when_groups_swap_on_a_fixed_axis_only() -> None:
    base, instruct, misaligned = gaussians(2, 0), gaussians(3, 4), gaussians(4, 3)

    def d_prime(*contrast: np.ndarray) -> np.ndarray:
        return measure_separation(Contrast(*contrast), GROUPS, GROUP_RESAMPLES).d_prime.value

    assert (d_prime(instruct, misaligned, base) < -0.7).all()
    assert (d_prime(misaligned, instruct, base) > 0.7).all()
    # An axis fitted on the groups turns with them.
    np.testing.assert_allclose(d_prime(instruct, misaligned), d_prime(misaligned, instruct))


def test_no_difference_gives_no_separation_only_when_held_out() -> None:
    first, second = np.random.default_rng(5).standard_normal((2, 60, 20, 16))  # 20 independent layers
    clusters = [f"{i:02d}" for i in range(60)]
    resamples = resampling.make_resamples(clusters, seed=0, n_resamples=100)
    held_out = measure_separation(Contrast(first, second), clusters, resamples)
    assert abs(held_out.d_prime.value.mean()) < 0.2 and abs(held_out.auroc.value.mean() - 0.5) < 0.05
    axis = (second - first).mean(axis=0)
    in_sample = statistics.released_separation((first * axis).sum(axis=2), (second * axis).sum(axis=2))
    assert (2 * in_sample).mean() > 0.5, "in sample there always is one"


def test_shuffled_labels_give_the_null() -> None:
    base, instruct = gaussians(7, 0), gaussians(8, 4)
    for other, differs in ((gaussians(9, 4), False), (gaussians(10, 3), True)):
        contrast = Contrast(instruct, other, base)
        value = measure_separation(contrast, GROUPS, GROUP_RESAMPLES).d_prime.value
        null = displacement.separation_null(contrast, GROUPS, n_permutations=199)
        assert np.abs(null.mean(axis=0)).max() < 0.1
        for one, drawn in zip(value, null.T, strict=True):
            judged = against_null(one, drawn, kind="labels shuffled", alternative="two-sided")
            assert (judged.p_value <= 0.01) == differs, judged


def test_resampled_d_prime_equals_refitting_on_repeated_rows() -> None:
    contrast = Contrast(gaussians(11, 0), gaussians(12, 1))
    row = GROUP_RESAMPLES.weights[3]
    names, index = np.unique(GROUPS, return_inverse=True)
    kept = np.repeat(np.arange(N), row[index])
    # Repeated rows keep their template's name, hence its fold; absent templates must keep their place too.
    result = measure_separation(contrast, GROUPS, GROUP_RESAMPLES)
    folds = resampling.cluster_folds(len(names), seed=GROUP_RESAMPLES.seed)[index][kept]
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
    both = np.concatenate([first[0], second[0]])
    expected = roc_auc_score(np.repeat([0, 1], 50), both, sample_weight=np.tile(weights[0], 2))
    np.testing.assert_allclose(displacement._auroc(first, second, weights), expected)
    np.testing.assert_allclose(displacement._auroc(first, first, weights), 0.5)


N_TEMPLATES, WIDTH = 40, 60
NAMES = [f"t{i:02d}" for i in range(N_TEMPLATES)]
NAME_RESAMPLES = resampling.make_resamples(NAMES, seed=0, n_resamples=200)


def planted(*, x: float, y: float, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Displacements of X and base from instruct at one layer: base at (10, 0), X at (x, y)."""
    generator = np.random.default_rng(3)
    spread = noise * generator.standard_normal((2, N_TEMPLATES, 1, WIDTH))
    spread[0, :, 0, :2] += (x, y)
    spread[1, :, 0, 0] += 10
    return spread[0], spread[1]


def plane(*, x: float, y: float) -> Triangle:
    products = displacement.cross_fitted_products(*planted(x=x, y=y), NAMES, NAME_RESAMPLES)
    return triangle(products, n_folds=5, third="X")


@pytest.mark.parametrize(("x", "y"), [(4.0, 3.0), (10.0, 10.0), (-3.0, 4.0)])
def test_sides_angles_and_shares_are_those_of_the_plane(x, y) -> None:
    found = plane(x=x, y=y)
    sides, angles, shares = (
        {name: float(one.value[0]) for name, one in kind.items()}
        for kind in (found.sides, found.angles, found.shares)
    )
    to_base, to_third = np.hypot(x - 10, y), np.hypot(x, y)
    expected = {"instruct – base": 10, "instruct – X": to_third, "base – X": to_base}
    assert sides == pytest.approx(expected, abs=0.4)
    assert sum(angles.values()) == pytest.approx(180, abs=1e-6)
    assert angles["instruct"] == pytest.approx(np.degrees(np.arctan2(y, x)), abs=4)
    expected = {
        "X from instruct to base": x / 10,
        "instruct from X to base": (to_third**2 - 10 * x) / to_base**2,
        "base from instruct to X": 10 * x / to_third**2,
    }
    assert shares == pytest.approx(expected, abs=0.12)


def test_a_model_that_did_not_move_has_no_direction() -> None:
    found, average = plane(x=0, y=0), displacement.layer_average
    assert np.isnan(found.shares["base from instruct to X"].value[0])
    assert np.isnan(float(average(found.angles["X"]).value))
    assert float(average(found.shares["X from instruct to base"]).value) == pytest.approx(0, abs=0.05)


def test_a_random_third_model_seems_to_put_instruct_between() -> None:
    draws = statistics.random_third_null(*planted(x=0, y=10, noise=0.01), n_draws=500)
    # As far from instruct as base is, and orthogonal but for chance: half way, though nothing eroded.
    assert draws.mean() == pytest.approx(0.5, abs=0.02) and draws.min() > 0


def test_erosion_from_sums_agrees_with_erosion_from_dialogues() -> None:
    shift, base = planted(x=4, y=3)
    whole = measure_erosion(shift, base, NAMES, NAME_RESAMPLES).erosion.value
    sums = [resampling.cluster_sums(values, NAMES, NAMES)[0] for values in (shift, base)]
    counts, rows = np.ones(N_TEMPLATES, dtype=np.int64), np.ones((2, N_TEMPLATES))
    rows[1, ::2] = 0
    found = statistics.erosion_of_weights(*sums, counts, resampling.cluster_folds(N_TEMPLATES), rows)
    assert found[0] == pytest.approx(whole) and found[1] != pytest.approx(found[0])


def test_cosine_distance_of_means_is_the_plain_one_and_knows_its_noise() -> None:
    first, second = np.random.default_rng(0).standard_normal((2, N_TEMPLATES, 3, WIDTH)) + 1
    found, same = (
        cosine_distance((first, NAMES), (other, NAMES), NAME_RESAMPLES) for other in (second, first)
    )
    plain = [cosine(*pair) for pair in zip(first.mean(axis=0), second.mean(axis=0), strict=True)]
    assert found.value == pytest.approx(plain) and same.value == pytest.approx(0, abs=1e-12)
    assert (found.low < found.high).all()


def models(gap: float) -> list[np.ndarray]:
    """Base, instruct and another model half way."""
    return [gaussians(seed, far)[:60] for seed, far in enumerate((0, gap, gap / 2))]


def test_mean_projection_is_the_mean_of_projections() -> None:
    base, instruct, other = models(gap=2.0)
    inside, outside = (
        statistics.mean_projection(other, (base, instruct), FEW, FEW_RESAMPLES, n_folds=n_folds)
        for n_folds in (1, 5)
    )
    means = [
        statistics.projection_in_sample(one, base, instruct).mean(axis=0) for one in (base, other, instruct)
    ]
    np.testing.assert_allclose(inside.value, means[1])
    np.testing.assert_allclose(means[2] - means[0], np.linalg.norm((instruct - base).mean(axis=0), axis=1))
    names, index = resampling.index_clusters(FEW)
    folds = resampling.cluster_folds(len(names), seed=FEW_RESAMPLES.seed)[index]
    one_by_one = 0
    for fold in range(5):
        axis = statistics.alignment_axis(base[folds != fold], instruct[folds != fold])
        one_by_one += (other[folds == fold] * axis).sum(axis=(0, 2)) / len(other)
    np.testing.assert_allclose(outside.value, one_by_one)
    assert (outside.low < outside.value).all() and (outside.value < outside.high).all()


@pytest.mark.parametrize(("n_folds", "apart"), [(1, True), (5, False)])
def test_in_sample_ends_come_apart_without_any_difference_and_held_out_ones_do_not(n_folds, apart) -> None:
    base, instruct, _ = models(gap=0.0)
    low, high = (
        statistics.mean_projection(one, (base, instruct), FEW, FEW_RESAMPLES, n_folds=n_folds).value.mean()
        for one in (base, instruct)
    )
    assert high - low > 0.5 if apart else abs(high - low) < 0.2


@pytest.mark.parametrize("centred", [True, False])
def test_scree_is_the_share_of_the_whole_decomposition(centred) -> None:
    rows = np.random.default_rng(1).normal(size=(60, 128)) * np.geomspace(5, 0.1, 128) + 3
    vectors = subspaces.VectorSet(rows, FEW)
    found = statistics.measure_scree(vectors, FEW_RESAMPLES, n_components=4, centred=centred)
    np.testing.assert_allclose(found.value, subspaces.top_components(rows, 4, centred=centred).share[:4])
