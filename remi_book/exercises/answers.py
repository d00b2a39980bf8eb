"""Reading an answer: numbers, choices and functions of the reader, each with a message where it is something else."""

from __future__ import annotations

import copy
import math
import traceback
import warnings
from collections.abc import Callable, Collection, Mapping

import numpy as np

from remi_book.exercises.exercise import NotYet


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


def match_number(
    answer: object, truth: float, *, tolerance: float, known: Mapping[float, str], otherwise: str
) -> None:
    """Nothing, for a number within the tolerance of the truth.

    Raises:
        NotYet: for another: the message of ``known`` where it is a known mistake, else ``otherwise``.
    """
    value = as_number(answer)
    if math.isfinite(value) and abs(value - truth) <= tolerance:
        return
    for mistake, message in known.items():
        if abs(value - mistake) <= tolerance:
            raise NotYet(message)
    raise NotYet(otherwise)


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
    return {as_choice(one, options) for one in answer}


def call(function: object, *arguments: object) -> object:
    """What the reader's function gives for copies of the arguments, so that it cannot change them.

    Raises:
        NotYet: if the answer is no function, or stops with an error; with the line at which it stopped.
    """
    if not callable(function):
        raise NotYet(f"the answer should be a function, and it is of type {type(function).__name__}")
    given = [one if isinstance(one, np.random.Generator) else copy.deepcopy(one) for one in arguments]
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
