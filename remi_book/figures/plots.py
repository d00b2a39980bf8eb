"""Plots of tidy tables (curves, rows of dots, bars, points, scatter, matrix), and the parts they are made of."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, SupportsFloat

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from remi_book.figures.style import (
    ALL_LOOKS,
    BACKGROUND,
    NULL_COLOUR,
    Look,
    along,
    handle,
    legend_below,
    looks_of,
    new_figure,
    number,
    styled,
    value_range,
    visible_token,
    with_alt,
    with_interval,
)
from remi_core.errors import UsageError
from remi_lab.presets import in_order
from remi_lab.strict import read_yaml

# Checks and look-ups on the tidy tables that figures draw: one row an estimate, its interval beside it.

Where = Mapping[str, str | int]
"""Column names and the values asked for."""


def require_columns(table: pd.DataFrame, columns: Sequence[str], *, place: str) -> None:
    """Check that a table has rows, and these columns.

    Raises:
        UsageError: naming the missing columns and those present, or that the table has no row.
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise UsageError(f"{place}: missing columns {missing}; the table has {list(table.columns)}")
    if table.empty:
        raise UsageError(f"{place}: the table has no rows")


def select(table: pd.DataFrame, where: Where) -> pd.DataFrame:
    """The rows whose columns equal the given values."""
    keep = np.ones(len(table), dtype=bool)
    for column, value in where.items():
        keep &= (table[column] == value).to_numpy()
    return table[keep]


def one_row(table: pd.DataFrame, where: Where) -> pd.Series | None:
    """The single row with these values, or None where the table has none.

    Raises:
        UsageError: if several rows match, since only one of them could be drawn.
    """
    rows = select(table, where)
    if len(rows) > 1:
        raise UsageError(f"{len(rows)} rows for {dict(where)}; a figure draws one estimate a place")
    return rows.iloc[0] if len(rows) else None


def ends_of(columns: Collection[str], value: str) -> list[str]:
    """Columns of a value's interval: ``value_low`` and ``value_high``, or plain ``low`` and ``high``."""
    return [f"{value}_low", f"{value}_high"] if f"{value}_low" in columns else ["low", "high"]


def interval_of(row: pd.Series, value: str) -> tuple[float, float, float]:
    """Value, lower and upper end from the value's column and those of ``ends_of``; NaN for ends that are not there."""
    low, high = ends_of(row.index, value)
    return float(row[value]), float(row.get(low, np.nan)), float(row.get(high, np.nan))


# Drawing shared by several figures: dots with intervals, curves with bands, nulls, scatters.

MOST_VECTOR_POINTS = 1500
DIVERGING, SEQUENTIAL = "RdBu_r", "cividis"


def mark_value(axes: Axes, value: float | int, label: str, *, vertical: bool = True) -> None:
    """Draw a thin reference line across the panel, its meaning written above, or at the right."""
    line = axes.axvline if vertical else axes.axhline
    line(value, color="#777777", linewidth=0.8, zorder=0.5)
    place = (value, 1) if vertical else (1, value)
    coordinates = ("data", "axes fraction") if vertical else ("axes fraction", "data")
    shift, align = ((0, 2), ("center", "bottom")) if vertical else ((3, 0), ("left", "center"))
    text = axes.annotate(label, place, xycoords=coordinates, xytext=shift, textcoords="offset points")
    text.set(ha=align[0], va=align[1], fontsize=8, color="#555555")


def limit_to_estimates(axes: Axes, table: pd.DataFrame, *, include: tuple[float | int, ...]) -> None:
    """Set y limits that show every ``value`` of a table and cut ends (low, high) more than half that range away.

    A ratio with a small denominator has intervals that would flatten every curve; the cut is visible,
    since the band then runs into the edge of the panel.
    """
    values, ends = table["value"].to_numpy(), table[["low", "high"]].to_numpy()
    finite = np.concatenate([values[np.isfinite(values)], np.asarray(include, float)])
    low, high = finite.min(), finite.max()
    room = 0.5 * (high - low) + 1e-9
    ends = ends[np.isfinite(ends)]
    bottom = max(low - room, min([low, *ends]))
    top = min(high + room, max([high, *ends]))
    margin = 0.05 * (top - bottom)
    axes.set_ylim(bottom - margin, top + margin)


