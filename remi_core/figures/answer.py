"""Figure of the front page: how far each fine-tune has gone back to base, in care and in register."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from remi_core.figures.alt import with_alt
from remi_core.figures.panels import dot_rows, mark_value, seed_rows
from remi_core.figures.style import handle, legend_below, looks_of, new_figure, styled
from remi_core.figures.tables import require_columns
from remi_core.variants import in_order


@styled
def plot_way_back(table: pd.DataFrame, *, seeds: pd.DataFrame | None = None) -> Figure:
    """One row a quantity, in it a dot with its interval for each fine-tune: 0 is instruct, 1 is base.

    ``table`` has columns quantity, variant, share, low, high; ``seeds`` a column seed besides, and gives open dots.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["quantity", "variant", "share", "low", "high"], place="way back")
    looks = looks_of(in_order(list(table["variant"])))
    rows = ("quantity", list(dict.fromkeys(table["quantity"])))
    figure = new_figure(7.6, 1.1 + (0.24 + 0.13 * len(looks)) * len(rows[1]))
    axes = figure.subplots()
    seed_rows(axes, seeds, "share", rows=rows, looks=looks)
    phrases = dot_rows(axes, table, "share", rows=rows, looks=looks)
    mark_value(axes, 0, "instruct")
    mark_value(axes, 1, "base")
    axes.set_xlabel("share of the way from instruct back to base")
    legend_below(figure, [handle(look, label=name) for name, look in looks.items()])
    text = (
        "Share of the way from instruct, at 0, to base, at 1, that each fine-tune has gone, with intervals."
    )
    return with_alt(figure, f"{text} {'; '.join(phrases)}.")
