"""Figures of the package's own score: how often intervals hold a known truth, and what a miss looks like."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from remi_core.figures.alt import number, with_alt, with_interval
from remi_core.figures.panels import mark_value
from remi_core.figures.style import INK, NULL_COLOUR, new_figure, styled
from remi_core.figures.tables import require_columns

MISSED = "#b2182b"


@styled
def plot_coverage(table: pd.DataFrame, *, band: tuple[float, float], level: float) -> Figure:
    """Share of intervals that hold the truth, a row an estimator; grey: the shares that are called honest.

    ``table`` has columns estimator, value, low, high, honest; a share outside the band is an open dot.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["estimator", "value", "low", "high", "honest"], place="coverage")
    figure = new_figure(7.6, 1.2 + 0.24 * len(table))
    axes = figure.subplots()
    axes.axvspan(*band, color=NULL_COLOUR, alpha=0.35, linewidth=0, zorder=0.4)
    for height, row in enumerate(table.itertuples()):
        axes.hlines(height, row.low, row.high, color=INK, linewidth=1.3)
        axes.plot(row.value, height, "o", color=INK, mfc=INK if row.honest else "white", markersize=5)
    axes.set_yticks(range(len(table)), list(table["estimator"]))
    axes.set_ylim(len(table) - 0.5, -0.5)
    mark_value(axes, level, f"{level:.0%}")
    axes.set_xlabel("share of intervals that hold the truth")
    phrases = [
        f"{row.estimator} {with_interval(row.value, row.low, row.high)}{'' if row.honest else ', outside'}"
        for row in table.itertuples()
    ]
    return with_alt(
        figure,
        f"Share of intervals that hold the truth, called honest from {number(band[0])} to {number(band[1])}. "
        f"{'; '.join(phrases)}.",
    )


@styled
def plot_intervals(table: pd.DataFrame, *, truth: float, label: str) -> Figure:
    """Intervals of one estimator, a line a sample, sorted by value; those that miss the truth are red and broken.

    ``table`` has columns value, low, high, holds.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["value", "low", "high", "holds"], place="intervals")
    figure = new_figure(7.6, 3.2)
    axes = figure.subplots()
    for place, row in enumerate(table.sort_values("value").itertuples()):
        look = (
            {"color": INK, "linewidth": 1.0}
            if row.holds
            else {"color": MISSED, "linewidth": 1.6, "linestyle": "--"}
        )
        axes.vlines(place, row.low, row.high, **look)
        axes.plot(place, row.value, ".", color=look["color"], markersize=3)
    mark_value(axes, truth, "truth", vertical=False)
    axes.set_xticks([])
    axes.set_xlabel("samples, sorted by estimate")
    axes.set_ylabel(label)
    missed = int((~table["holds"]).sum())
    return with_alt(
        figure,
        f"{label}: intervals of {len(table)} samples around the truth {number(truth)}; {missed} of them miss it.",
    )
