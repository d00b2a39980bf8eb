"""What an exercise is, and what the check of an answer gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from remi_book.words import as_html

Kind = Literal["number", "choice", "function", "example"]
State = Literal["not answered", "right", "not yet"]


class NotYet(Exception):
    """An answer that is not right: the message says what is wrong with it, and not what would be right."""


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One exercise; its text, hint and solution stand in the notebook of its chapter."""

    name: str
    """``chapter.word``, as ``check`` is told."""
    title: str
    kind: Kind
    """What an answer is: a number, one or several choices, a function, or an example made by the reader."""
    minutes: int
    """Time that a reader of the chapter may need."""
    lesson: str
    """What a right answer shows, in a sentence; displayed with the verdict."""
    checker: Callable[..., None]
    """Returns for a right answer and raises ``NotYet`` for another; called with the answer and the run's values."""

    @property
    def chapter(self) -> str:
        """The chapter, as in ``CHAPTERS``."""
        return self.name.partition(".")[0]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome of a check, for a page (``_repr_html_``) and for a terminal (``repr``)."""

    name: str
    state: State
    message: str = ""
    """What is wrong, or what the right answer shows; "" where nothing was answered."""

    def __repr__(self) -> str:
        return f"{self.name}: {self.state}{f': {self.message}' if self.message else ''}"

    def _repr_html_(self) -> str:
        word = f'<span class="remi-verdict remi-{self.state.replace(" ", "-")}">{self.state}</span>'
        text = f" {as_html(self.message)}" if self.message else ""
        return f'<p class="remi-check"><code>{as_html(self.name)}</code> {word}{text}</p>'
