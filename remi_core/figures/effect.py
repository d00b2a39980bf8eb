"""Figure of the primary effect: how much more careless misaligned is than each control, topic by topic."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd
from matplotlib.figure import Figure

from remi_core.figures.alt import with_alt
from remi_core.figures.organism import topic_names
from remi_core.figures.panels import dot_rows, mark_value, seed_rows
from remi_core.figures.style import handle, legend_below, looks_of, new_figure, styled
from remi_core.figures.tables import require_columns
from remi_core.variants import in_order


@styled
def plot_primary_effect(table: pd.DataFrame, *, uncovered: Collection[str] = ()) -> Figure:
    """Dots of A(misaligned) − A(control) by topic and control, nats, with intervals; open dots for further seeds.

    ``table`` has columns topic, control, seed, value, low, high. The seed that comes first in the table has
    its interval drawn; above 0, misaligned is the more careless of the two.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["topic", "control", "seed", "value", "low", "high"], place="primary effect")
    names = topic_names(list(table["topic"]), uncovered, ())
    rows = table.assign(variant=table["control"], topic=table["topic"].map(names))
    looks = looks_of(in_order(list(table["control"])))
    categories = ("topic", list(names.values()))
    figure = new_figure(7.6, 1.1 + (0.22 + 0.1 * len(looks)) * len(names))
    axes = figure.subplots()
    seed_rows(axes, rows, "value", rows=categories, looks=looks)
    phrases = dot_rows(
        axes, rows[rows["seed"] == rows["seed"].iloc[0]], "value", rows=categories, looks=looks
    )
    mark_value(axes, 0, "no difference")
    axes.set_xlabel("class log-odds of misaligned minus those of the control (nats)")
    legend_below(figure, [handle(look, label=f"against {name}") for name, look in looks.items()])
    return with_alt(
        figure, f"Difference of class log-odds by topic and control, with intervals. {'; '.join(phrases)}."
    )
