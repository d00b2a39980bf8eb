"""All exercises of the book, for a page that lists them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from remi_book.exercises.chapters import CHAPTERS, exercises_of
from remi_book.exercises.exercise import Exercise

EXERCISES: Mapping[str, Exercise] = MappingProxyType(
    {exercise.name: exercise for chapter in CHAPTERS for exercise in exercises_of(chapter)}
)
"""Name → exercise (chapter, title, kind, minutes), in the order of the notebooks."""
