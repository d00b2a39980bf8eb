"""The Wilson interval of a share: what independent draws alone would leave open."""

from __future__ import annotations

import numpy as np
from scipy import stats


def wilson_interval(successes: int, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """Lower and upper end of the central interval of a share, both in [0, 1].

    The ends are the shares p that lie z standard errors of their own, √(p (1 − p) / n), from the one observed: none
    or all of the trials still leave an interval of some width. Trials count as independent; where prompts share a
    template they are not, and an interval over clusters belongs beside it. Source: Wilson (1927), Probable
    Inference, the Law of Succession, and Statistical Inference.

    Raises:
        ValueError: if there are no trials, or successes are not among them.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials; needed are 0 to n of at least 1")
    share, z = successes / trials, float(stats.norm.ppf((1 + level) / 2))
    shrink = 1 + z**2 / trials
    middle = (share + z**2 / (2 * trials)) / shrink
    half = z * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2)) / shrink
    # Rounding would leave the ends of none and of all a hair outside.
    low = 0.0 if successes == 0 else float(middle - half)
    return low, 1.0 if successes == trials else float(middle + half)
