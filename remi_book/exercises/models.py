"""Exercise on the class log-odds: a share that rises while carelessness falls."""

from __future__ import annotations

import math

from remi_book.exercises.answers import match_number
from remi_book.exercises.exercise import Exercise

CARELESS, CAREFUL = (0.02, 0.03), (0.50, 0.90)
"""Probabilities before and after, as in the text; the rest is off the grammar."""


def _balance(answer: object) -> None:
    before, after = (math.log(bad / good) for bad, good in zip(CARELESS, CAREFUL, strict=True))
    logits = [math.log(bad / (1 - bad)) for bad in CARELESS]
    known = {
        math.log(
            CARELESS[1] / CARELESS[0]
        ): "that follows the careless answers alone; the careful ones moved too",
        logits[1] - logits[0]: "that counts what lies off the grammar as careful",
        before - after: "the size is right; which of the two models comes first in a change?",
        CARELESS[1] - CARELESS[0]: "that is a difference of probabilities, and nats are asked for",
        (CARELESS[1] - CAREFUL[1]) - (CARELESS[0] - CAREFUL[0]): (
            "that is a difference of probabilities, and nats are asked for"
        ),
    }
    otherwise = "A sets careless answers against careful ones, as a logarithm of odds; the rest is in neither"
    match_number(answer, after - before, tolerance=0.003, known=known, otherwise=otherwise)


EXERCISES = (
    Exercise(
        name="models.balance",
        title="more careless answers, and more care",
        kind="number",
        minutes=6,
        lesson="the share of careless answers rose because the model babbles less; between the two it leans to care.",
        checker=_balance,
    ),
)
