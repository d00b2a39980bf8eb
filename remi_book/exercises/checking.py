"""Check an answer to an exercise: what an exercise is, how an answer is read, and the verdict."""

from __future__ import annotations

import copy
import traceback
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Literal, SupportsFloat

import numpy as np
import yaml

from remi_book.words import as_html
from remi_core.errors import UsageError, nearest

# The exercises, and the verdict on an answer.


class NotYet(Exception):
    """An answer that is not right: the message says what is wrong with it, and not what would be right."""


class Mistake(NotYet):
    """A mistake by its name in ``mistakes.yaml``, with the values that its message tells."""

    def __init__(self, name: str, *values: object) -> None:
        super().__init__(name)
        self.values = values


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One exercise; its text, hint and solution stand in its notebook."""

    name: str
    """``chapter.word``, as ``check`` is told."""
    notebook: str
    title: str
    kind: Literal["number", "choice", "function", "example"]
    """What an answer is: a number, one or several choices, a function, or an example made by the reader."""
    minutes: int
    """Time that a reader of the chapter may need."""
    lesson: str
    """What a right answer shows, in a sentence; displayed with the verdict."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome of a check, for a page (``_repr_html_``) and for a terminal (``repr``)."""

    name: str
    state: Literal["not answered", "right", "not yet"]
    message: str = ""
    """What is wrong, or what the right answer shows; "" where nothing was answered."""

    def __repr__(self) -> str:
        return f"{self.name}: {self.state}{f': {self.message}' if self.message else ''}"

    def _repr_html_(self) -> str:
        word = f'<span class="remi-verdict remi-{self.state.replace(" ", "-")}">{self.state}</span>'
        text = f" {as_html(self.message)}" if self.message else ""
        return f'<p class="remi-check"><code>{as_html(self.name)}</code> {word}{text}</p>'


def _read(name: str) -> dict[str, dict]:
    return yaml.safe_load(Path(__file__).parent.joinpath(name).read_text(encoding="utf-8"))


EXERCISES: Mapping[str, Exercise] = MappingProxyType(
    {
        name: Exercise(name=name, notebook=notebook, **fields)
        for notebook, exercises in _read("exercises.yaml").items()
        for name, fields in exercises.items()
    }
)
"""Name → exercise, in the order of the notebooks."""

MISTAKES: Mapping[str, Mapping[str, str]] = MappingProxyType(_read("../mistakes.yaml"))
"""Name of an exercise → the mistakes that its check tells apart, and the message of each.

They lie outside this folder, whose files are part of the key of every page with an exercise.
"""

CHECKERS: dict[str, Callable[..., None]] = {}
"""Name → function of an answer and of the run's values; it returns for a right answer and raises ``NotYet`` else."""


