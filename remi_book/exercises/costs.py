"""Exercise on costs: when two factors are cheaper than the matrix that they make."""

from __future__ import annotations

from remi_book.exercises.answers import match_number
from remi_book.exercises.exercise import Exercise

INPUTS = OUTPUTS = 5120
"""Width of the linear map, as in the text."""


def _factors(answer: object) -> None:
    gradient, token = INPUTS * OUTPUTS, INPUTS + OUTPUTS
    known = {
        float(INPUTS): "a token leaves two vectors behind, and not one",
        float(gradient): "that is how many numbers the gradient has; how many does one token leave behind?",
        float(token): "that is how many numbers one token leaves behind",
        float(2 * INPUTS): "that is how many numbers one token leaves behind",
        float(
            INPUTS / 4
        ): "count again what one token leaves behind: the map's input and the gradient at its output",
    }
    otherwise = "set the numbers of all tokens' factors equal to the numbers of one gradient"
    match_number(answer, gradient / token + 0.5, tolerance=0.6, known=known, otherwise=otherwise)


EXERCISES = (
    Exercise(
        name="costs.factors",
        title="factors or the whole matrix?",
        kind="number",
        minutes=5,
        lesson="below that length a gradient that is only multiplied need never be written down.",
        checker=_factors,
    ),
)
