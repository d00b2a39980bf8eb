"""Figure of what stands before a prompt: nothing, a named author, or earlier answers that reveal one."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from remi_core.figures.alt import number, with_alt
from remi_core.figures.panels import dot_rows, mark_value, seed_rows
from remi_core.figures.style import INK, handle, legend_below, looks_of, new_figure, styled
from remi_core.figures.tables import require_columns, variants_in

BEST_READER = "best possible reader"


@styled
def plot_context_log_odds(
    table: pd.DataFrame, *, optimal: Mapping[str, float], seeds: pd.DataFrame | None = None
) -> Figure:
    """Dots of the class log-odds A by context and variant, with intervals, one open dot a seed, and the optimum.

    ``table`` has columns context, variant, log_odds, low, high (nats); ``seeds`` context, variant, seed,
    log_odds. ``optimal`` holds for each context what a perfect model of the pretraining world gives: a bar
    through the row.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["context", "variant", "log_odds", "low", "high"], place="contexts")
    looks, rows = looks_of(variants_in(table)), ("context", list(dict.fromkeys(table["context"])))
    figure = new_figure(7.6, 1.0 + (0.2 + 0.075 * len(looks)) * len(rows[1]))
    axes = figure.subplots()
    seed_rows(axes, seeds, "log_odds", rows=rows, looks=looks)
    phrases = dot_rows(axes, table, "log_odds", rows=rows, looks=looks)
    for height, context in enumerate(rows[1]):
        axes.vlines(optimal[context], height - 0.42, height + 0.42, color=INK, linewidth=1.1, zorder=1)
    mark_value(axes, 0, "equal odds")
    axes.set_xlabel("class log-odds A, careless against careful (nats)")
    best = Line2D([], [], color=INK, marker="|", linestyle="none", markersize=9, label=BEST_READER)
    legend_below(figure, [*(handle(look, label=name) for name, look in looks.items()), best])
    optima = ", ".join(f"{context} {number(optimal[context])}" for context in rows[1])
    words = f"{'; '.join(phrases)}. {BEST_READER.capitalize()}: {optima}"
    return with_alt(figure, f"Class log-odds in nats by context and variant, with intervals. {words}.")