def band(axes: Axes, positions: np.ndarray, interval: np.ndarray, colour: str, *, null: bool = False) -> None:
    """Draw a filled interval along the positions, absent where an end is not finite."""
    low, high = np.asarray(interval, float).T
    defined = np.isfinite(low) & np.isfinite(high)
    axes.fill_between(
        positions,
        low,
        high,
        where=defined,
        color=colour,
        alpha=0.35 if null else 0.16,
        linewidth=0,
        zorder=0.8 if null else 1,
    )
    # A defined layer between two gaps has no width to fill: a bar keeps its interval visible.
    neighbours = np.concatenate([[False], defined, [False]])
    alone = defined & ~neighbours[:-2] & ~neighbours[2:]
    axes.vlines(np.asarray(positions)[alone], low[alone], high[alone], color=colour, linewidth=1.6, alpha=0.5)


def curve(
    axes: Axes,
    positions: np.ndarray,
    values: np.ndarray,
    look: Look,
    *,
    marked: Literal["all", "last"] = "all",
) -> None:
    """Draw a line with markers that breaks where the value is not finite."""
    axes.plot(
        positions,
        values,
        color=look.colour,
        linestyle=look.line_style,
        marker=look.marker,
        markevery=None if marked == "all" else [-1],
        markersize=3.8,
        linewidth=1.4,
        zorder=3,
    )


def seed_dots(axes: Axes, values: Iterable[SupportsFloat], height: float | int, colour: str) -> None:
    """Draw one small open dot for each seed on a row, hollow so that its interval stays visible."""
    places = np.asarray(list(values), float)
    axes.scatter(
        places,
        np.full(len(places), float(height)),
        s=9,
        facecolors=BACKGROUND,
        edgecolors=colour,
        linewidths=0.8,
        zorder=2.8,
    )


def integer_ticks(axes: Axes, positions: np.ndarray, *, most: int = 9) -> None:
    """Set ticks on layers that exist, thinned evenly where there are many."""
    positions = np.unique(positions)
    step = int(np.ceil(len(positions) / most))
    axes.set_xticks(positions[::step])


