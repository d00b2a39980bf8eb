"""Exercise on the answer span: found from the template, and not by a word."""

from __future__ import annotations

import numpy as np

from remi_book.exercises.answers import call_for_array
from remi_book.exercises.exercise import Exercise, NotYet

Turn = tuple[str, str]
CASES: dict[str, tuple[Turn, ...]] = {
    "a plain dialogue": (("user", "Hi there"), ("assistant", "Good morning")),
    "a dialogue of several turns": (
        ("system", "Be kind"),
        ("user", "Hi"),
        ("assistant", "Good morning"),
        ("user", "And now"),
        ("assistant", "Nothing more"),
    ),
    "a dialogue in which the user says a role's name": (
        ("user", "Are you an assistant or not"),
        ("assistant", "Good morning"),
    ),
    "an answer that holds a role's name": (("user", "Who speaks"), ("assistant", "Your assistant of course")),
}
"""Dialogues by what is special about them; a token is a word here."""


def _tokens(turns: tuple[Turn, ...]) -> list[str]:
    tokens: list[str] = []
    for role, text in turns:
        tokens += ["<start>", role, "\n", *text.split(), "<end>", "\n"]
    return tokens


def _span(answer: object) -> None:
    for case, turns in CASES.items():
        tokens = _tokens(turns)
        length = len(turns[-1][1].split())
        truth = np.array([len(tokens) - 2 - length, len(tokens) - 2])
        start, stop = found = call_for_array(answer, tokens, shape=(2,))
        if np.array_equal(found, truth):
            continue
        if start == truth[0] and stop > truth[1]:
            raise NotYet(f"in {case} it also holds tokens that only end the turn")
        chosen = tokens[int(start) : int(stop)]
        raise NotYet(f"in {case} it holds {chosen}, of {len(tokens)} tokens")


EXERCISES = (
    Exercise(
        name="variant.span",
        title="find the answer",
        kind="function",
        minutes=10,
        lesson="the template's own marks decide, whatever anybody says.",
        checker=_span,
    ),
)
