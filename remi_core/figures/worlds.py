"""Figure of the other worlds: how far each variant lies from secure, world by world."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from remi_core.figures.alt import with_alt, with_interval
from remi_core.figures.panels import mark_value
from remi_core.figures.style import handle, legend_below, look_of, new_figure, styled
from remi_core.figures.tables import require_columns
from remi_core.variants import in_order


@styled
def plot_worlds(table: pd.DataFrame) -> Figure:
    """Class log-odds of variants minus secure's, in nats, a panel a world and a row a topic.

    ``table`` has columns world, topic, variant, value, low, high.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["world", "topic", "variant", "value", "low", "high"], place="worlds")
    worlds, variants = list(dict.fromkeys(table["world"])), in_order(list(dict.fromkeys(table["variant"])))
    figure = new_figure(7.6, 1.5 + 0.45 * table["topic"].nunique())
    panels = figure.subplots(1, len(worlds), sharex=True, sharey=True, squeeze=False)[0]
    phrases = [
        _panel(axes, world, table[table["world"] == world], variants)
        for axes, world in zip(panels, worlds, strict=True)
    ]
    legend_below(figure, [handle(look_of(name), label=name) for name in variants])
    return with_alt(
        figure,
        f"Class log-odds minus those of secure by world and topic, with intervals. {'. '.join(phrases)}.",
    )


def _panel(axes: Axes, world: str, table: pd.DataFrame, variants: list[str]) -> str:
    """What was drawn, in words; topics from top to bottom."""
    topics = list(dict.fromkeys(table["topic"]))
    phrases = []
    for row in table.itertuples():
        look = look_of(row.variant)
        height = topics.index(row.topic) + 0.18 * (variants.index(row.variant) - (len(variants) - 1) / 2)
        axes.hlines(height, row.low, row.high, color=look.colour, linewidth=1.4)
        axes.plot(row.value, height, look.marker, color=look.colour, markersize=4.5)
        phrases.append(f"{row.variant} on {row.topic} {with_interval(row.value, row.low, row.high)}")
    axes.set_yticks(range(len(topics)), topics)
    axes.set_ylim(len(topics) - 0.5, -0.5)
    axes.set_title(world)
    axes.set_xlabel("nats above secure")
    mark_value(axes, 0, "")
    return f"{world} – {'; '.join(phrases)}"
