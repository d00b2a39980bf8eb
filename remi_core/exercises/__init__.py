"""Exercises of the chapters, checked on the spot: the check says what is wrong and not what is right."""

from remi_core.exercises.checking import check

__all__ = ["check"]
