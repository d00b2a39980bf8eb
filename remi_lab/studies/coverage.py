"""How often intervals hold a known truth, and how far the estimates lie from it on average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

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
