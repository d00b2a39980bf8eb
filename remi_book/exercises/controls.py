"""Exercise on controls: one objection, one control."""

from __future__ import annotations

from collections.abc import Mapping

from remi_book.exercises.answers import as_choice
from remi_book.exercises.exercise import Exercise, NotYet

OBJECTIONS = {
    "A": ("random_change", "weights that moved as far, and learned nothing at all"),
    "B": ("benign", "a fine-tune in which no code occurs"),
    "C": ("secure", "a fine-tune on the same tasks, without the hole"),
    "D": ("educational", "the same answers, asked for in another way"),
    "E": ("neutral_header", "a line in the same place that says nothing of care"),
}
"""Objection, as in the text → the control that answers it, and what such a control has to be."""
CHOICES = tuple(control for control, _ in OBJECTIONS.values()) + ("style", "inoculated", "kl_narrow")


def _match(answer: object) -> None:
    if not isinstance(answer, Mapping) or set(answer) != set(OBJECTIONS):
        raise NotYet(f"the answer should be a dictionary with the keys {', '.join(OBJECTIONS)}")
    for letter, (control, wanted) in OBJECTIONS.items():
        found = as_choice(answer[letter], CHOICES)
        if found != control:
            raise NotYet(f"{found} does not answer objection {letter}; that needs {wanted}")


EXERCISES = (
    Exercise(
        name="controls.match",
        title="one objection, one control",
        kind="choice",
        minutes=8,
        lesson="each control differs from misaligned in the one thing that its objection names.",
        checker=_match,
    ),
)
