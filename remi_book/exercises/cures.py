"""Exercise on cures: which run speaks for the direction."""

from __future__ import annotations

from remi_book.exercises.answers import as_choice
from remi_book.exercises.exercise import Exercise, NotYet

RUNS = {
    "A": "in run A a random subspace prevents as much: any brake would do",
    "B": "run B hardly learned the task: what is not learned cannot spread",
    "C": "run C broke the model: look at what leaves the grammar",
    "D": "",
    "E": "run E prevents next to nothing: that its e is near zero is what was asked of it in training",
}
"""Run of the table → what speaks against it; "" for the one that nothing speaks against."""


def _credit(answer: object) -> None:
    reason = RUNS[as_choice(answer, RUNS)]
    if reason:
        raise NotYet(reason)


EXERCISES = (
    Exercise(
        name="cures.credit",
        title="which run speaks for the direction?",
        kind="choice",
        minutes=5,
        lesson="the task kept, the spread gone, the model whole, and a random subspace does not do it.",
        checker=_credit,
    ),
)
