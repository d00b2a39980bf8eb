"""Planted shifts, separations, triangles and projections come back; random ones are told apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from remi_book.statistics import (
    alignment_axis,
    mean_projection,
    onset_layer,
    projection_in_sample,
    random_direction_null,
    random_third_null,
    released_separation,
)
from remi_core.statistics.displacement import (
    Contrast,
    Erosion,
    _auroc,
    cosine_distance,
    cross_fitted_products,
    erosion_of_weights,
    layer_average,
    measure_erosion,
    measure_separation,
    separation_null,
    triangle,
)
from remi_core.statistics.nulls import against_null
from remi_core.statistics.resampling import (
    ClusterResamples,
    cluster_folds,
    cluster_sums,
    index_clusters,
    make_resamples,
)
from remi_core.statistics.subspaces import VectorSet, measure_scree, top_components

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


N = 400
GROUPS = [f"template {i % 40:02d}" for i in range(N)]
GROUP_RESAMPLES = make_resamples(GROUPS, seed=0, n_resamples=200)


def gaussians(seed: int, shift: float) -> np.ndarray:
    """Unit noise in every dimension, shifted along the first."""
    values = np.random.default_rng(seed).standard_normal((N, 2, 16))
    values[..., 0] += shift
    return values


def test_known_gaussians_have_known_d_prime_and_auroc() -> None:
    result = measure_separation(Contrast(gaussians(0, 0), gaussians(1, 2)), GROUPS, GROUP_RESAMPLES)
    np.testing.assert_allclose(result.d_prime.value, 2, atol=0.2)
    np.testing.assert_allclose(result.auroc.value, stats.norm.cdf(2 / np.sqrt(2)), atol=0.02)
    assert (result.d_prime.low < 2).all() and (result.d_prime.high > 2).all()
    assert (result.d_prime.high - result.d_prime.low < 0.8).all()


def test_sign_flips_when_groups_swap_on_a_fixed_axis_only() -> None:
    base, instruct, misaligned = gaussians(2, 0), gaussians(3, 4), gaussians(4, 3)

    def d_prime(first: np.ndarray, second: np.ndarray, reference: np.ndarray | None) -> np.ndarray:
        return measure_separation(Contrast(first, second, reference), GROUPS, GROUP_RESAMPLES).d_prime.value

    assert (d_prime(instruct, misaligned, base) < -0.7).all()
    assert (d_prime(misaligned, instruct, base) > 0.7).all()
    forward, backward = d_prime(instruct, misaligned, None), d_prime(misaligned, instruct, None)
    np.testing.assert_allclose(forward, backward, err_msg="an axis fitted on the groups turns with them")


def test_no_difference_gives_no_separation_only_when_held_out() -> None:
    first, second = np.random.default_rng(5).standard_normal((2, 60, 20, 16))  # 20 independent layers
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
        value = measure_separation(contrast, GROUPS, GROUP_RESAMPLES).d_prime.value
        null = separation_null(contrast, GROUPS, n_permutations=199)
        p_values = [
            against_null(v, null[:, i], kind="labels shuffled", alternative="two-sided").p_value
            for i, v in enumerate(value)
        ]
        assert np.abs(null.mean(axis=0)).max() < 0.1
        assert all((p <= 0.01) == differs for p in p_values), p_values


def test_resampled_d_prime_equals_refitting_on_repeated_rows() -> None:
    contrast = Contrast(gaussians(11, 0), gaussians(12, 1))
    row = GROUP_RESAMPLES.weights[3]
    names, index = np.unique(GROUPS, return_inverse=True)
    kept = np.repeat(np.arange(N), row[index])
    # Repeated rows keep their template's name, hence its fold; absent templates must keep their place too.
    result = measure_separation(contrast, GROUPS, GROUP_RESAMPLES)
    folds = cluster_folds(len(names), seed=GROUP_RESAMPLES.seed)[index][kept]
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
    both, twice = np.concatenate([first[0], second[0]]), np.tile(weights[0], 2)
    expected = roc_auc_score(np.repeat([0, 1], 50), both, sample_weight=twice)
    np.testing.assert_allclose(_auroc(first, second, weights), expected)
    np.testing.assert_allclose(_auroc(first, first, weights), 0.5)


def test_released_score_is_half_of_d_prime_for_equal_spreads() -> None:
    first, second = gaussians(14, 0)[..., 0], gaussians(15, 3)[..., 0]
    np.testing.assert_allclose(released_separation(first, second), 1.5, atol=0.15)
    assert (released_separation(second, first) < 0).all()


def test_separation_of_what_is_equal_or_broken_is_refused() -> None:
    broken = gaussians(0, 0)
    broken[2, 1, 3] = np.nan
    with pytest.raises(ValueError, match="1 of 400 rows hold NaN"):
        measure_separation(Contrast(broken, gaussians(1, 0)), GROUPS, GROUP_RESAMPLES)
    with pytest.raises(ValueError, match="no direction"):
        measure_separation(Contrast(gaussians(0, 0), gaussians(0, 0)), GROUPS, GROUP_RESAMPLES)


N_TEMPLATES, WIDTH = 40, 60
NAMES = [f"t{i:02d}" for i in range(N_TEMPLATES)]
NAME_RESAMPLES = make_resamples(NAMES, seed=0, n_resamples=200)


def planted(*, x: float, y: float, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Displacements of X and base from instruct at one layer: base at (10, 0), X at (x, y)."""
    generator = np.random.default_rng(3)
    spread = noise * generator.standard_normal((2, N_TEMPLATES, 1, WIDTH))
    spread[0, :, 0, :2] += (x, y)
    spread[1, :, 0, 0] += 10
    return spread[0], spread[1]


