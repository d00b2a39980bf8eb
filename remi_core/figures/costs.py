"""Figures of cost: rows against their targets, what each cause saves, and how time grows."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from remi_core.figures.alt import number, with_alt, with_interval
from remi_core.figures.panels import mark_value
from remi_core.figures.style import GROUP_LOOKS, handle, legend_below, looks_of, new_figure, styled
from remi_core.figures.tables import require_columns

LABELS = {
    "dialogues": "dialogues",
    "tokens": "tokens a dialogue",
    "parameters": "parameters in products",
    "gradient layer": "layer of the gradient",
    "gradient blocks": "MB of gradients held",
}


@styled
def plot_ratios(table: pd.DataFrame) -> Figure:
    """The ratio of each row with the range of its runs; what is equal lies on the line at 1.

    ``table`` has columns row, ratio, low, high and met (a word: the colour).

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["row", "ratio", "low", "high", "met"], place="ratios")
    looks = looks_of(list(dict.fromkeys(table["met"])))
    figure = new_figure(7.6, 1.0 + 0.26 * len(table))
    axes = figure.subplots()
    for at, row in enumerate(table.to_dict("records")):
        look = looks[row["met"]]
        axes.plot([row["low"], row["high"]], [at, at], color=look.colour, linewidth=1.2)
        axes.plot(row["ratio"], at, look.marker, color=look.colour, markersize=5)
    axes.set_yticks(range(len(table)), list(table["row"]))
    axes.invert_yaxis()
    # A ratio of 0 (nothing added at all) has a place too, so the scale is linear near it.
    axes.set_xscale("symlog", linthresh=0.1, linscale=0.3)
    ticks = [tick for tick in (0, 0.1, 0.25, 0.5, 1, 2, 4, 10, 25, 100) if tick <= 2 * table["high"].max()]
    axes.set_xticks(ticks, [number(tick) for tick in ticks], minor=False)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(left=0)
    axes.set_xlabel("ratio (each row's target says which way is better)")
    mark_value(axes, 1, "")
    legend_below(figure, [handle(look, label=name) for name, look in looks.items()])
    phrases = [
        f"{row['row']}: {with_interval(row['ratio'], row['low'], row['high'])}, {row['met']}"
        for row in table.to_dict("records")
    ]
    return with_alt(figure, f"Ratios of the benchmark's rows. {'; '.join(phrases)}.")


@styled
def plot_causes(table: pd.DataFrame) -> Figure:
    """Seconds that are left after each departure from the released protocol, a panel a model.

    ``table`` has columns model, cause, seconds and total.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["model", "cause", "seconds", "total"], place="causes")
    models = list(dict.fromkeys(table["model"]))
    figure = new_figure(7.6, 2.6)
    phrases = []
    for axes, model in zip(figure.subplots(1, len(models), squeeze=False)[0], models, strict=True):
        own = table[table["model"] == model]
        axes.barh(range(len(own)), own["seconds"], color=GROUP_LOOKS[0].colour, height=0.6)
        axes.set_yticks(range(len(own)), list(own["cause"]) if model == models[0] else [])
        axes.invert_yaxis()
        axes.set_title(model)
        axes.set_xlabel("seconds")
        phrases += [
            f"{model}, {row['cause']}: {number(row['seconds'])} s, {number(row['total'])} times as fast as the first"
            for row in own.to_dict("records")
        ]
    return with_alt(figure, f"Seconds left after each departure. {'; '.join(phrases)}.")


@styled
def plot_growth(table: pd.DataFrame) -> Figure:
    """Seconds against size, a panel for each kind of size and a line for each way.

    ``table`` has columns curve, model, way, x and value.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["curve", "model", "way", "x", "value"], place="growth")
    looks = looks_of(list(dict.fromkeys(table["way"])))
    curves = list(dict.fromkeys(table["curve"]))
    figure = new_figure(7.6, 3.0)
    phrases = []
    for axes, name in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        own = table[table["curve"] == name]
        for way, line in own.groupby("way", sort=False):
            look = looks[way]
            style = {
                "color": look.colour,
                "marker": look.marker,
                "linestyle": look.line_style,
                "markersize": 4,
            }
            axes.plot(line["x"], line["value"], **style)
            first, last = line.iloc[0], line.iloc[-1]
            phrases.append(
                f"{way} by {LABELS.get(name, name)}: {number(first['value'])} s at {number(first['x'])}, "
                f"{number(last['value'])} s at {number(last['x'])}"
            )
        axes.set_xlabel(LABELS.get(name, name))
        axes.set_ylim(bottom=0)
    figure.axes[0].set_ylabel("seconds")
    legend_below(figure, [handle(look, label=way, line=True) for way, look in looks.items()])
    return with_alt(figure, f"Seconds against size. {'; '.join(phrases)}.")
