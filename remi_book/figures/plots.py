"""Parts that figures are made of: panels, curves, matrices, rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import SupportsFloat

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.image import AxesImage
from matplotlib.patches import Patch

from remi_book.figures.style import BACKGROUND, INK, NULL_COLOUR, Look, number, with_interval
from remi_core.errors import UsageError
from remi_lab.presets import in_order

# Heat maps: cosine matrices with group boundaries, small matrices with their values, colour scales.

DIVERGING = "RdBu_r"
SEQUENTIAL = "cividis"


def symmetric(limit: float) -> Normalize:
    """A colour scale centred on 0."""
    return Normalize(-limit, limit)


def off_diagonal(matrix: Float[np.ndarray, "row row"]) -> Float[np.ndarray, " entry"]:
    """The entries beside the diagonal, which for a cosine matrix is 1 by definition."""
    return matrix[~np.eye(len(matrix), dtype=bool)]


def group_spans(groups: Sequence[str]) -> dict[str, slice]:
    """The rows of each group, in the order met.

    Raises:
        UsageError: if the rows of a group are not adjacent, since a boundary could not be drawn.
    """
    labels = np.asarray(groups)
    spans = {}
    for name in dict.fromkeys(groups):
        rows = np.flatnonzero(labels == name)
        if rows[-1] - rows[0] + 1 != len(rows):
            raise UsageError(f"the rows of group {name!r} are not adjacent: sort rows and columns by group")
        spans[name] = slice(int(rows[0]), int(rows[-1]) + 1)
    return spans


def block_means(
    matrix: Float[np.ndarray, "row row"], spans: dict[str, slice]
) -> dict[tuple[str, str], float]:
    """Mean entry of every pair of groups, the diagonal left out; NaN for a group of one with itself."""
    masked = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)
    means = {}
    for first, rows in spans.items():
        for second, columns in spans.items():
            block = masked[rows, columns]
            finite = block[np.isfinite(block)]
            means[first, second] = float(finite.mean()) if finite.size else float("nan")
    return means


def draw_grouped_matrix(
    axes: Axes, matrix: Float[np.ndarray, "row row"], groups: Sequence[str], *, norm: Normalize, colours: str
) -> AxesImage:
    """The image of a matrix, diagonal blanked, with lines between groups and each block's mean written in.

    Raises:
        UsageError: if the groups do not name every row.
    """
    if len(groups) != len(matrix):
        raise UsageError(f"{len(groups)} group labels for a matrix of {len(matrix)} rows")
    spans = group_spans(groups)
    shown = np.ma.masked_invalid(np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix))
    image = axes.imshow(shown, cmap=colours, norm=norm)
    for span in list(spans.values())[1:]:
        axes.axhline(span.start - 0.5, color="black", linewidth=1)
        axes.axvline(span.start - 0.5, color="black", linewidth=1)
    middles = {name: (span.start + span.stop - 1) / 2 for name, span in spans.items()}
    for (first, second), mean in block_means(matrix, spans).items():
        axes.text(
            middles[second],
            middles[first],
            number(mean),
            ha="center",
            va="center",
            fontsize=8.5,
            bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "alpha": 0.85, "linewidth": 0},
        )
    axes.set_xticks(list(middles.values()), list(middles))
    axes.set_yticks(list(middles.values()), list(middles), rotation=90, va="center")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return image


def annotate_cells(axes: Axes, image: AxesImage, matrix: Float[np.ndarray, "row column"]) -> None:
    """Nothing; writes each cell's value in black or white, whichever reads on its colour."""
    colours: Colormap = image.get_cmap()
    for (row, column), value in np.ndenumerate(matrix):
        red, green, blue, _ = colours(image.norm(value)) if np.isfinite(value) else (1, 1, 1, 1)
        dark = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < 0.18
        axes.text(
            column,
            row,
            f"{value:.2f}".replace("-", "\N{MINUS SIGN}") if np.isfinite(value) else "–",
            ha="center",
            va="center",
            fontsize=8.5,
            color="white" if dark else "black",
        )


def describe_blocks(matrix: Float[np.ndarray, "row row"], groups: Sequence[str]) -> str:
    """Block means and the range of all entries beside the diagonal, in words."""
    means = block_means(matrix, group_spans(groups))
    names = list(dict.fromkeys(groups))
    parts = [
        f"{f'within {first}' if first == second else f'{first} with {second}'} {number(means[first, second])}"
        for place, first in enumerate(names)
        for second in names[place:]
    ]
    others = off_diagonal(matrix)
    others = others[np.isfinite(others)]
    return f"mean {', '.join(parts)}; entries from {number(others.min())} to {number(others.max())}"