@pytest.mark.parametrize(("x", "y"), [(4.0, 3.0), (10.0, 10.0), (-3.0, 4.0)])
def test_sides_angles_and_shares_are_those_of_the_plane(x, y) -> None:
    found = triangle(cross_fitted_products(*planted(x=x, y=y), NAMES, NAME_RESAMPLES), n_folds=5, third="X")
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
    found = triangle(cross_fitted_products(shift, base, NAMES, NAME_RESAMPLES), n_folds=5)
    assert np.isnan(found.shares["base from instruct to misaligned"].value[0])
    assert np.isnan(float(layer_average(found.angles["misaligned"]).value))
    share = layer_average(found.shares["misaligned from instruct to base"])
    assert float(share.value) == pytest.approx(0, abs=0.05)


def test_a_random_third_model_seems_to_put_instruct_between() -> None:
    shift, base = planted(x=0, y=10, noise=0.01)
    draws = random_third_null(shift, base, n_draws=500)
    # As far from instruct as base is, and orthogonal but for chance: half way, though nothing eroded.
    assert draws.mean() == pytest.approx(0.5, abs=0.02) and draws.min() > 0


def test_erosion_from_sums_agrees_with_erosion_from_dialogues() -> None:
    shift, base = planted(x=4, y=3)
    whole = measure_erosion(shift, base, NAMES, NAME_RESAMPLES)
    sums = [cluster_sums(values, NAMES, NAMES)[0] for values in (shift, base)]
    counts, folds = np.ones(N_TEMPLATES, dtype=np.int64), cluster_folds(N_TEMPLATES)
    rows = np.stack([np.ones(N_TEMPLATES), np.arange(N_TEMPLATES) % 2.0])
    found = erosion_of_weights(*sums, counts, folds, rows)
    assert found[0] == pytest.approx(whole.erosion.value) and found[1] != pytest.approx(found[0])


def test_cosine_distance_of_means_is_the_plain_one_and_knows_its_noise() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.standard_normal((2, N_TEMPLATES, 3, WIDTH)) + 1
    found = cosine_distance((first, NAMES), (second, NAMES), NAME_RESAMPLES)
    one, two = first.mean(axis=0), second.mean(axis=0)
    plain = 1 - (one * two).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    assert found.value == pytest.approx(plain)
    assert (found.low < found.high).all()
    assert cosine_distance((first, NAMES), (first, NAMES), NAME_RESAMPLES).value == pytest.approx(
        0, abs=1e-12
    )


FEW = [f"template {i % 25:02d}" for i in range(60)]
FEW_RESAMPLES = make_resamples(FEW, seed=0, n_resamples=80)


def models(gap: float) -> list[np.ndarray]:
    """Base, instruct and another model half way: (dialogue, layer, d_model) each."""
    generator = np.random.default_rng(0)
    noise = [generator.normal(size=(60, 3, 16)) for _ in range(3)]
    return [noise[0], noise[1] + gap, noise[2] + gap / 2]


def test_mean_projection_is_the_mean_of_projections() -> None:
    base, instruct, other = models(gap=0.5)
    inside = mean_projection(other, (base, instruct), FEW, FEW_RESAMPLES)
    np.testing.assert_allclose(inside.value, projection_in_sample(other, base, instruct).mean(axis=0))
    ends = [projection_in_sample(each, base, instruct).mean(axis=0) for each in (instruct, base)]
    length = np.linalg.norm((instruct - base).mean(axis=0), axis=1)
    np.testing.assert_allclose(ends[0] - ends[1], length)
    names, index = index_clusters(FEW)
    folds = cluster_folds(len(names), seed=FEW_RESAMPLES.seed)[index]
    one_by_one = np.zeros(3)
    for fold in range(5):
        axis = alignment_axis(base[folds != fold], instruct[folds != fold])
        one_by_one += (other[folds == fold] * axis).sum(axis=2).sum(axis=0) / len(other)
    outside = mean_projection(other, (base, instruct), FEW, FEW_RESAMPLES, n_folds=5)
    np.testing.assert_allclose(outside.value, one_by_one)
    assert (outside.low < outside.value).all() and (outside.value < outside.high).all()


def test_in_sample_ends_come_apart_without_any_difference_and_held_out_ones_do_not() -> None:
    base, instruct, _ = models(gap=0.0)

    def gap(n_folds: int) -> float:
        low, high = (
            mean_projection(one, (base, instruct), FEW, FEW_RESAMPLES, n_folds=n_folds)
            for one in (base, instruct)
        )
        return float((high.value - low.value).mean())

    assert gap(1) > 0.5 and abs(gap(5)) < 0.2


def test_scree_is_the_share_of_the_whole_decomposition() -> None:
    rows = np.random.default_rng(1).normal(size=(60, 128)) * np.geomspace(5, 0.1, 128) + 3
    for centred in (True, False):
        found = measure_scree(VectorSet(rows, FEW), FEW_RESAMPLES, n_components=4, centred=centred)
        np.testing.assert_allclose(found.value, top_components(rows, 4, centred=centred).share[:4])
    with pytest.raises(ValueError, match="valid are 1 to 60"):
        measure_scree(VectorSet(rows, FEW), FEW_RESAMPLES, n_components=61, centred=True)
