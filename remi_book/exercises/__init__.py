"""Exercises of the chapters, checked on the spot: the check says what is wrong and not what is right."""

from __future__ import annotations

from remi_book.exercises.checking import check

__all__ = ["check"]
