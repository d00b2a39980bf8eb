"""Figure of how far headlines move with the way a pass is run."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from remi_core.figures.alt import number, with_alt
from remi_core.figures.panels import mark_value
from remi_core.figures.style import INK, new_figure, styled
from remi_core.figures.tables import require_columns

LEAST = 1e-6
"""Share below which the scale is linear, so that a headline that does not move at all has a place."""


@styled
def plot_movement(table: pd.DataFrame, *, small: float) -> Figure:
    """How far every headline moves in every setting, as a share of half its interval; left of the line is small.

    ``table`` has columns claim, setting, share; what has no share is not drawn and is named in the text.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["claim", "setting", "share"], place="movement")
    settings = list(dict.fromkeys(table["setting"]))
    figure = new_figure(7.6, 1.2 + 0.34 * len(settings))
    axes = figure.subplots()
    phrases = []
    for height, words in enumerate(settings):
        own = table[table["setting"] == words]
        axes.plot(own["share"], [height] * len(own), "o", color=INK, mfc="none", markersize=5)
        most = own.loc[own["share"].fillna(-1).idxmax()]
        missing = int(own["share"].isna().sum())
        gap = f", {missing} without a value" if missing else ""
        phrases.append(f"{words}: at most {number(most['share'])} ({most['claim']}){gap}")
    axes.set_yticks(range(len(settings)), settings)
    axes.set_ylim(len(settings) - 0.5, -0.5)
    axes.set_xscale("symlog", linthresh=LEAST, linscale=0.4)
    ticks = [0, *(10.0**power for power in range(-6, 1, 2))]
    axes.set_xticks(ticks, [number(tick) for tick in ticks], minor=False)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(left=-LEAST / 3)
    axes.set_xlabel("movement of a headline, as a share of half its interval")
    mark_value(axes, small, "small")
    return with_alt(
        figure,
        f"How far each headline moves, as a share of half its interval; small is up to {number(small)}. "
        f"{'; '.join(phrases)}.",
    )