# Checks and look-ups on the tidy tables that figures draw: one row an estimate, its interval beside it.

Where = Mapping[str, str | int]
"""Column names and the values asked for."""


def require_columns(table: pd.DataFrame, columns: Sequence[str], *, place: str) -> None:
    """Nothing.

    Raises:
        UsageError: naming the missing columns and those present, or that the table has no row.
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise UsageError(f"{place}: missing columns {missing}; the table has {list(table.columns)}")
    if table.empty:
        raise UsageError(f"{place}: the table has no rows")


def variants_in(table: pd.DataFrame) -> list[str]:
    """The variants of a table in the one order."""
    return in_order(list(dict.fromkeys(table["variant"])))


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


def interval_of(row: pd.Series, value: str) -> tuple[float, float, float]:
    """Value, lower and upper end from the columns ``value``, ``value_low`` and ``value_high``.

    The ends may also be plain ``low`` and ``high`` where the table holds a single quantity.
    """
    low, high = (f"{value}_low", f"{value}_high") if f"{value}_low" in row.index else ("low", "high")
    return float(row[value]), float(row[low]), float(row[high])


# Drawing shared by several figures: dots with intervals, curves with bands, nulls, scatters.

MOST_VECTOR_POINTS = 1500


def mark_value(axes: Axes, value: float | int, label: str, *, vertical: bool = True) -> None:
    """Nothing; a thin reference line across the panel, its meaning written above, or at the right."""
    line = axes.axvline if vertical else axes.axhline
    line(value, color="#777777", linewidth=0.8, zorder=0.5)
    place = (value, 1) if vertical else (1, value)
    coordinates = ("data", "axes fraction") if vertical else ("axes fraction", "data")
    shift, align = ((0, 2), ("center", "bottom")) if vertical else ((3, 0), ("left", "center"))
    text = axes.annotate(label, place, xycoords=coordinates, xytext=shift, textcoords="offset points")
    text.set(ha=align[0], va=align[1], fontsize=8, color="#555555")


def limit_to_estimates(
    axes: Axes, values: np.ndarray, intervals: np.ndarray, *, include: tuple[float | int, ...]
) -> None:
    """Nothing; y limits that show every estimate and cut interval ends more than half that range away.

    A ratio with a small denominator has intervals that would flatten every curve; the cut is visible,
    since the band then runs into the edge of the panel.
    """
    finite = np.concatenate([values[np.isfinite(values)], np.asarray(include, float)])
    low, high = finite.min(), finite.max()
    room = 0.5 * (high - low) + 1e-9
    ends = intervals[np.isfinite(intervals)]
    bottom = max(low - room, min([low, *ends]))
    top = min(high + room, max([high, *ends]))
    margin = 0.05 * (top - bottom)
    axes.set_ylim(bottom - margin, top + margin)


def null_patch(label: str) -> Patch:
    """The legend entry of a grey band."""
    return Patch(facecolor=NULL_COLOUR, alpha=0.45, label=label)


def band(axes: Axes, positions: np.ndarray, interval: np.ndarray, colour: str, *, null: bool = False) -> None:
    """Nothing; a filled interval along the positions, absent where an end is not finite."""
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


def curve(axes: Axes, positions: np.ndarray, values: np.ndarray, look: Look) -> None:
    """Nothing; a line with markers that breaks where the value is not finite."""
    axes.plot(
        positions,
        values,
        color=look.colour,
        linestyle=look.line_style,
        marker=look.marker,
        markersize=3.8,
        linewidth=1.4,
        zorder=3,
    )


def seed_curves(axes: Axes, seeds: pd.DataFrame | None, value: str, look: Look) -> None:
    """Nothing; one small dot for each seed and layer.

    The dots are round line ends on one path: as markers, hundreds of them would fill the file.
    """
    if seeds is None or seeds.empty:
        return
    layers, heights = seeds["layer"].to_numpy(float), seeds[value].to_numpy(float)
    across = np.stack([layers - 1e-3, layers + 1e-3, np.full(len(layers), np.nan)], axis=1).ravel()
    axes.plot(
        across,
        np.repeat(heights, 3),
        color=look.colour,
        linewidth=2.6,
        alpha=0.5,
        solid_capstyle="round",
        zorder=2,
    )


def seed_dots(axes: Axes, values: Iterable[SupportsFloat], height: float | int, colour: str) -> None:
    """Nothing; one small open dot for each seed on a row, hollow so that its interval stays visible."""
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
    """Nothing; ticks on layers that exist, thinned evenly where there are many."""
    positions = np.unique(positions)
    step = int(np.ceil(len(positions) / most))
    axes.set_xticks(positions[::step])


def dot_rows(
    axes: Axes, table: pd.DataFrame, value: str, *, rows: tuple[str, Sequence[str]], looks: Mapping[str, Look]
) -> list[str]:
    """A phrase for each row drawn: a row for each category, in it a dot with interval for each variant.

    ``rows`` is the column that holds the category and the categories from top to bottom; the table has
    columns ``variant``, ``value`` and its interval columns.
    """
    column, categories = rows
    phrases = []
    for position, category in enumerate(categories):
        drawn = []
        for place, (name, look) in enumerate(looks.items()):
            row = one_row(table, {column: category, "variant": name})
            if row is None:
                continue
            estimate, low, high = interval_of(row, value)
            height = position + _offset(place, len(looks))
            axes.hlines(height, low, high, color=look.colour, linewidth=1.5, zorder=2.5)
            axes.plot([estimate], [height], look.marker, color=look.colour, markersize=5, zorder=3)
            drawn.append(f"{name} {with_interval(estimate, low, high)}")
        phrases.append(f"{category}: {', '.join(drawn) or 'no value'}")
    _category_axis(axes, categories)
    return phrases


def seed_rows(
    axes: Axes,
    seeds: pd.DataFrame | None,
    value: str,
    *,
    rows: tuple[str, Sequence[str]],
    looks: Mapping[str, Look],
) -> None:
    """Nothing; one small open dot for each seed, on the line of its variant and category."""
    if seeds is None:
        return
    column, categories = rows
    for position, category in enumerate(categories):
        for place, (name, look) in enumerate(looks.items()):
            values = select(seeds, {column: category, "variant": name})[value]
            seed_dots(axes, values, position + _offset(place, len(looks)), look.colour)


def null_rows(
    axes: Axes, lows: Iterable[SupportsFloat], highs: Iterable[SupportsFloat], *, colour: str = NULL_COLOUR
) -> None:
    """Nothing; a block behind each row from lower to upper end of its null, grey unless it is a ceiling."""
    for position, (low, high) in enumerate(zip(lows, highs, strict=True)):
        if np.isfinite(low) and np.isfinite(high):
            # The edge keeps a null of almost no width visible.
            axes.fill_between(
                [low, high],
                position - 0.36,
                position + 0.36,
                facecolor=colour,
                alpha=0.35,
                linewidth=1,
                edgecolor=colour,
                zorder=0.8,
            )


def scatter_groups(
    axes: Axes, scores: Float[np.ndarray, "point 2"], keep: np.ndarray, look: Look, *, hollow: bool = False
) -> None:
    """Nothing; the points with ``keep``, drawn as pixels where there are too many for a small file."""
    points = scores[keep]
    axes.scatter(
        points[:, 0],
        points[:, 1],
        s=13,
        marker=look.marker,
        linewidths=0.8,
        alpha=0.7,
        facecolors="none" if hollow else look.colour,
        edgecolors=look.colour,
        rasterized=len(scores) > MOST_VECTOR_POINTS,
    )


def component_axes(axes: Axes, shares: np.ndarray) -> None:
    """Nothing; names both axes as components with their share of the variance."""
    axes.set_xlabel(f"component 1 ({shares[0]:.0%} of variance)")
    axes.set_ylabel(f"component 2 ({shares[1]:.0%} of variance)")
    axes.axhline(0, color="#cccccc", linewidth=0.7, zorder=0.5)
    axes.axvline(0, color="#cccccc", linewidth=0.7, zorder=0.5)


def _offset(place: int, count: int) -> float:
    """Height of one variant's dot relative to the middle of its row, within ±0.35."""
    return 0.0 if count == 1 else -0.35 + 0.7 * place / (count - 1)


def _category_axis(axes: Axes, categories: Sequence[str]) -> None:
    """Rows from top to bottom, with a faint line between them."""
    axes.set_yticks(range(len(categories)), categories)
    axes.set_ylim(len(categories) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.hlines(
        np.arange(0.5, len(categories) - 1),
        0,
        1,
        transform=axes.get_yaxis_transform(),
        color="#dddddd",
        linewidth=0.6,
        zorder=0.2,
    )
    for label in axes.get_yticklabels():
        label.set_color(INK)
