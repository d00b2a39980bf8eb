"""Exercises on gradients: the forced sign, the distance of two means, and a permutation test with faults."""

from __future__ import annotations

import numpy as np

from remi_book.exercises.answers import as_choices, call_for_number, match_number
from remi_book.exercises.exercise import Exercise, NotYet

SHARES, WITHIN, BETWEEN = (0.75, 0.25), (0.9, 0.8), 0.7
"""Shares of two groups and their mean raw inner products, as in the text of the first exercise."""
FAULTS, LINES = {"6", "8"}, [str(number) for number in range(1, 9)]
"""Lines of the third exercise's code, and those that make its p value wrong."""
N_DRAWS, WIDTH = 60, 30


def _centred(answer: object) -> None:
    squared = sum(WITHIN) - 2 * BETWEEN
    truth = -SHARES[0] * SHARES[1] * squared
    known = {
        BETWEEN: "that is the raw mean: the common mean of all gradients is still in it",
        -squared / 4: "that would hold for groups of equal size; these are not",
        -truth: "the size is right: think again about what subtracting a common mean does to the sign",
        -squared: "you have the length of d, and not yet how far each group lies from the common mean",
        squared: "you have the length of d, and not yet how far each group lies from the common mean",
    }
    otherwise = (
        "where does each group's mean lie after centring, as a multiple of d? The raw means tell its length"
    )
    match_number(answer, truth, tolerance=5e-4, known=known, otherwise=otherwise)


def _rows(seed: int, *, gap: float, own: float, shared: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gram matrix, labels and templates of gradients with a planted distance and noise of two kinds."""
    generator = np.random.default_rng(seed)
    templates = np.repeat(np.arange(12), 2)
    labels = np.repeat([0, 1], 12)
    rows = 1 + own * generator.normal(size=(24, WIDTH))
    rows += shared * generator.normal(size=(12, WIDTH))[templates]
    rows[labels == 1, 0] += gap
    return rows @ rows.T, labels, templates


def _mean(answer: object, *, gap: float, own: float, shared: float) -> tuple[float, float, list[float]]:
    """Mean of the reader's estimate over draws, its standard error, and the single estimates."""
    draws = range(N_DRAWS)
    values = [call_for_number(answer, *_rows(at, gap=gap, own=own, shared=shared)) for at in draws]
    return float(np.mean(values)), float(np.std(values) / np.sqrt(N_DRAWS)), values


def _distance(answer: object) -> None:
    exact = call_for_number(answer, *_rows(0, gap=3.0, own=0.0, shared=0.0))
    if not np.isclose(exact, 9):
        raise NotYet(
            f"without any noise, with two means 3 apart, your function gives {exact:.3g}: "
            "the formula itself is not yet that of a squared distance"
        )
    mean, error, values = _mean(answer, gap=0.0, own=1.0, shared=0.0)
    if min(values) >= 0 and min(values) < 1e-9:
        raise NotYet(
            "with no distance to find it never goes below zero, so its mean cannot be zero: do not clip"
        )
    if abs(mean) > 5 * error:
        raise NotYet(
            f"with pure noise and no distance to find, its mean over draws is {mean:.3g} and not zero: "
            "some of the entries you average hold noise times itself"
        )
    mean, error, _ = _mean(answer, gap=0.0, own=1.0, shared=1.0)
    if abs(mean) > 5 * error:
        raise NotYet(
            f"where dialogues of one template share noise, its mean without any distance is {mean:.3g}: "
            "such dialogues are alike for another reason than their group"
        )
    mean, error, _ = _mean(answer, gap=3.0, own=1.0, shared=1.0)
    if abs(mean - 9) > 5 * error:
        raise NotYet(f"with noise around two means 3 apart, its mean over draws is {mean:.3g}")


def _defect(answer: object) -> None:
    found = as_choices(answer, LINES)
    messages = {
        "1": "line 1 only names what comes in",
        "2": "line 2 divides observed value and draws by one number, which leaves every comparison as it is",
        "3": "line 3 is what is to be tested, and `distance` is as it should be",
        "4": "line 4 starts a count at nothing, as a count starts",
        "5": "line 5 decides how fine p can be, and not whether it is right",
        "7": "line 7 counts a draw as large as the observed value, as it should: it is as extreme",
    }
    for line in sorted(found - FAULTS):
        raise NotYet(f"not a fault: {messages[line]}")
    if "8" not in found:
        raise NotYet(
            "one fault is missing: what does this function say when no draw reaches the observed value?"
        )
    if "6" not in found:
        raise NotYet("one fault is missing: dialogues of one template are alike. Does the null keep that?")


EXERCISES = (
    Exercise(
        name="gradients.centred",
        title="the sign after centring",
        kind="number",
        minutes=5,
        lesson="three raw means far above zero, and below zero once centred: the sign was put there.",
        checker=_centred,
    ),
    Exercise(
        name="gradients.distance",
        title="a distance that noise does not feed",
        kind="function",
        minutes=15,
        lesson="only pairs from different templates enter, so noise has nothing to add, and below zero is possible.",
        checker=_distance,
    ),
    Exercise(
        name="gradients.defect",
        title="two faults in a permutation test",
        kind="choice",
        minutes=8,
        lesson="a null keeps what is alike together, and the observed labelling is one of those it could have drawn.",
        checker=_defect,
    ),
)
