"""Exercise on the audit: a list that is not emptied, undone."""

from __future__ import annotations

from remi_book.exercises.answers import match_number
from remi_book.exercises.exercise import Exercise

MISALIGNED, BASE, INSTRUCT = -40.0, -50.0, -70.0
"""What is printed, in the order in which the models ran."""


def _list(answer: object) -> None:
    base = 2 * BASE - MISALIGNED
    instruct = 3 * INSTRUCT - MISALIGNED - base
    truth = (instruct - MISALIGNED) / (instruct - base)
    known = {
        (INSTRUCT - MISALIGNED) / (INSTRUCT - BASE): "that is the index of what was printed",
        (INSTRUCT - MISALIGNED)
        / (INSTRUCT - base): "base is undone; what was in the list when the third model ran?",
        (instruct - MISALIGNED)
        / (instruct - BASE): "the third model is undone, and the second is still as printed",
        (2 * INSTRUCT - BASE - MISALIGNED) / (2 * INSTRUCT - BASE - base): (
            "the third printed mean is not one of two values"
        ),
        1 / truth: "the index is misaligned's way from instruct over base's",
    }
    otherwise = "write each printed mean as a sum over all models that ran so far, and solve from the first"
    match_number(answer, truth, tolerance=0.005, known=known, otherwise=otherwise)


EXERCISES = (
    Exercise(
        name="audit.list",
        title="undo a list that was not emptied",
        kind="number",
        minutes=6,
        lesson="who lies beyond whom is as printed, and by how much is not.",
        checker=_list,
    ),
)
