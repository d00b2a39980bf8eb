"""Shares: their intervals, the coverage of intervals, and agreement of two judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from remi_core.statistics.resampling import (
    ClusterResamples,
    Estimate,
    cluster_estimate,
    cluster_sums,
    index_clusters,
)

# How far two judges agree on yes and no: their table, and Cohen's kappa with an interval over clusters.

CELLS = ("both yes", "first alone", "second alone", "both no")
"""The cells of the table of two judges, in the order of every array here."""


def agreement_cells(
    first: Bool[np.ndarray, " item"], second: Bool[np.ndarray, " item"]
) -> Float[np.ndarray, "item 4"]:
    """For each item a 1 in the cell that it falls into, in the order of ``CELLS``."""
    return np.stack([first & second, first & ~second, ~first & second, ~first & ~second], axis=-1).astype(
        np.float64
    )


def kappa(counts: Float[np.ndarray, "*rest 4"]) -> Float[np.ndarray, " *rest"]:
    """Cohen's kappa from counts in the order of ``CELLS``: 1 is full agreement, 0 what chance gives.

    Where both judges say one thing throughout, chance alone agrees everywhere and kappa is 0 over 0: given as 0, since
    nothing beyond chance is shown. Source: Cohen (1960), A Coefficient of Agreement for Nominal Scales.
    """
    shares = counts / counts.sum(axis=-1, keepdims=True)
    first, second = shares[..., 0] + shares[..., 1], shares[..., 0] + shares[..., 2]
    observed = shares[..., 0] + shares[..., 3]
    chance = first * second + (1 - first) * (1 - second)
    room = 1 - chance
    certain = room > 1e-12  # below it, both judges are constant up to rounding
    # Agreement that equals chance is 0, and no rest of rounding.
    beyond = np.where(np.abs(observed - chance) > 1e-12, observed - chance, 0.0)
    return np.where(certain, beyond / np.where(certain, room, 1.0), 0.0)


def kappa_interval(
    first: Bool[np.ndarray, " item"],
    second: Bool[np.ndarray, " item"],
    clusters: Sequence[str],
    resamples: ClusterResamples,
) -> Estimate:
    """Cohen's kappa of two judges with its interval over clusters of items.

    Raises:
        ValueError: for fewer than two clusters.
    """
    names, _ = index_clusters(clusters)
    sums, _ = cluster_sums(agreement_cells(first, second), clusters, names)
    return cluster_estimate(lambda weights: kappa(weights @ sums), names, resamples)


# How often intervals hold a known truth, and how far the estimates lie from it on average.

BAND = (0.93, 0.97)
"""Shares of 95 % intervals that may hold the truth for the interval to be called honest."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What many samples of known truth say about an estimator and its interval."""

    truth: float
    n: int
    """Samples in which the value is defined."""
    undefined: int
    """Samples in which it is not."""
    mean: float
    """Average of the estimates, in the unit of the truth."""
    spread: float
    """Standard deviation of the estimates: the true standard error."""
    width: float
    """Mean width of the intervals."""
    below: int
    """Intervals that lie wholly below the truth."""
    above: int
    """Intervals that lie wholly above it."""

    @property
    def bias(self) -> float:
        """Average estimate minus truth."""
        return self.mean - self.truth

    @property
    def bias_in_errors(self) -> float:
        """Bias in standard errors."""
        return self.bias / self.spread if self.spread > 0 else 0.0

    @property
    def share(self) -> float:
        """Share of intervals that hold the truth."""
        return 1 - (self.below + self.above) / self.n

    @property
    def uncertainty(self) -> tuple[float, float]:
        """The exact 95 % binomial interval of ``share``. Source: Clopper and Pearson (1934)."""
        held = stats.binomtest(self.n - self.below - self.above, self.n)
        return tuple(map(float, held.proportion_ci(method="exact")))

    @property
    def honest(self) -> bool:
        """Whether the share lies in ``BAND``."""
        return BAND[0] <= self.share <= BAND[1]


def coverage(truth: float, found: Sequence[tuple[float, float, float]]) -> Coverage:
    """What the (value, low, high) of many samples say; samples without a value are counted apart.

    Raises:
        ValueError: if fewer than two samples have a value, or a value has no interval.
    """
    every = np.asarray(found, dtype=np.float64).reshape(-1, 3)
    value, low, high = every[np.isfinite(every[:, 0])].T
    if len(value) < 2 or not np.isfinite([low, high]).all():
        raise ValueError(
            f"{len(value)} of {len(every)} samples have a value; at least 2 with an interval needed"
        )
    return Coverage(
        truth=float(truth),
        n=len(value),
        undefined=len(every) - len(value),
        mean=float(value.mean()),
        spread=float(value.std(ddof=1)),
        width=float((high - low).mean()),
        below=int((high < truth).sum()),
        above=int((low > truth).sum()),
    )


def wilson_interval(successes: int, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """Lower and upper end of the central interval of a share, both in [0, 1]: what independent draws leave open.

    The ends are the shares p that lie z standard errors of their own, √(p (1 − p) / n), from the one observed: none
    or all of the trials still leave an interval of some width. Trials count as independent; where prompts share a
    template they are not, and an interval over clusters belongs beside it. Source: Wilson (1927), Probable
    Inference, the Law of Succession, and Statistical Inference.

    Raises:
        ValueError: if there are no trials, or successes are not among them.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials; needed are 0 to n of at least 1")
    ends = stats.binomtest(successes, trials).proportion_ci(confidence_level=level, method="wilson")
    return tuple(map(float, ends))
