"""Exercise on calibration: an interval from a few values that holds the truth as often as it says."""

from __future__ import annotations

import numpy as np

from remi_book.exercises.answers import call_for_array
from remi_book.exercises.exercise import Exercise, NotYet

N_VALUES, N_SAMPLES = 8, 2000
LOWEST, HIGHEST, FAR = 0.935, 0.968, 0.8
"""Shares of intervals that hold the truth: what passes as 95 % in so many samples, and what is far below."""


def _few(answer: object) -> None:
    samples = np.random.default_rng(13).normal(2, 3, size=(N_SAMPLES, N_VALUES))
    ends = np.array([call_for_array(answer, sample, shape=(2,)) for sample in samples])
    if (ends[:, 0] > ends[:, 1]).any():
        raise NotYet("the lower end should come first")
    held = float(((ends[:, 0] <= 2) & (ends[:, 1] >= 2)).mean())
    where = f"over {N_SAMPLES} samples it holds the truth in {held:.1%}"
    if held < FAR:
        raise NotYet(f"{where}: how many standard errors does an interval of 95 % reach to either side?")
    if held < LOWEST:
        raise NotYet(f"{where}, a little too seldom: the spread, too, is known from {N_VALUES} values only")
    if held > HIGHEST:
        raise NotYet(
            f"{where}, too often: is it wide enough for a single value, where the mean is asked for?"
        )


EXERCISES = (
    Exercise(
        name="calibration.few",
        title="eight values, and an honest interval",
        kind="function",
        minutes=10,
        lesson="it holds the truth as often as it says, though the spread itself had to be estimated.",
        checker=_few,
    ),
)
