"""Exercise on exchange: equal lengths before directions are compared."""

from __future__ import annotations

from remi_book.exercises.answers import match_number
from remi_book.exercises.exercise import Exercise

OWN, OTHER, COSINE, DOSE = 4.0, 1.0, 0.6, 0.5
"""Lengths of two displacements, their cosine, and the dose, as in the text."""


def _length(answer: object) -> None:
    known = {
        DOSE * COSINE * OTHER / OWN: "the other displacement still has its own length",
        COSINE: "that would be the whole of it; the dose is smaller",
        DOSE: "that is the dose of the model's own displacement; the other one points elsewhere",
        COSINE * OTHER / OWN: "the other displacement still has its own length, and the whole of it is taken",
        DOSE * OTHER / OWN: "two displacements of different directions are not compared by their lengths",
        DOSE * COSINE**2: "a projection takes the cosine once",
    }
    otherwise = (
        "what counts is how far the edit goes back along the model's own displacement, as a share of it"
    )
    match_number(answer, DOSE * COSINE, tolerance=0.003, known=known, otherwise=otherwise)


EXERCISES = (
    Exercise(
        name="exchange.length",
        title="equal lengths first",
        kind="number",
        minutes=5,
        lesson="at its own length it would have looked as if the direction hardly mattered.",
        checker=_length,
    ),
)
