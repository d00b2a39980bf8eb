"""Mean projections agree with projecting dialogue by dialogue; screes and components with whole decompositions."""

from __future__ import annotations

import numpy as np
import pytest

from remi_book.chapters.subspace import spread_layers
from remi_book.figures.style import _fitting_columns
from remi_book.statistics import alignment_axis, mean_projection, projection_in_sample
from remi_core.statistics.resampling import cluster_folds, index_clusters, make_resamples
from remi_core.statistics.subspaces import VectorSet, measure_scree, top_components

CLUSTERS = [f"template {i % 25:02d}" for i in range(60)]
RESAMPLES = make_resamples(CLUSTERS, seed=0, n_resamples=80)


def models(gap: float) -> list[np.ndarray]:
    """Base, instruct and another model half way: (dialogue, layer, d_model) each."""
    generator = np.random.default_rng(0)
    noise = [generator.normal(size=(60, 3, 16)) for _ in range(3)]
    return [noise[0], noise[1] + gap, noise[2] + gap / 2]


def test_mean_projection_is_the_mean_of_projections() -> None:
    base, instruct, other = models(gap=0.5)
    inside = mean_projection(other, (base, instruct), CLUSTERS, RESAMPLES)
    np.testing.assert_allclose(inside.value, projection_in_sample(other, base, instruct).mean(axis=0))
    names, index = index_clusters(CLUSTERS)
    folds = cluster_folds(len(names), seed=RESAMPLES.seed)[index]
    one_by_one = np.zeros(3)
    for fold in range(5):
        axis = alignment_axis(base[folds != fold], instruct[folds != fold])
        one_by_one += (other[folds == fold] * axis).sum(axis=2).sum(axis=0) / len(other)
    outside = mean_projection(other, (base, instruct), CLUSTERS, RESAMPLES, n_folds=5)
    np.testing.assert_allclose(outside.value, one_by_one)
    assert (outside.low < outside.value).all() and (outside.value < outside.high).all()


def test_in_sample_ends_come_apart_without_any_difference_and_held_out_ones_do_not() -> None:
    base, instruct, _ = models(gap=0.0)
    gaps = {}
    for n_folds in (1, 5):
        ends = [
            mean_projection(values, (base, instruct), CLUSTERS, RESAMPLES, n_folds=n_folds).value
            for values in (base, instruct)
        ]
        gaps[n_folds] = float((ends[1] - ends[0]).mean())
    assert gaps[1] > 0.5 and abs(gaps[5]) < 0.2


def test_scree_is_the_share_of_the_whole_decomposition() -> None:
    rows = np.random.default_rng(1).normal(size=(60, 128)) * np.geomspace(5, 0.1, 128) + 3
    for centred in (True, False):
        found = measure_scree(VectorSet(rows, CLUSTERS), RESAMPLES, n_components=4, centred=centred)
        np.testing.assert_allclose(found.value, top_components(rows, 4, centred=centred).share[:4])
    with pytest.raises(ValueError, match="valid are 1 to 60"):
        measure_scree(VectorSet(rows, CLUSTERS), RESAMPLES, n_components=61, centred=True)


def test_few_layers_end_with_the_last() -> None:
    assert [spread_layers(last) for last in (7, 63, 2, 0)] == [[1, 3, 5, 7], [15, 31, 47, 63], [0, 1, 2], [0]]


def test_a_legend_has_as_many_columns_as_fit() -> None:
    assert _fitting_columns(["base", "instruct", "misaligned"], 7.6) == 3
    assert _fitting_columns(["misaligned", "secure", "x" * 75], 7.6) == 2
    assert _fitting_columns(["x" * 200, "y" * 200], 7.6) == 1
