"""The look of figures: colours and marks of variants, numbers, alternative text."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, SupportsFloat, TypeVar

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font
from matplotlib.lines import Line2D

from remi_core.errors import UsageError, nearest
from remi_lab.strict import read_yaml

# Alternative text: what a figure shows, in words and numbers taken from the data that it draws.


RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: SupportsFloat) -> str:
    """The value in three significant digits with a true minus sign; "undefined" where it is not finite.

    Below a ten-thousandth it is written with a power of ten, as in 2.5 × 10⁻⁵.
    """
    if not np.isfinite(value):
        return "undefined"
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    digits, _, power = text.partition("e")
    tail = f" \N{MULTIPLICATION SIGN} 10{str(int(power)).translate(RAISED)}" if power else ""
    return "0" if float(text) == 0 else digits.replace("-", "\N{MINUS SIGN}") + tail


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
    marks = {
        f"at {axis}": (defined[0], defined[-1]),
        f"lowest at {axis}": (defined[np.argmin(values[defined])],),
        f"highest at {axis}": (defined[np.argmax(values[defined])],),
    }
    parts = [
        f"{number(values[place])} {name} {positions[place]}"
        for name, places in marks.items()
        for place in places
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


# How every figure looks: one colour, marker and line style a variant, and settings for identical output.

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Look:
    """How one variant, or one group, is drawn wherever it appears."""

    colour: str
    marker: str
    line_style: str | tuple[int, tuple[float | int, ...]]
    """A matplotlib line style: a name, or (offset, dash lengths in points)."""


BACKGROUND = "#fdfdfd"
"""Solid and nearly white: the page's dark mode shows the figure on a light box."""
INK = "#222222"
NULL_COLOUR = "#9a9a9a"
"""Grey bands and blocks are statistical nulls and floors, and nothing else is."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """What ``style.yaml`` says: looks of variants and groups, and settings of matplotlib."""

    looks: Mapping[str, Look]
    further: Mapping[str, Look]
    groups: tuple[Look, ...]
    settings: Mapping[str, str | bool | float | int | tuple[str, ...]]


_STYLE = read_yaml(Path(__file__).with_suffix(".yaml"), Style)
LOOKS: Mapping[str, Look] = _STYLE.looks
"""Look of each variant, in the order of ``VARIANTS``."""
FURTHER_LOOKS: Mapping[str, Look] = _STYLE.further
"""Look of each further variant, in the order of ``FURTHER``."""
ALL_LOOKS: dict[str, Look] = {**LOOKS, **FURTHER_LOOKS}
GROUP_LOOKS: tuple[Look, ...] = _STYLE.groups
"""Looks of data sets or other groups in the order given; no colour of a variant is among them."""
FACES = ("figure.facecolor", "savefig.facecolor", "axes.facecolor")
SETTINGS: Mapping[str, object] = {**_STYLE.settings, **dict.fromkeys(FACES, BACKGROUND)}


def take_looks(variants: Sequence[str]) -> None:
    """Give each variant of a preset that is no role a look, the same in every figure of this process.

    They are those of the further variants which the preset does not have, in order.

    Raises:
        UsageError: if there are more such variants than looks.
    """
    free = [look for name, look in FURTHER_LOOKS.items() if name not in variants]
    named = [name for name in variants if name not in LOOKS and name not in FURTHER_LOOKS]
    if len(named) > len(free):
        raise UsageError(
            f"{len(named)} variants that are no role, but figures can tell only {len(free)} apart"
        )
    ALL_LOOKS.update(zip(named, free, strict=False))


def styled(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """The same function, run with the book's settings and leaving the caller's matplotlib settings alone."""

    @functools.wraps(function)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        with matplotlib.rc_context(dict(SETTINGS)):
            return function(*arguments, **options)

    return run


def look_of(variant: str) -> Look:
    """Colour, marker and line style of a variant.

    Raises:
        UsageError: if no variant has that name.
    """
    if variant not in ALL_LOOKS:
        raise UsageError(f"no variant is called {variant!r} {nearest(variant, ALL_LOOKS)}")
    return ALL_LOOKS[variant]


def looks_of(names: list[str]) -> dict[str, Look]:
    """A look for each name: a variant's own where all are variants, else group looks in the order given.

    Raises:
        UsageError: if there are more groups than looks.
    """
    if all(name in ALL_LOOKS for name in names):
        return {name: ALL_LOOKS[name] for name in names}
    if len(names) > len(GROUP_LOOKS):
        raise UsageError(f"{len(names)} groups, but a figure can tell only {len(GROUP_LOOKS)} apart: {names}")
    return dict(zip(names, GROUP_LOOKS, strict=False))


def new_figure(width: float | int = 7.6, height: float | int = 3.2) -> Figure:
    """An empty figure of that size in inches, laid out so that labels and legends are never cut.

    It is made without pyplot: nothing is shown twice in a notebook and no global state is left behind.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.09, h_pad=0.09)
    return figure


def handle(look: Look, *, label: str, line: bool = False) -> Line2D:
    """The legend entry of a look: its marker, with its line where lines are drawn."""
    style = look.line_style if line else "none"
    return Line2D([], [], color=look.colour, marker=look.marker, linestyle=style, markersize=5, label=label)


def legend_below(figure: Figure, handles: list, *, n_columns: int | None = None) -> None:
    """Put one legend under all panels, clear of the data, in as many columns as the width holds."""
    columns = n_columns or _fitting_columns([str(one.get_label()) for one in handles], figure.get_figwidth())
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.6)


def _fitting_columns(labels: list[str], width: float) -> int:
    """Most columns, at most 6, whose longest labels fit side by side into that many inches."""
    for columns in range(min(len(labels), 6), 1, -1):
        per_column = -(-len(labels) // columns)
        longest = [max(map(len, labels[at : at + per_column])) for at in range(0, len(labels), per_column)]
        # A character of the legend's font is about 0.07 inches wide, line, marker and gaps about 0.65.
        if sum(0.07 * length + 0.65 for length in longest) <= width:
            return columns
    return 1


# Tokens as they can be read on a figure: no character stripped, merged or invisible.

VISIBLE = {" ": "\N{OPEN BOX}", "\n": "\N{RETURN SYMBOL}", "\t": "\N{RIGHTWARDS ARROW TO BAR}"}
EMPTY = "\N{EMPTY SET}"


@functools.cache
def _font() -> FT2Font:
    return FT2Font(findfont(FontProperties(family="DejaVu Sans")))


def visible_token(token: str) -> str:
    """The token with every blank, line end and tab shown as a sign, so that " kill" and "kill" differ.

    A character that the figure's font lacks is written as its code, ``\\u4e2d``; an empty token as ∅.
    """

    def visible(character: str) -> str:
        if character in VISIBLE:
            return VISIBLE[character]
        drawn = character.isprintable() and _font().get_char_index(ord(character))
        return character if drawn else character.encode("unicode_escape").decode("ascii")

    return "".join(map(visible, token)) or EMPTY
