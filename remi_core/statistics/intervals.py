"""An estimate with its interval over prompt templates, for any statistic of cluster weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from remi_core.statistics.bootstrap import (
    MIN_CLUSTERS,
    ClusterResamples,
    cluster_sums,
    expanded_level,
    index_clusters,
    percentile_interval,
    resampled_means,
)

Statistic = Callable[[np.ndarray], np.ndarray]
"""Takes weights (row, cluster), gives one value or array per row: all refitting happens inside."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """A value with everything needed for its interval and for the interval of a function of several."""

    value: Float[np.ndarray, " *rest"]
    """The statistic on the data as they are; NaN where it is undefined."""
    samples: Float[np.ndarray, " resample *rest"]
    """The statistic in every bootstrap resample."""
    left_out: Float[np.ndarray, " cluster *rest"]
    """The statistic without each cluster in turn; equal to ``value`` for clusters it never used."""
    present: Bool[np.ndarray, " cluster"]
    """Which of the resampled clusters the statistic uses."""
    n_clusters: int
    """Clusters behind the value; for a function of several estimates, the fewest behind any of them."""
    n_strata: int = 1
    """Strata that those clusters were drawn within."""
    repeats_bias: bool = False
    """Whether the rows that a resample repeats shift the statistic, as they shift singular vectors and squares."""
    counts_bias: bool = False
    """Whether an interval by t is as wide as bias and variance ask for together, not the variance alone."""

    @property
    def method(self) -> str:
        """``bootstrap``, or ``t``: the jackknife over clusters with G - 1 degrees of freedom.

        The jackknife serves below 20 clusters, and where repeated rows would bias every resample.
        """
        return "t" if self.repeats_bias or self.n_clusters < MIN_CLUSTERS else "bootstrap"

    @property
    def low(self) -> Float[np.ndarray, " *rest"]:
        """Lower end of the 95 % interval."""
        return self._central[0]

    @property
    def high(self) -> Float[np.ndarray, " *rest"]:
        """Upper end of the 95 % interval."""
        return self._central[1]

    @cached_property
    def _central(self) -> tuple[np.ndarray, np.ndarray]:
        return self.interval()

    def interval(
        self, *, level: float = 0.95
    ) -> tuple[Float[np.ndarray, " *rest"], Float[np.ndarray, " *rest"]]:
        """Lower and upper end of the central interval; NaN exactly where ``value`` is NaN.

        By the percentiles of the resamples, expanded for the number of clusters, or by t: see ``method``. The error
        that t is scaled by is the jackknife's standard error or, with ``counts_bias``, its root mean square error.
        Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapters 10 and 11.

        Raises:
            ValueError: if a sample is NaN although the value is defined.
        """
        defined = np.asarray(~np.isnan(self.value))
        if self.method == "bootstrap":
            enclosed = expanded_level(level, n_clusters=self.n_clusters, n_strata=self.n_strata)
            ends = percentile_interval(self.samples[:, defined], level=enclosed)
        else:
            ends = self._t_interval(defined, level)
        low, high = np.full(self.value.shape, np.nan), np.full(self.value.shape, np.nan)
        low[defined], high[defined] = ends
        return low, high

    def _t_interval(self, defined: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
        used = int(self.present.sum())
        deviations = (self.left_out - self.value)[self.present][:, defined]
        squared = (used - 1) / used * np.square(deviations).sum(axis=0)
        if self.counts_bias:
            squared = squared + np.square((used - 1) * deviations.mean(axis=0))
        error = np.sqrt(squared)
        width = stats.t.ppf((1 + level) / 2, self.n_clusters - 1) * error
        return self.value[defined] - width, self.value[defined] + width


def cluster_estimate(statistic: Statistic, names: Sequence[str], resamples: ClusterResamples) -> Estimate:
    """The statistic with all it needs for an interval: whole data, every resample, every cluster left out.

    ``statistic`` is called once with weights (row, cluster), float64, columns in the order of ``names``.

    Raises:
        ValueError: for fewer than two clusters, or names outside the resamples.
    """
    n_own = len(names)
    if n_own < 2:
        raise ValueError(f"{n_own} cluster cannot give an interval: at least 2 prompt templates are needed")
    positions = resamples.positions(names)
    drawn = resamples.weights[:, positions].astype(np.float64)
    rows = np.concatenate([np.ones((1, n_own)), drawn, 1 - np.eye(n_own)])
    results = np.asarray(statistic(rows), dtype=np.float64)
    value, samples, own = results[0], results[1 : 1 + len(drawn)], results[1 + len(drawn) :]
    left_out = np.repeat(value[None], len(resamples.names), axis=0)
    left_out[positions] = own
    present = np.zeros(len(resamples.names), dtype=bool)
    present[positions] = True
    return Estimate(
        value=np.asarray(value),
        samples=samples,
        left_out=left_out,
        present=present,
        n_clusters=n_own,
        n_strata=len({resamples.strata[at] for at in positions}),
    )


def mean_interval(
    values: Float[np.ndarray, " dialogue *rest"], clusters: Sequence[str], resamples: ClusterResamples
) -> Estimate:
    """Mean over dialogues with its interval over clusters.

    Raises:
        ValueError: if a value is NaN or there are fewer than two clusters.
    """
    names, _ = index_clusters(clusters)
    sums, counts = cluster_sums(values, clusters, names)
    return cluster_estimate(lambda weights: resampled_means(sums, counts, weights), names, resamples)


def combine(function: Callable[..., np.ndarray], *estimates: Estimate) -> Estimate:
    """The function of several estimates of the same resamples, with its own interval.

    ``function`` gets their arrays with one leading axis (row) and must keep it.

    Raises:
        ValueError: if the estimates do not come from the same resamples.
    """
    shapes = {(len(one.samples), len(one.left_out)) for one in estimates}
    if len(shapes) != 1:
        raise ValueError(f"estimates come from different resamples (resamples, clusters): {sorted(shapes)}")
    fewest = min(estimates, key=lambda one: one.n_clusters - one.n_strata)
    value = np.asarray(function(*(one.value[None] for one in estimates)), dtype=np.float64)[0]
    return Estimate(
        value=np.asarray(value),
        samples=np.asarray(function(*(one.samples for one in estimates)), dtype=np.float64),
        left_out=np.asarray(function(*(one.left_out for one in estimates)), dtype=np.float64),
        present=np.logical_or.reduce([one.present for one in estimates]),
        n_clusters=fewest.n_clusters,
        n_strata=fewest.n_strata,
        repeats_bias=any(one.repeats_bias for one in estimates),
        counts_bias=any(one.counts_bias for one in estimates),
    )


def difference(first: Estimate, second: Estimate) -> Estimate:
    """First minus second, resample by resample: the contrast of a variant with a control."""
    return combine(np.subtract, first, second)


def ratio(numerator: Estimate, denominator: Estimate) -> Estimate:
    """Numerator over denominator, such as (I − M) / (I − B); NaN where the interval below reaches 0."""
    low, high = denominator.interval()
    certain = (low > 0) | (high < 0)

    def divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        safe = np.where(bottom == 0, np.finfo(np.float64).tiny, bottom)
        return np.where(certain, top / safe, np.nan)

    return combine(divide, numerator, denominator)
