"""Figures of rates: shares of sampled answers with two intervals side by side."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from remi_core.figures.alt import number, with_alt, with_interval
from remi_core.figures.panels import seed_dots
from remi_core.figures.style import INK, legend_below, look_of, new_figure, styled
from remi_core.figures.tables import require_columns

ENDS = ("low", "high", "wilson_low", "wilson_high")
APART = 0.2
"""How far above and below the middle of a row its two intervals lie."""
MOST_ACROSS = 3


@styled
def plot_rates(table: pd.DataFrame, *, seed: int, label: str) -> Figure:
    """Dots of shares by row, a panel each; above, the interval over templates, below it, dashed, Wilson's.

    ``table`` has columns seed, panel, row, variant, rate, low, high, wilson_low, wilson_high; open dots are seeds.
    ``label`` says what is counted.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["seed", "panel", "row", "variant", "rate", *ENDS], place="rates")
    names, rows = (list(dict.fromkeys(table[column])) for column in ("panel", "row"))
    columns = min(len(names), MOST_ACROSS)
    lines = -(-len(names) // columns)
    figure = new_figure(7.6, 0.8 + lines * (0.6 + 0.3 * len(rows)))
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    phrases = []
    for axes, name in zip(panels.flat, names, strict=False):
        phrases.append(f"{name}: {'; '.join(_rows(axes, table[table['panel'] == name], rows, seed))}")
        axes.set_title(name, fontsize=8.8)
    for place, axes in enumerate(panels.flat[len(names) :], start=len(names)):
        axes.set_visible(False)
        panels.flat[place - columns].tick_params(labelbottom=True)  # its neighbour below has none to share
    panels[0, 0].set_yticks(range(len(rows)), rows)
    panels[0, 0].set_ylim(len(rows) - 0.5, -0.5)
    panels[0, 0].set_xlim(-0.03, 1.03)
    figure.suptitle(label, fontsize=9)  # a label below would lie under the legend
    styles = {"interval over prompt templates": "-", "Wilson interval, answers as independent": "--"}
    legend_below(figure, [Line2D([], [], color=INK, linestyle=one, label=key) for key, one in styles.items()])
    start = f"{label[0].upper()}{label[1:]}, with the interval over templates and the Wilson interval."
    return with_alt(figure, f"{start} {'. '.join(phrases)}.")


def _rows(axes: Axes, table: pd.DataFrame, rows: list[str], seed: int) -> list[str]:
    phrases = []
    for height, name in enumerate(rows):
        every = table[table["row"] == name]
        own = every[every["seed"] == seed].iloc[0]
        look = look_of(own["variant"])
        axes.hlines(height - APART, own["low"], own["high"], color=look.colour, linewidth=1.6)
        ends = own["wilson_low"], own["wilson_high"]
        axes.hlines(height + APART, *ends, color=look.colour, linewidth=1.2, linestyle="--")
        axes.plot([own["rate"]], [height], look.marker, color=look.colour, markersize=4.5)
        seed_dots(axes, every["rate"], height, look.colour)
        phrases.append(
            f"{name} {with_interval(own['rate'], own['low'], own['high'])}, Wilson "
            f"{number(ends[0])} to {number(ends[1])}"
        )
    axes.tick_params(axis="y", length=0)
    return phrases