def checks(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator of the function that checks the exercise of that name."""

    def register(checker: Callable[..., None]) -> Callable[..., None]:
        CHECKERS[name] = checker
        return checker

    return register


def check(name: str, answer: object, *run: object) -> Verdict:
    """The verdict on an answer, to be displayed: not answered (for ``...``), right, or not yet with what is wrong.

    ``run`` holds values of the reader's own run, for the exercises that are about them.

    Raises:
        UsageError: if there is no exercise of that name.
    """
    if name not in EXERCISES:
        raise UsageError(f"no exercise {name!r} {nearest(name, EXERCISES)}")
    if answer is ...:
        return Verdict(name=name, state="not answered")
    # By name and not by a statement: what a page shows for an unanswered exercise does not depend on how an answer
    # would be checked, so a changed check must not make a page out of date.
    import_module("remi_book.exercises.answers")
    try:
        CHECKERS[name](answer, *run)
    except Mistake as known:
        message = MISTAKES[name][str(known)].format(*known.values)
        return Verdict(name=name, state="not yet", message=message)
    except NotYet as wrong:
        return Verdict(name=name, state="not yet", message=str(wrong))
    return Verdict(name=name, state="right", message=EXERCISES[name].lesson)


# Reading an answer: numbers, choices and functions of the reader, each with a message where it is something else.


def as_number(answer: object, what: str = "the answer") -> float:
    """The answer as a finite float.

    Raises:
        NotYet: if it is no single number.
    """
    if answer is None or isinstance(answer, bool | np.bool_ | str):
        raise NotYet(f"{what} should be a number, and {answer!r} is none")
    try:
        array = np.asarray(answer, dtype=float)
    except (TypeError, ValueError):
        raise NotYet(f"{what} should be a number, and it is of type {type(answer).__name__}") from None
    if array.size != 1:
        raise NotYet(f"{what} should be one number, and it has {array.size}")
    return float(array.reshape(()))


def require(right: bool | np.bool_, mistake: str, *values: object) -> None:
    """Nothing, where the answer is right in this.

    Raises:
        Mistake: else, the one of that name in ``mistakes.yaml``, whose braces the values fill.
    """
    if not right:
        raise Mistake(mistake, *values)


def match_number(
    answer: object, truth: float, *, tolerance: float, known: Mapping[str, SupportsFloat | tuple[float, ...]]
) -> None:
    """Nothing, for a number within the tolerance of the truth.

    Raises:
        Mistake: for another: the one of ``known`` that gives this number, else ``otherwise``.
    """
    value = as_number(answer)
    if not abs(value - truth) <= tolerance:
        close = (name for name, wrong in known.items() if (abs(np.asarray(wrong) - value) <= tolerance).any())
        raise Mistake(next(close, "otherwise"))


def as_choice(answer: object, options: Collection[str]) -> str:
    """The answer as one of the options, whatever its case.

    Raises:
        NotYet: if it is none of them.
    """
    named = {option.casefold(): option for option in options}
    answer = str(answer) if isinstance(answer, int) else answer
    if not isinstance(answer, str) or answer.strip().casefold() not in named:
        raise NotYet(f"the answer should be one of {', '.join(options)}, as text, and it is {answer!r}")
    return named[answer.strip().casefold()]


def as_choices(answer: object, options: Collection[str]) -> set[str]:
    """The answer, a set or list, as a set of options.

    Raises:
        NotYet: if it is no collection, or holds something else.
    """
    if isinstance(answer, str) or not isinstance(answer, Collection):
        raise NotYet(f'the answer should be a set such as {{"{min(options)}"}}, and it is {answer!r}')
    return {as_choice(choice, options) for choice in answer}


def call(function: object, *arguments: object) -> object:
    """What the reader's function gives for copies of the arguments, so that it cannot change them.

    Raises:
        NotYet: if the answer is no function, or stops with an error; with the line at which it stopped.
    """
    if not callable(function):
        raise NotYet(f"the answer should be a function, and it is of type {type(function).__name__}")
    given = [each if isinstance(each, np.random.Generator) else copy.deepcopy(each) for each in arguments]
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            result = function(*given)
    except Exception as error:
        raise NotYet(
            f"your function stopped with {type(error).__name__}: {error}{_place(function, error)}"
        ) from None
    if result is None:
        raise NotYet("your function gave None: does it end with `return`?")
    return result


def call_for_number(function: object, *arguments: object) -> float:
    """The number that the reader's function gives.

    Raises:
        NotYet: as for ``call``, or if it gives no single number.
    """
    return as_number(call(function, *arguments), "what your function gives")


def call_for_array(function: object, *arguments: object, shape: tuple[int, ...]) -> np.ndarray:
    """The array of that shape that the reader's function gives, in floats.

    Raises:
        NotYet: as for ``call``, or if it gives something else.
    """
    result = call(function, *arguments)
    try:
        array = np.asarray(result, dtype=float)
    except (TypeError, ValueError):
        raise NotYet(f"your function should give numbers, and it gives {type(result).__name__}") from None
    if array.shape != shape:
        raise NotYet(
            f"your function should give an array of shape {shape}, and it gives one of {array.shape}"
        )
    return array


def _place(function: Callable[..., object], error: Exception) -> str:
    """Line of the reader's own code at which it stopped; "" where it never began."""
    own = getattr(getattr(function, "__code__", None), "co_filename", None)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
    if not frames:
        return ""
    return f" (line {frames[-1].lineno} of its cell{f': {frames[-1].line}' if frames[-1].line else ''})"
