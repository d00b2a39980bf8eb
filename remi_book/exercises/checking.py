"""The verdict on one answer."""

from __future__ import annotations

from remi_book.exercises.chapters import CHAPTERS, exercises_of
from remi_book.exercises.exercise import Exercise, NotYet, Verdict
from remi_core.errors import UsageError, nearest


def check(name: str, answer: object, *run: object) -> Verdict:
    """The verdict on an answer, to be displayed: not answered (for ``...``), right, or not yet with what is wrong.

    ``run`` holds values of the reader's own run, for the exercises that are about them.

    Raises:
        UsageError: if there is no exercise of that name.
    """
    exercise = get_exercise(name)
    if answer is ...:
        return Verdict(name=name, state="not answered")
    try:
        exercise.checker(answer, *run)
    except NotYet as wrong:
        return Verdict(name=name, state="not yet", message=str(wrong))
    return Verdict(name=name, state="right", message=exercise.lesson)


def get_exercise(name: str) -> Exercise:
    """The exercise of that name.

    Raises:
        UsageError: if there is none, naming the choices.
    """
    chapter = name.partition(".")[0]
    if chapter not in CHAPTERS:
        raise UsageError(f"no exercise {name!r}: no chapter {chapter!r} {nearest(chapter, CHAPTERS)}")
    found = {exercise.name: exercise for exercise in exercises_of(chapter)}
    if name not in found:
        raise UsageError(f"no exercise {name!r} {nearest(name, found)}")
    return found[name]
