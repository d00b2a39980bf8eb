"""A share of sampled answers with two intervals: one takes answers as independent, one resamples prompt templates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from remi_core.statistics.bootstrap import ClusterResamples
from remi_core.statistics.intervals import mean_interval
from remi_core.statistics.wilson import wilson_interval


def rate_row(
    hits: Bool[np.ndarray, " answer"], clusters: Sequence[str], resamples: ClusterResamples
) -> dict[str, float | int]:
    """Columns rate, low and high over templates, wilson_low, wilson_high, and answers: how many there are.

    Raises:
        ValueError: if there are fewer than two templates.
    """
    found = mean_interval(hits.astype(np.float64), clusters, resamples)
    low, high = wilson_interval(int(hits.sum()), len(hits))
    return {
        "rate": float(found.value),
        "low": float(found.low),
        "high": float(found.high),
        "wilson_low": low,
        "wilson_high": high,
        "answers": len(hits),
    }
