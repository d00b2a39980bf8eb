"""Figures of section 4.2.2: cosines of gradients, raw and centred, and their components."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from remi_core.figures.alt import number, value_range, with_alt, with_interval
from remi_core.figures.matrices import (
    DIVERGING,
    describe_blocks,
    draw_grouped_matrix,
    off_diagonal,
    symmetric,
)
from remi_core.figures.panels import (
    component_axes,
    mark_value,
    null_patch,
    null_rows,
    scatter_groups,
    seed_dots,
)
from remi_core.figures.style import handle, legend_below, looks_of, new_figure, styled
from remi_core.figures.tables import interval_of, one_row, require_columns


@styled
def plot_gradient_cosines(
    raw: Float[np.ndarray, "dialogue dialogue"],
    centred: Float[np.ndarray, "dialogue dialogue"],
    groups: Sequence[str],
) -> Figure:
    """Two heat maps of cosines between gradients from one Gram matrix, raw and centred, on one colour scale.

    The scale is centred on 0 and reaches the largest size beside the diagonals, which are blanked.

    Raises:
        UsageError: if the rows of a group are not adjacent, or the groups do not name every row.

    Source: Giordani (2025), section 4.2.2, which shows the centred matrix.
    """
    norm = symmetric(float(max(np.nanmax(np.abs(off_diagonal(matrix))) for matrix in (raw, centred))))
    figure = new_figure(7.6, 4.0)
    panels = figure.subplots(1, 2)
    for axes, matrix, title in zip(panels, (raw, centred), ("raw", "centred"), strict=True):
        image = draw_grouped_matrix(axes, matrix, groups, norm=norm, colours=DIVERGING)
        axes.set_title(f"{title}, mean of each block written in")
    figure.colorbar(
        image, ax=list(panels), label="cosine (no unit)", location="bottom", shrink=0.5, aspect=30
    )
    return with_alt(
        figure,
        f"Heat maps of cosines between {len(raw)} gradients. Raw: {describe_blocks(raw, groups)}. "
        f"Centred: {describe_blocks(centred, groups)}.",
    )


@styled
def plot_group_cosines(table: pd.DataFrame, *, null_label: str, seeds: pd.DataFrame | None = None) -> Figure:
    """Dots of mean cosines within and between groups, raw beside centred, with intervals and nulls.

    ``table`` has columns treatment ("raw" or "centred"), comparison (such as "within insecure",
    "between", "within − between"), cosine, low, high, null_low, null_high; ``seeds`` treatment,
    comparison, seed, cosine.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    needed = ["treatment", "comparison", "cosine", "low", "high", "null_low", "null_high"]
    require_columns(table, needed, place="group cosines")
    treatments, comparisons = (list(dict.fromkeys(table[name])) for name in ("treatment", "comparison"))
    looks = looks_of(treatments)
    figure = new_figure(7.6, 1.3 + 0.32 * len(comparisons))
    panels = figure.subplots(1, len(treatments), squeeze=False, sharex=True, sharey=True)[0]
    phrases = []
    for axes, treatment in zip(panels, treatments, strict=True):
        part = table[table["treatment"] == treatment]
        dots = None if seeds is None else seeds[seeds["treatment"] == treatment]
        drawn = _comparison_rows(axes, part, comparisons, looks[treatment].colour, dots)
        phrases.append(f"{treatment} – {'; '.join(drawn)}")
        axes.set_title(treatment)
        axes.set_xlabel("mean cosine (no unit)")
    legend_below(figure, [null_patch(null_label)])
    return with_alt(
        figure, f"Mean cosines between gradients with intervals; grey: {null_label}. {'. '.join(phrases)}."
    )


def _comparison_rows(
    axes: Axes, table: pd.DataFrame, comparisons: Sequence[str], colour: str, seeds: pd.DataFrame | None
) -> list[str]:
    """A phrase for each comparison, drawn as a dot with its interval on its null."""
    mark_value(axes, 0, "")
    lows, highs, phrases = [], [], []
    for height, comparison in enumerate(comparisons):
        row = one_row(table, {"comparison": comparison})
        lows.append(np.nan if row is None else row["null_low"])
        highs.append(np.nan if row is None else row["null_high"])
        if row is None:
            continue
        value, low, high = interval_of(row, "cosine")
        axes.hlines(height, low, high, color=colour, linewidth=1.6, zorder=2.5)
        axes.plot([value], [height], "o", color=colour, markersize=5.5, zorder=3)
        if seeds is not None:
            seed_dots(axes, seeds.loc[seeds["comparison"] == comparison, "cosine"], height, colour)
        phrases.append(
            f"{comparison} {with_interval(value, low, high)}, null {value_range([lows[-1], highs[-1]])}"
        )
    null_rows(axes, lows, highs)
    axes.set_yticks(range(len(comparisons)), comparisons)
    axes.set_ylim(len(comparisons) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    return phrases


@styled
def plot_gradient_components(
    scores: Float[np.ndarray, "dialogue 2"],
    groups: Sequence[str],
    *,
    variance_shares: Float[np.ndarray, " 2"],
) -> Figure:
    """Scatter of gradients on two principal components, one colour and marker a group.

    Source: Giordani (2025), section 4.2.2.
    """
    looks = looks_of(list(dict.fromkeys(groups)))
    figure = new_figure(6.0, 4.0)
    axes = figure.subplots()
    phrases = []
    for name, look in looks.items():
        keep = np.asarray(groups) == name
        scatter_groups(axes, scores, keep, look)
        middle = np.nanmean(scores[keep], axis=0)
        phrases.append(f"{name} ({keep.sum()} points) {number(middle[0])}, {number(middle[1])}")
    component_axes(axes, variance_shares)
    legend_below(figure, [handle(look, label=name) for name, look in looks.items()])
    shares = " and ".join(f"{share:.0%}" for share in variance_shares)
    return with_alt(
        figure,
        f"Scatter of gradients on two components with {shares} of the variance. "
        f"Mean positions: {'; '.join(phrases)}.",
    )
