"""Alternative text: what a figure shows, in words and numbers taken from the data that it draws."""

from __future__ import annotations

from collections.abc import Iterable
from typing import SupportsFloat

import numpy as np
from matplotlib.figure import Figure


def number(value: SupportsFloat) -> str:
    """The value in three significant digits with a true minus sign; "undefined" where it is not finite."""
    if not np.isfinite(value):
        return "undefined"
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "0" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def with_interval(value: SupportsFloat, low: SupportsFloat, high: SupportsFloat) -> str:
    """A value and its interval, as ``0.5 [0.4 to 0.6]``; the value alone where there is no interval."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return number(value)
    return f"{number(value)} [{number(low)} to {number(high)}]"


def value_range(values: Iterable[SupportsFloat]) -> str:
    """Smallest and largest finite value, as ``from a to b``."""
    finite = [float(value) for value in values if np.isfinite(value)]
    return f"from {number(min(finite))} to {number(max(finite))}" if finite else "undefined"


def along(values: np.ndarray, positions: np.ndarray, *, axis: str = "layer") -> str:
    """A curve in words: first, last, lowest and highest value with positions, how many are undefined."""
    values, positions = np.asarray(values, float), np.asarray(positions)
    defined = np.flatnonzero(np.isfinite(values))
    if defined.size == 0:
        return "undefined everywhere"
    marks = [
        defined[0],
        defined[-1],
        defined[np.argmin(values[defined])],
        defined[np.argmax(values[defined])],
    ]
    names = [f"at {axis}", f"at {axis}", f"lowest at {axis}", f"highest at {axis}"]
    parts = [
        f"{number(values[mark])} {name} {positions[mark]}" for mark, name in zip(marks, names, strict=True)
    ]
    n_missing = values.size - defined.size
    gap = f", undefined at {n_missing} of {values.size}" if n_missing else ""
    return ", ".join(dict.fromkeys(parts)) + gap


def with_alt(figure: Figure, text: str) -> Figure:
    """The same figure, carrying the text as its alternative text (white space joined to single blanks)."""
    figure.set_label(" ".join(text.split()))
    return figure


def describe(figure: Figure) -> str:
    """The alternative text of a figure made by this package.

    Raises:
        ValueError: if the figure carries none.
    """
    text = figure.get_label()
    if not text:
        raise ValueError("the figure has no alternative text: give it one with with_alt(figure, text)")
    return str(text)