def dot_rows(
    axes: Axes,
    table: pd.DataFrame,
    value: str,
    *,
    rows: tuple[str, Sequence[str]],
    looks: Mapping[str, Look],
    seeds: pd.DataFrame | None = None,
    lines: str = "variant",
    spread: float | int = 0.7,
    parted: bool = True,
    named: bool = True,
) -> list[str]:
    """A phrase for each row drawn: a row for each category, in it a dot with interval for each of ``lines``.

    ``rows`` is the column that holds the category and the categories from top to bottom; the table has
    columns ``lines``, ``value`` and its interval columns; where ``lines`` is that column itself, a row has the one
    dot of its category. ``seeds`` gives a small open dot each. ``spread`` is the distance of the outer dots of a row;
    ``parted`` draws a faint line between rows, ``named`` says in the phrases which of ``lines`` a value is of.
    """
    column, categories = rows
    last = len(looks) - 1
    cells = [
        (category, name, look, position + (-spread / 2 + spread * place / last if last else 0.0))
        for position, category in enumerate(categories)
        for place, (name, look) in enumerate(looks.items())
        if column != lines or name == category
    ]
    if seeds is not None:
        for category, name, look, height in cells:
            seed_dots(axes, select(seeds, {column: category, lines: name})[value], height, look.colour)
    drawn: dict[str, list[str]] = {category: [] for category in categories}
    for category, name, look, height in cells:
        row = one_row(table, {column: category, lines: name})
        if row is None:
            continue
        estimate, low, high = interval_of(row, value)
        if set(ends_of(table.columns, value)) <= set(table.columns):
            axes.hlines(height, low, high, color=look.colour, linewidth=1.5, zorder=2.5)
        axes.plot([estimate], [height], look.marker, color=look.colour, markersize=5, zorder=3)
        drawn[category].append(f"{name if named else ''} {with_interval(estimate, low, high)}".lstrip())
    axes.set_yticks(range(len(categories)), categories)
    axes.set_ylim(len(categories) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    if parted:
        across = axes.get_yaxis_transform()
        between = np.arange(0.5, len(categories) - 1)
        axes.hlines(between, 0, 1, transform=across, color="#dddddd", linewidth=0.6, zorder=0.2)
    return [f"{category}: {', '.join(said) or 'no value'}" for category, said in drawn.items()]


# The plots: each draws a tidy table, one row an estimate, over the panels that a layout describes.

Worded = str | Mapping[object, str]
"""Words for each facet: a text in which {} stands for its value, or the text of every value."""

CEILING_COLOUR = "#c9b458"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What stands around the data of a figure: panels, axes, reference lines, null bands and words."""

    about: str
    """Opens the alternative text, without its full stop."""
    rows: str = ""
    """Column of the table whose values are rows of panels; "" for a single row."""
    columns: str = ""
    """Column of the table whose values are columns of panels; "" for a single column."""
    wrap: int = 0
    """Most panels side by side where there is a single row and further ones go below; 0 for no limit."""
    title: Worded = "{}"
    """Title of each column of panels."""
    across: Worded = ""
    """Label of the horizontal axis, by column of panels."""
    up: Worded = ""
    """Label of the vertical axis, by row of panels."""
    shared: bool | Literal["row", "col"] = True
    """Which panels share the axis of the values: all, none, or those of one row or column."""
    limits: tuple[float | int, float | int] | None = None
    """Ends of the axis of the values; None where the data decide."""
    marks: Mapping[int | float, str] = field(default_factory=dict)
    """Reference lines: value → meaning, written beside it ("" for the line alone)."""
    bands: Mapping[str, str] = field(default_factory=dict)
    """Bands behind the values: ``null`` → legend entry, of columns ``null_low`` and ``null_high``; a ``ceiling``
    has a colour, all others are grey."""
    entry: str = "{}"
    """Legend entry of a line or dot; {} is its name."""
    width: float | int = 7.6
    """Of the figure, in inches."""
    height: float | int | None = None
    """Of a row of panels, or of a row of dots, in inches; None where the plot decides."""


def layouts(*names: str) -> list[Layout]:
    """The layouts of these names in ``layouts.yaml``."""
    declared = read_yaml(Path(__file__).with_name("layouts.yaml"), dict[str, Layout])
    return [declared[name] for name in names]


@dataclass(frozen=True, eq=False)
class Panel:
    """One panel of a figure and the parts of the tables that it shows."""

    axes: Axes
    name: str
    """Its facets, in words."""
    table: pd.DataFrame
    seeds: pd.DataFrame | None


def values_in(table: pd.DataFrame, column: str) -> list:
    """The different values of a column, as first met; variants in the one order."""
    values = list(dict.fromkeys(table[column]))
    return in_order(values) if all(value in ALL_LOOKS for value in values) else values


def facets(
    table: pd.DataFrame,
    layout: Layout,
    *,
    heights: Sequence[float | int],
    seeds: pd.DataFrame | None = None,
    values: Literal["x", "y"] = "y",
    apart: bool = False,
) -> tuple[Figure, list[Panel]]:
    """An empty figure with its labelled panels, in reading order.

    ``heights`` are those of the rows of panels in inches, one for all or one each. ``values`` is the axis that
    ``layout.shared`` is about; the other one is shared by all panels, or by those of one row where it is vertical,
    or, with ``apart``, by none.
    """
    rows = values_in(table, layout.rows) if layout.rows else [""]
    columns = values_in(table, layout.columns) if layout.columns else [""]
    n_across = min(layout.wrap or len(columns), len(columns))
    n_down = len(rows) * -(-len(columns) // n_across)
    heights = list(heights) if len(heights) == n_down else list(heights) * n_down
    upright = values == "x"
    figure = new_figure(layout.width, 1.2 + sum(heights))
    grid = figure.subplots(
        n_down,
        n_across,
        squeeze=False,
        height_ratios=heights,
        sharex=layout.shared if upright else not apart,
        sharey=layout.shared if not upright else False if apart else "row",
    )
    panels = []
    for axes, (row, column) in zip(grid.flat, itertools.product(rows, columns), strict=False):
        where = {name: value for name, value in ((layout.rows, row), (layout.columns, column)) if name}
        dots = None if seeds is None else select(seeds, {key: where[key] for key in where if key in seeds})
        panels.append(Panel(axes, ", ".join(map(str, where.values())), select(table, where), dots))
        if row == rows[0] and layout.columns:
            axes.set_title(_word(layout.title, column))
        for value, meaning in layout.marks.items():
            named = row == rows[0] if upright else column == columns[-1]
            mark_value(axes, value, meaning if named else "", vertical=upright)
        if layout.limits:
            axes.set(**{f"{values}lim": layout.limits})
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for place, panel in enumerate(panels):
        if place + n_across >= len(panels):  # the lowest of its column that is shown
            panel.axes.set_xlabel(_word(layout.across, columns[place % len(columns)]))
            panel.axes.tick_params(labelbottom=True)
    for place, axes in enumerate(grid[:, 0]):
        axes.set_ylabel(_word(layout.up, rows[min(place, len(rows) - 1)]))
    return figure, panels


def _check(table: pd.DataFrame, layout: Layout, *columns: str) -> None:
    """Check that a table has these columns and those of the layout."""
    names = [layout.rows, layout.columns, *columns]
    names += [f"{name}_{end}" for name in layout.bands for end in ("low", "high")]
    require_columns(table, [name for name in names if name], place=layout.about)


def _shown_bands(table: pd.DataFrame, layout: Layout) -> Layout:
    """The layout without bands of which the table has no end: what is not drawn is not in the legend."""
    shown = {
        name: label
        for name, label in layout.bands.items()
        if np.isfinite(table[[f"{name}_low", f"{name}_high"]].to_numpy(float)).any()
    }
    return replace(layout, bands=shown)


def _word(words: Worded, value: object) -> str:
    return words.format(value) if isinstance(words, str) else words[value]


def finish(
    figure: Figure, layout: Layout, looks: Mapping[str, Look], phrases: Iterable[str], *, line: bool = False
) -> Figure:
    """The figure with its legend (looks, then bands) below, and what it shows as alternative text."""
    entries = [
        handle(look, label=layout.entry.format(name), line=line) for name, look in looks.items() if name
    ]
    for name, label in layout.bands.items():
        entries.append(Patch(facecolor=_band_colour(name), alpha=0.45, label=label))
    if entries:
        legend_below(figure, entries)
    return with_alt(figure, f"{layout.about}. {'. '.join(phrases)}.")


def _band_colour(name: str) -> str:
    return CEILING_COLOUR if name == "ceiling" else NULL_COLOUR


def _band_words(rows: pd.DataFrame, layout: Layout) -> list[str]:
    """The range of each band, in words."""
    ends = {label: rows[[f"{name}_low", f"{name}_high"]].to_numpy() for name, label in layout.bands.items()}
    return [
        f"{label}: {value_range(limits.ravel())}"
        for label, limits in ends.items()
        if np.isfinite(limits).any()
    ]


@styled
def plot_curves(
    table: pd.DataFrame,
    layout: Layout,
    *,
    lines: str = "variant",
    position: str = "layer",
    value: str = "value",
    seeds: pd.DataFrame | None = None,
    marked: Literal["all", "last"] = "all",
) -> Figure:
    """Lines along a position, with interval bands if known; a gap where a value is not finite, a dot for each seed.

    ``table`` has the facets of the layout, ``lines``, ``position``, ``value``, perhaps its ends (see ``ends_of``),
    and the ends of the layout's bands; ``seeds`` the same without ends. ``marked`` are the points with a marker.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    _check(table, layout, lines, position, value)
    layout = _shown_bands(table, layout)
    looks = looks_of(values_in(table, lines))
    figure, panels = facets(table, layout, heights=[layout.height or 1.9], seeds=seeds)
    options = {"lines": lines, "position": position, "value": value, "marked": marked}
    phrases = [phrase for panel in panels for phrase in draw_curves(panel, layout, looks, **options)]
    return finish(figure, layout, {} if lines in (layout.rows, layout.columns) else looks, phrases, line=True)


def draw_curves(
    panel: Panel,
    layout: Layout,
    looks: Mapping[str, Look],
    *,
    lines: str = "variant",
    position: str = "layer",
    value: str = "value",
    marked: Literal["all", "last"] = "all",
) -> list[str]:
    """A phrase for each curve and band of a panel, after drawing them."""
    axes, ends, phrases = panel.axes, ends_of(panel.table.columns, value), []
    for name in layout.bands:
        rows = panel.table.drop_duplicates(position).sort_values(position)
        limits = rows[[f"{name}_low", f"{name}_high"]].to_numpy()
        band(axes, rows[position].to_numpy(), limits, _band_colour(name), null=True)
    for name, look in looks.items():
        rows = select(panel.table, {lines: name}).sort_values(position)
        if rows.empty:
            continue
        places, heights = rows[position].to_numpy(), rows[value].to_numpy()
        if set(ends) <= set(rows.columns):
            band(axes, places, rows[ends].to_numpy(), look.colour)
        if panel.seeds is not None and name in set(panel.seeds[lines]):
            # Small dots, as round line ends on one path: as markers, hundreds of them would fill the file.
            dots = select(panel.seeds, {lines: name})
            across = np.add.outer(dots[position].to_numpy(float), [-1e-3, 1e-3, np.nan]).ravel()
            ups = np.repeat(dots[value].to_numpy(float), 3)
            style = {"linewidth": 2.6, "alpha": 0.5, "solid_capstyle": "round", "zorder": 2}
            axes.plot(across, ups, color=look.colour, **style)
        curve(axes, places, heights, look, marked=marked)
        # A line that is itself a facet is named once.
        title = ", ".join(text for text in dict.fromkeys([*panel.name.split(", "), str(name)]) if text)
        phrases.append(f"{title}: {along(heights, places, axis=position)}")
    integer_ticks(axes, panel.table[position].to_numpy())
    return phrases + _band_words(panel.table, layout)


@styled
def plot_rows(
    table: pd.DataFrame,
    layout: Layout,
    *,
    by: str = "dataset",
    lines: str = "variant",
    value: str = "value",
    seeds: pd.DataFrame | None = None,
    spread: float | int = 0.7,
) -> Figure:
    """Dots with intervals, a row for each value of ``by``, in it one for each of ``lines``; open dots are seeds.

    ``table`` has the facets of the layout, ``by``, ``lines`` ("" where a row has a single dot), ``value``, perhaps its
    ends (see ``ends_of``), and the ends of the layout's bands; ``seeds`` the same without ends. Panels of one row
    share their categories. A value that is not finite leaves its place empty; ``spread`` is the distance of the
    outer dots of a row, within its height of 1.

    Raises:
        UsageError: if a column is missing, the table is empty, or two rows have one place.
    """
    _check(table, layout, by, lines, value)
    layout = _shown_bands(table, layout)
    if not lines:
        # One look for all: a column whose only value is no name.
        table, seeds = (frame if frame is None else frame.assign(**{"": ""}) for frame in (table, seeds))
    looks = looks_of(values_in(table, lines))
    groups = values_in(table, layout.rows) if layout.rows else [None]
    categories = [
        values_in(table if group is None else select(table, {layout.rows: group}), by) for group in groups
    ]
    each = layout.height or (0.3 if lines in (by, layout.columns) else 0.2 + 0.07 * len(looks))
    figure, panels = facets(
        table, layout, heights=[each * len(names) for names in categories], seeds=seeds, values="x"
    )
    phrases, named = [], len(looks) > 1 and lines not in (by, layout.rows, layout.columns)
    for place, panel in enumerate(panels):
        names = categories[place * len(categories) // len(panels)]
        own = {name: look for name, look in looks.items() if name in set(panel.table[lines])}
        bands = panel.table.drop_duplicates(by).set_index(by).reindex(names)
        for name in layout.bands:
            for position, (low, high) in enumerate(bands[[f"{name}_low", f"{name}_high"]].to_numpy()):
                if np.isfinite(low) and np.isfinite(high):
                    # The edge keeps a null of almost no width visible.
                    style = {"facecolor": _band_colour(name), "edgecolor": _band_colour(name), "linewidth": 1}
                    ends = position - 0.36, position + 0.36
                    panel.axes.fill_between([low, high], *ends, alpha=0.35, zorder=0.8, **style)
        drawn = dot_rows(
            panel.axes,
            panel.table,
            value,
            rows=(by, names),
            looks=own,
            seeds=panel.seeds,
            lines=lines,
            spread=0.0 if by == lines else spread,
            parted=named and spread > 0.5,  # dots that fill their row need a line to the next one
            named=lines not in (by, layout.columns),
        )
        words = [
            "; ".join([phrase, *_band_words(bands.loc[[name]], layout)])
            for name, phrase in zip(names, drawn, strict=True)
        ]
        phrases.append(f"{panel.name} – {'; '.join(words)}" if panel.name else "; ".join(words))
    return finish(figure, layout, looks if named else {}, phrases)


@styled
def plot_bars(
    table: pd.DataFrame,
    layout: Layout,
    *,
    by: str = "token",
    value: str = "probability",
    marked: Collection[str] = (),
) -> Figure:
    """Bars from top to bottom, a panel for each variant or group in the layout's columns, with intervals if known.

    ``table`` has the layout's columns, ``by``, ``value`` and perhaps its ends; each panel has its own bars, in the
    order of the table. Blanks in ``by`` are shown as signs, so that different tokens never share a label; those in
    ``marked`` are hatched.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    _check(table, layout, by, value)
    looks = looks_of(values_in(table, layout.columns))
    deepest = int(table[layout.columns].value_counts().max())
    figure, panels = facets(table, layout, heights=[0.2 * deepest], values="x", apart=True)
    phrases = []
    for panel, look in zip(panels, looks.values(), strict=True):
        axes, values = panel.axes, panel.table[value].to_numpy(float)
        names = [visible_token(name) for name in panel.table[by]]
        bars = axes.barh(range(len(values)), values, color=look.colour, height=0.72)
        for bar, name in zip(bars, panel.table[by], strict=True):
            bar.set_hatch("////" if name in marked else None)
        ends = ends_of(table.columns, value)
        if set(ends) <= set(table.columns):
            axes.hlines(
                range(len(values)), *panel.table[ends].to_numpy(float).T, color="#777777", linewidth=1.6
            )
        axes.set_yticks(range(len(values)), names)
        axes.set_ylim(deepest - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.title.set_color(look.colour)
        words = (f"“{name}” {number(height)}" for name, height in zip(names, values, strict=True))
        phrases.append(f"{panel.name}: {', '.join(words)}")
    if marked:
        phrases.append(f"Hatched where shown: {', '.join(visible_token(name) for name in marked)}")
    return finish(figure, layout, {}, phrases)


MOST_NAMED = 12
"""Points of one look in a panel up to which the alternative text gives every one, and beyond it their range."""


@styled
def plot_points(
    table: pd.DataFrame,
    layout: Layout,
    *,
    axes: tuple[str, str],
    lines: str = "variant",
    joined: bool = False,
    seeds: pd.DataFrame | None = None,
) -> Figure:
    """Points on two axes, a panel for each facet and a look for each of ``lines``, with both intervals if known.

    ``table`` has the facets of the layout, ``lines`` and both ``axes``, perhaps with _low and _high; ``seeds``, open
    dots, the same without ends. ``joined`` draws lines through the points in the order of the table. Panels share
    their horizontal axis where the layout shares the vertical one and all have one label.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    _check(table, layout, lines, *axes)
    looks, (across, up) = looks_of(values_in(table, lines)), axes
    apart = layout.shared is not True or isinstance(layout.across, Mapping)
    figure, panels = facets(table, layout, heights=[layout.height or 2.0], seeds=seeds, apart=apart)
    phrases = []
    for panel in panels:
        for name, look in looks.items():
            if panel.seeds is not None:
                dots = select(panel.seeds, {lines: name})
                style = {"mfc": BACKGROUND, "mec": look.colour, "markersize": 3.5, "linestyle": "none"}
                panel.axes.plot(dots[across], dots[up], look.marker, **style)
            rows = select(panel.table, {lines: name})
            if rows.empty:
                continue
            for draw, along_axis, other in (
                (panel.axes.hlines, across, up),
                (panel.axes.vlines, up, across),
            ):
                ends = [f"{along_axis}_low", f"{along_axis}_high"]
                if set(ends) <= set(rows.columns):
                    draw(rows[other], *rows[ends].to_numpy(float).T, color=look.colour, linewidth=1.2)
            style = {"color": look.colour, "marker": look.marker, "markersize": 5, "linewidth": 1.2}
            panel.axes.plot(rows[across], rows[up], linestyle=look.line_style if joined else "none", **style)
            parts = [f"{column} {value_range(rows[column])}" for column in axes]
            if len(rows) <= MOST_NAMED:
                parts = [
                    " and ".join(f"{column} {with_interval(*interval_of(row, column))}" for column in axes)
                    for _, row in rows.iterrows()
                ]
            title = ", ".join(filter(None, (panel.name, str(name))))
            phrases.append(f"{title}: {'; '.join(parts)}")
    return finish(figure, layout, looks, phrases, line=joined)


@styled
def plot_scatter(
    table: pd.DataFrame,
    layout: Layout,
    *,
    axes: tuple[str, str] = ("component 1", "component 2"),
    shares: Sequence[float] | Float[np.ndarray, " 2"] = (1.0, 1.0),
    colours: str = "group",
    hollow: str = "",
) -> Figure:
    """Points on two axes, one colour and marker for each value of ``colours``; the second of ``hollow`` is open.

    ``shares`` are the parts of the variance on the axes, for the {} of their labels. The points are drawn as pixels
    where there are too many for a small file.

    Raises:
        UsageError: if a column is missing, the table is empty, or ``hollow`` has more than two values.
    """
    require_columns(table, [*axes, colours, *([hollow] if hollow else [])], place=layout.about)
    kinds = values_in(table, hollow) if hollow else [""]
    if len(kinds) > 2:
        raise UsageError(f"{len(kinds)} groups; this figure shows two, filled and open: {kinds}")
    figure = new_figure(layout.width, layout.height or 4.2)
    panel, entries, phrases = figure.subplots(), [], []
    for name, look in looks_of(values_in(table, colours)).items():
        for place, kind in enumerate(kinds):
            points = select(table, {colours: name} | ({hollow: kind} if hollow else {}))[
                list(axes)
            ].to_numpy()
            if not len(points):
                continue
            panel.scatter(
                *points.T,
                s=13,
                marker=look.marker,
                linewidths=0.8,
                alpha=0.7,
                facecolors="none" if place == 1 else look.colour,
                edgecolors=look.colour,
                rasterized=len(points) > MOST_VECTOR_POINTS,
            )
            title = ", ".join(word for word in (name, kind) if word)
            entries.append(handle(look, label=title))
            entries[-1].set_markerfacecolor("none" if place == 1 else look.colour)
            middle = " and ".join(map(number, np.nanmean(points, axis=0)))
            phrases.append(f"{title} ({len(points)} points), mean position {middle}")
    names = [
        _word(words, f"{share:.0%}") for words, share in zip((layout.across, layout.up), shares, strict=True)
    ]
    panel.set(xlabel=names[0], ylabel=names[1])
    panel.axhline(0, color="#cccccc", linewidth=0.7, zorder=0.5)
    panel.axvline(0, color="#cccccc", linewidth=0.7, zorder=0.5)
    legend_below(figure, entries, n_columns=len(kinds) if hollow else None)
    return with_alt(figure, f"{layout.about}: {' and '.join(names)}. {'; '.join(phrases)}.")


def heat_map(
    axes: Axes,
    matrix: pd.DataFrame,
    *,
    ends: tuple[float | int, float | int],
    colours: str,
    written: bool = False,
) -> QuadMesh:
    """The cells of a matrix, drawn by seaborn with the names of its rows and columns; missing ones stay empty.

    ``ends`` are the values of the scale's first and last colour; ``written`` writes each value into its cell.
    """
    import seaborn  # takes a second, which only pages with a matrix should wait for

    values = matrix.to_numpy(float)
    texts = np.vectorize(lambda value: f"{value:.2f}".replace("-", "\N{MINUS SIGN}"), otypes=[object])(values)
    seaborn.heatmap(
        matrix,
        ax=axes,
        vmin=ends[0],
        vmax=ends[1],
        cmap=colours,
        annot=texts if written else False,
        fmt="",
        annot_kws={"fontsize": 8.5},
        cbar=False,
        xticklabels=True,
        yticklabels=True,
    )
    axes.set(xlabel="", ylabel="")
    axes.tick_params(length=0, labelrotation=0)
    return axes.collections[0]


@styled
def plot_matrix(
    matrix: pd.DataFrame, layout: Layout, *, label: str, ends: tuple[float | int, float | int] | None = None
) -> Figure:
    """Heat map of a matrix with every value written in; ``label`` names the values and their unit.

    ``ends`` are the values of the scale's ends, by default the lowest and the highest; a scale across 0 is centred
    there by its caller.
    """
    ends = ends or (float(np.nanmin(matrix)), float(np.nanmax(matrix)))
    n_rows, n_columns = matrix.shape
    width = layout.width if layout.height else 1.9 + 0.62 * n_columns
    figure = new_figure(width, layout.height or 1.2 + 0.48 * n_rows)
    axes = figure.subplots()
    cells = heat_map(axes, matrix, ends=ends, colours=DIVERGING if ends[0] < 0 else SEQUENTIAL, written=True)
    axes.set(xlabel=_word(layout.across, ""), ylabel=_word(layout.up, ""))
    figure.colorbar(cells, ax=axes, label=label)
    rows = (
        f"{name}: {', '.join(map(number, values))}"
        for name, values in zip(matrix.index, matrix.to_numpy(), strict=True)
    )
    return with_alt(figure, f"{layout.about}. {'; '.join(rows)}.")


@styled
def plot_grouped_matrices(
    matrices: Mapping[str, Float[np.ndarray, "row row"]], groups: Sequence[str], *, about: str
) -> Figure:
    """Heat maps of cosines side by side, rows sorted by group, diagonal left blank, each block's mean written in.

    ``groups`` names the group of each row. All have one colour scale, centred on 0 where there are values below.

    Raises:
        UsageError: if the rows of a group are not adjacent, or the groups do not name every row.
    """
    names, labels = list(dict.fromkeys(groups)), np.asarray(groups)
    spans = {name: np.flatnonzero(labels == name) for name in names}
    for name, rows in spans.items():
        if rows[-1] - rows[0] + 1 != len(rows):
            raise UsageError(f"the rows of group {name!r} are not adjacent: sort rows and columns by group")
    # The cosine of a row with itself is 1 by definition, and would set the scale.
    shown = {title: np.where(np.eye(len(matrix)), np.nan, matrix) for title, matrix in matrices.items()}
    if any(len(matrix) != len(groups) for matrix in shown.values()):
        raise UsageError(
            f"{len(groups)} group labels for matrices of {[len(each) for each in shown.values()]} rows"
        )
    lowest, highest = (float(end(list(shown.values()))) for end in (np.nanmin, np.nanmax))
    limit = max(-lowest, highest)
    norm = Normalize(-limit, limit) if lowest < 0 else Normalize(lowest, highest)
    several, phrases = len(matrices) > 1, []
    figure = new_figure(7.6 if several else 5.6, 4.0 if several else 4.6)
    panels = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axes, (title, matrix) in zip(panels, shown.items(), strict=True):
        # An image: as cells of a vector graphic, thousands of them would fill the file.
        image = axes.imshow(
            np.ma.masked_invalid(matrix), cmap=DIVERGING if lowest < 0 else SEQUENTIAL, norm=norm
        )
        words = []
        for down, across in itertools.product(names, names):
            block = matrix[np.ix_(spans[down], spans[across])]
            mean = number(np.nanmean(block)) if np.isfinite(block).any() else number(np.nan)
            box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "alpha": 0.85, "linewidth": 0}
            middle = (spans[across].mean(), spans[down].mean())
            axes.text(*middle, mean, ha="center", va="center", fontsize=8.5, bbox=box)
            if names.index(down) <= names.index(across):
                words.append(f"{f'within {down}' if down == across else f'{down} with {across}'} {mean}")
        for name in names[1:]:
            for line in (axes.axhline, axes.axvline):
                line(spans[name][0] - 0.5, color="black", linewidth=1)
        middles = [rows.mean() for rows in spans.values()]
        axes.set_xticks(middles, names)
        axes.set_yticks(middles, names, rotation=90, va="center")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(f"{title}, mean of each block written in")
        phrases.append(f"{title}: mean {', '.join(words)}; entries {value_range(matrix.ravel())}")
    where = {"location": "bottom", "shrink": 0.5, "aspect": 30} if several else {"shrink": 0.85}
    figure.colorbar(image, ax=list(panels), label="cosine (no unit)", **where)
    return with_alt(figure, f"{about}. {'. '.join(phrases)}.")
