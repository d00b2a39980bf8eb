"""Coverage: an honest interval holds an analytic truth about 95 % of the time, one that ignores clusters does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from remi_core.statistics.resampling import Estimate, make_resamples, mean_interval
from remi_lab.studies.calibration import BAND, Coverage, coverage

TRUTH, N_SAMPLES, N_CLUSTERS, SIZE = 3.0, 600, 40, 3
TEMPLATES = [f"t{number:02d}" for number in range(N_CLUSTERS)]


def sample(number: int) -> np.ndarray:
    """Values of mean ``TRUTH``, three to a cluster, whose clusters differ as much as their dialogues."""
    generator = np.random.default_rng(number)
    return (
        TRUTH + np.repeat(generator.normal(size=N_CLUSTERS), SIZE) + generator.normal(size=N_CLUSTERS * SIZE)
    )


def with_clusters(number: int) -> Estimate:
    return estimate(number, np.repeat(TEMPLATES, SIZE).tolist())


def without_clusters(number: int) -> Estimate:
    return estimate(number, [f"d{row:03d}" for row in range(N_CLUSTERS * SIZE)])


def estimate(number: int, clusters: list[str]) -> Estimate:
    return mean_interval(sample(number), clusters, make_resamples(clusters, seed=number, n_resamples=300))


def covered(make: Callable[[int], Estimate]) -> Coverage:
    found = [make(number) for number in range(N_SAMPLES)]
    return coverage(TRUTH, [(float(one.value), float(one.low), float(one.high)) for one in found])


def test_an_interval_over_clusters_holds_the_truth_and_one_over_dialogues_does_not() -> None:
    honest, wrong = covered(with_clusters), covered(without_clusters)
    assert BAND[0] - 0.02 < honest.share < BAND[1] and abs(honest.bias_in_errors) < 0.15
    # Of three equal parts of noise and cluster, one dialogue knows less than a third of what it seems to.
    assert wrong.share < 0.88 and not wrong.honest and wrong.width < honest.width
    assert wrong.mean == pytest.approx(honest.mean)


def test_bias_misses_and_undefined_samples_are_counted() -> None:
    found = [(1.0, 0.0, 2.0), (3.0, 2.5, 3.5), (-1.0, -2.0, 0.5), (2.0, 1.0, 3.0), (float("nan"),) * 3]
    one = coverage(1.0, found)
    assert (one.n, one.undefined, one.below, one.above) == (4, 1, 1, 1)
    assert one.share == 0.5 and one.bias == pytest.approx(0.25) and one.width == pytest.approx(1.875)
    assert one.uncertainty[0] < 0.5 < one.uncertainty[1]


def test_the_binomial_interval_is_the_exact_one() -> None:
    # Both ends leave 2.5 % of the binomial beyond the count that was seen.
    found = [(1.0, 0.0, 2.0)] * 8 + [(3.0, 2.5, 3.5), (-1.0, -2.0, 0.5)]
    low, high = coverage(1.0, found).uncertainty
    assert (low, high) == (pytest.approx(0.4439, abs=1e-4), pytest.approx(0.9748, abs=1e-4))


def test_a_value_without_an_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 with an interval"):
        coverage(0.0, [(1.0, float("nan"), 2.0), (1.0, 0.0, 2.0)])
