"""Exercises on the alignment direction: erosion held out, what a cosine hides, and a share made of noise."""

from __future__ import annotations

import numpy as np

from remi_book.exercises.answers import call_for_number, match_number
from remi_book.exercises.exercise import Exercise, NotYet

EROSION, COSINE = 0.5, 0.2
"""Erosion and cosine of the second exercise's model."""
N_DRAWS, N_DIALOGUES, N_FOLDS, WIDTH, GAP = 60, 20, 5, 40, 2.0


def _models(seed: int, *, erosion: float, noise: float) -> tuple[np.ndarray, ...]:
    """States of base, instruct and a third model, dialogue by dialogue, with noise of each its own, and folds."""
    generator = np.random.default_rng(seed)
    means = np.zeros((3, WIDTH))
    means[0, 0], means[2, 0], means[2, 1] = GAP, GAP * erosion, GAP
    states = 1 + means[:, None] + noise * generator.normal(size=(3, N_DIALOGUES, WIDTH))
    return *states, np.arange(N_DIALOGUES) % N_FOLDS


def _mean(answer: object, *, erosion: float) -> float:
    values = [call_for_number(answer, *_models(at, erosion=erosion, noise=1.0)) for at in range(N_DRAWS)]
    return float(np.median(values))


def _erosion(answer: object) -> None:
    *states, folds = _models(0, erosion=0.3, noise=0.0)
    exact = call_for_number(answer, *states, folds)
    larger = call_for_number(answer, *(10 * one for one in states), folds)
    if not np.isclose(exact, larger):
        raise NotYet("with all states ten times as long it changes: a share of a way has no unit")
    if np.isclose(exact, 0.7) or np.isclose(exact, -0.3):
        raise NotYet("mind where the scale begins: it is zero at instruct and one at base")
    if not np.isclose(exact, 0.3):
        raise NotYet(f"without noise, for a model that has gone .3 of the way, it gives {exact:.3g}")
    nothing = _mean(answer, erosion=0.0)
    if abs(nothing) > 0.1:
        raise NotYet(
            f"for a model that has not moved towards base at all it gives {nothing:.2g} at the median of many draws: "
            "some noise is multiplied with itself"
        )
    half_way = _mean(answer, erosion=1.0)
    if abs(half_way - 1) > 0.15:
        raise NotYet(
            f"for a model that lies as far as base it gives {half_way:.2g} at the median of many draws: "
            "look at the denominator"
        )


def _sideways(answer: object) -> None:
    length = EROSION / COSINE
    known = {
        length: "that is the whole displacement; a part of it lies along the line",
        np.sqrt(
            1 - COSINE**2
        ): "that is sideways as a share of its own displacement; r is in units of the way to base",
        1 - COSINE: "one minus a cosine is no length: draw the triangle",
        EROSION
        / np.sqrt(
            1 - COSINE**2
        ): "in the triangle, the side along the line and the slanted one are exchanged",
        length - EROSION: "lengths at a right angle do not subtract",
    }
    otherwise = (
        "draw the triangle: along the line, beside it, and the displacement itself; c is one of its angles"
    )
    match_number(answer, np.sqrt(length**2 - EROSION**2), tolerance=0.005, known=known, otherwise=otherwise)


def _nothing(answer: object) -> None:
    known = {
        0.0: "that takes the third model to lie at instruct. Does instruct's own noise take part in the direction?",
        1.0: "that takes the third model to lie at base. Nothing prefers base to instruct here",
        1 / 3: "three models do not share a line evenly: work out numerator and denominator, noise by noise",
    }
    otherwise = "write D as a difference of two noises and see which products have a mean that is not zero"
    match_number(answer, 0.5, tolerance=0.01, known=known, otherwise=otherwise)


EXERCISES = (
    Exercise(
        name="direction.erosion",
        title="erosion, held out",
        kind="function",
        minutes=15,
        lesson="no noise meets itself, above the line of the fraction or below it.",
        checker=_erosion,
    ),
    Exercise(
        name="direction.sideways",
        title="what stands beside the line",
        kind="number",
        minutes=5,
        lesson="most of this movement has nothing to do with base, which e alone would not tell.",
        checker=_sideways,
    ),
    Exercise(
        name="direction.nothing",
        title="a curve made of noise",
        kind="number",
        minutes=10,
        lesson="in sample, a model without any difference lies between two others: only held out is it news.",
        checker=_nothing,
    ),
)
