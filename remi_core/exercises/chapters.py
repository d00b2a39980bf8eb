"""Which module holds the exercises of which notebook."""

from __future__ import annotations

from importlib import import_module

from remi_core.exercises.exercise import Exercise

CHAPTERS = {
    "gradients": "04_gradients",
    "direction": "05_alignment_direction",
}
"""Chapter, the first word of an exercise's name → stem of its notebook."""


def exercises_of(chapter: str) -> tuple[Exercise, ...]:
    """The exercises of one of ``CHAPTERS``, in the order of the page.

    The module is imported by name and not by a statement: what a page shows for an unanswered exercise does not
    depend on how an answer would be checked, so a changed check must not make a page out of date.
    """
    return import_module(f"remi_core.exercises.{chapter}").EXERCISES
