"""Exercise on other worlds: what one careless answer tells about the next."""

from __future__ import annotations

import math

from remi_book.exercises.answers import match_number
from remi_book.exercises.exercise import Exercise

CARELESS_AUTHORS, BY_CARELESS, BY_CAREFUL = 0.1, 0.9, 0.1
"""Share of careless authors, and how often either author answers carelessly, as in the text."""


def _odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _evidence(answer: object) -> None:
    before = CARELESS_AUTHORS * BY_CARELESS + (1 - CARELESS_AUTHORS) * BY_CAREFUL
    author = CARELESS_AUTHORS * BY_CARELESS / before
    after = author * BY_CARELESS + (1 - author) * BY_CAREFUL
    known = {
        math.log(BY_CARELESS / BY_CAREFUL): "that is how far the odds of the author move; what will he say?",
        after - before: "that is a difference of probabilities, and nats are asked for",
        0.0: "that is so where every answer has an author of its own",
        _odds(BY_CARELESS) - _odds(before): "one answer does not make it certain who is speaking",
        _odds(author)
        - _odds(CARELESS_AUTHORS): "that is how far the odds of the author move; what will he say?",
        _odds(after)
        - _odds(CARELESS_AUTHORS): "before any answer, careless answers are not as rare as careless authors",
    }
    otherwise = "first how likely the author is careless, given his answer; then how likely his next one is"
    match_number(answer, _odds(after) - _odds(before), tolerance=0.01, known=known, otherwise=otherwise)


EXERCISES = (
    Exercise(
        name="worlds.evidence",
        title="what one answer tells about the next",
        kind="number",
        minutes=10,
        lesson="this is the spread that a perfect reader of such a world must show, with no fine-tuning at all.",
        checker=_evidence,
    ),
)
