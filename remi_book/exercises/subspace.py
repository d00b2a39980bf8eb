"""Exercises on subspaces: a place between floor and ceiling, the overlap itself, and the null of a largest cosine."""

from __future__ import annotations

import numpy as np
import pandas as pd

from remi_book.exercises.answers import call_for_number, match_number
from remi_book.exercises.exercise import Exercise, NotYet

WIDTH, N_COMPONENTS, N_DRAWS = 40, 3, 300


def _place(answer: object, row: pd.Series) -> None:
    floor = (row["floor_low"] + row["floor_high"]) / 2
    ceiling = (row["ceiling_low"] + row["ceiling_high"]) / 2
    value = row["similarity"]
    truth = float((value - floor) / (ceiling - floor))
    known = {
        float(value): "that is the overlap itself, and says nothing of what was possible",
        float(
            value / ceiling
        ): "that is a share of the ceiling; how much of it do random subspaces reach already?",
        float(
            value - floor
        ): "that is the height above the floor, and not yet a share of what there is to reach",
        float((ceiling - value) / (ceiling - floor)): "that is the way still to go, and not the way gone",
    }
    otherwise = "zero should be the middle of the floor and one the middle of the ceiling"
    match_number(answer, truth, tolerance=max(0.002, abs(truth) / 200), known=known, otherwise=otherwise)


def _rows(*axes: np.ndarray, seed: int) -> np.ndarray:
    """Centred rows that vary along the given axes, most along the first, in six dimensions."""
    scores = np.random.default_rng(seed).normal(size=(60, len(axes)))
    scores = np.linalg.qr(scores - scores.mean(axis=0))[0] * (len(axes) - np.arange(len(axes)))
    return scores @ np.array(axes)


def _overlap(answer: object) -> None:
    unit = np.eye(6)
    plane = _rows(unit[0], unit[1], seed=4)
    same = call_for_number(answer, plane, plane, 2)
    if not np.isclose(same, 1):
        raise NotYet(f"for a set and itself it gives {same:.3g}, where two equal subspaces overlap wholly")
    beside = call_for_number(answer, plane, _rows(unit[2], unit[3], seed=5), 2)
    if not np.isclose(beside, 0, atol=1e-6):
        raise NotYet(f"for two planes at a right angle it gives {beside:.3g}")
    shifted = call_for_number(answer, plane, plane + 20 * unit[5], 2)
    if not np.isclose(shifted, 1):
        raise NotYet(
            f"one vector added to all rows of a set changes the result to {shifted:.3g}: "
            "the comparison asked for is of how rows differ among themselves"
        )
    one = call_for_number(answer, plane, _rows(unit[0], unit[4], seed=6), 2)
    if not np.isclose(one, 0.5):
        raise NotYet(
            f"for two planes that share one direction of two it gives {one:.3g}: what of the other direction?"
        )
    turned = _rows((unit[0] + unit[1]) / np.sqrt(2), (unit[0] - unit[1]) / np.sqrt(2), seed=7)
    found = call_for_number(answer, plane, turned, 2)
    if not np.isclose(found, 1):
        raise NotYet(
            f"for one plane, with components that are turned in it, it gives {found:.3g}: "
            "a subspace does not depend on its axes"
        )


def _cosines(generator: np.random.Generator) -> np.ndarray:
    first, second = (np.linalg.qr(generator.normal(size=(WIDTH, N_COMPONENTS)))[0] for _ in range(2))
    return first.T @ second


def _maximum(answer: object) -> None:
    generator = np.random.default_rng(8)
    found = np.array([call_for_number(answer, generator, WIDTH, N_COMPONENTS) for _ in range(N_DRAWS)])
    if found.max() > 1 + 1e-9:
        raise NotYet(f"some draw gives {found.max():.2g}, and no cosine is above one")
    drawn = np.array([_cosines(generator) for _ in range(N_DRAWS)])
    largest = np.abs(drawn).max(axis=(1, 2))
    mean, error = found.mean(), largest.std() * np.sqrt(2 / N_DRAWS)
    if found.std() < error:
        raise NotYet("the draws hardly differ from each other: a null has to vary")
    if abs(mean - largest.mean()) < 5 * error:
        return
    if mean > largest.mean():
        raise NotYet(
            f"on average it gives {mean:.2f}, too much: do your directions all point to one side of space?"
        )
    if mean < np.abs(drawn).mean() + 5 * error:
        raise NotYet(f"on average it gives {mean:.2f}, as one pair of directions does: what was published?")
    raise NotYet(f"on average it gives {mean:.2f}, too little: which sign has a singular vector?")


EXERCISES = (
    Exercise(
        name="subspace.overlap",
        title="an overlap that axes do not matter to",
        kind="function",
        minutes=12,
        lesson="the same for turned axes and for shifted rows: it is about the subspaces and nothing else.",
        checker=_overlap,
    ),
    Exercise(
        name="subspace.maximum",
        title="the largest of many",
        kind="function",
        minutes=10,
        lesson="the largest is compared with the largest, found in the same way.",
        checker=_maximum,
    ),
    Exercise(
        name="subspace.place",
        title="a place between floor and ceiling",
        kind="number",
        minutes=6,
        lesson="this is the number that may be held against another model's.",
        checker=_place,
    ),
)
