"""Heat maps: cosine matrices with group boundaries, small matrices with their values, colour scales."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.image import AxesImage

from remi_core.errors import UsageError
from remi_core.figures.alt import number

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
