"""Figures of matched contexts: a ladder of contexts, influence by set and part, and real steps against prediction."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from remi_core.figures.alt import number, value_range, with_alt, with_interval
from remi_core.figures.panels import mark_value
from remi_core.figures.style import (
    BACKGROUND,
    INK,
    Look,
    handle,
    legend_below,
    look_of,
    looks_of,
    new_figure,
    styled,
)
from remi_core.figures.tables import require_columns


@styled
def plot_ladder(table: pd.DataFrame, *, seed: int) -> Figure:
    """Each quantity of two sets of gradients by context, a panel a quantity; open dots are further seeds.

    ``table`` has columns seed, context, quantity, value, low, high.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["seed", "context", "quantity", "value", "low", "high"], place="ladder")
    names, quantities = (list(dict.fromkeys(table[column])) for column in ("context", "quantity"))
    figure = new_figure(7.8, 0.9 + 0.33 * len(names))
    panels = figure.subplots(1, len(quantities), sharey=True, squeeze=False)[0]
    phrases = []
    for axes, quantity in zip(panels, quantities, strict=True):
        own = table[table["quantity"] == quantity].rename(columns={"context": "name"})
        said = _rows(axes, own, dict.fromkeys(names, Look(INK, "o", "-")), seed)
        axes.set_title(quantity)
        phrases.append(f"{quantity}: {'; '.join(said)}")
    return with_alt(figure, f"Two sets of gradients by context, with intervals. {'. '.join(phrases)}.")


@styled
def plot_influence(table: pd.DataFrame, *, seed: int) -> Figure:
    """Influence on held-out log-odds by the set of a step, with intervals; open dots are further seeds.

    ``table`` has columns seed, set, value, low, high.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["seed", "set", "value", "low", "high"], place="influence")
    names = list(dict.fromkeys(table["set"]))
    figure = new_figure(6.4, 0.9 + 0.33 * len(names))
    axes = figure.subplots()
    phrases = _rows(
        axes, table.rename(columns={"set": "name"}), {name: look_of(name) for name in names}, seed
    )
    axes.set_xlabel("influence on held-out topics, nats per unit of rate (above 0: towards careless)")
    return with_alt(figure, f"Influence by set, with intervals. {'; '.join(phrases)}.")


def _rows(axes: Axes, table: pd.DataFrame, looks: dict[str, Look], seed: int) -> list[str]:
    """A row for each name, from the top: value and interval of one seed, open dots of the others; and it in words."""
    names, phrases = list(looks), []
    for height, name in enumerate(reversed(names)):
        rows, look = table[table["name"] == name], looks[name]
        own = rows[rows["seed"] == seed].iloc[0]
        gaps = [[own["value"] - own["low"]], [own["high"] - own["value"]]]
        axes.errorbar(own["value"], height, xerr=gaps, color=look.colour, marker=look.marker, markersize=4.5)
        others = rows[rows["seed"] != seed]["value"]
        axes.plot(others, [height + 0.25] * len(others), "o", mfc=BACKGROUND, mec=look.colour, markersize=3.5)
        phrases.append(f"{name}: {with_interval(own['value'], own['low'], own['high'])}")
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_ylim(-0.6, len(names) - 0.4)
    mark_value(axes, 0, "")
    return list(reversed(phrases))


@styled
def plot_parts(table: pd.DataFrame, *, seed: int) -> Figure:
    """Influence by part of the model, a line a set, with intervals; open dots are further seeds.

    ``table`` has columns seed, set, part, value, low, high.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["seed", "set", "part", "value", "low", "high"], place="parts")
    sets, names = (list(dict.fromkeys(table[column])) for column in ("set", "part"))
    figure = new_figure(7.6, 3.2)
    axes = figure.subplots()
    places, phrases = np.arange(len(names)), []
    for shift, name in enumerate(sets):
        look, at = look_of(name), places + 0.14 * (shift - (len(sets) - 1) / 2)
        by_part = table[table["set"] == name].set_index("part")
        own = by_part[by_part["seed"] == seed].loc[names]
        gaps = [own["value"] - own["low"], own["high"] - own["value"]]
        axes.errorbar(
            at, own["value"], yerr=gaps, color=look.colour, marker=look.marker, linestyle="none", markersize=4
        )
        for _, other in by_part[by_part["seed"] != seed].groupby("seed"):
            axes.plot(
                at, other.loc[names]["value"], "o", mfc=BACKGROUND, mec=look.colour, markersize=3, zorder=1
            )
        largest = own["value"].abs().idxmax()
        phrases.append(f"{name}: largest in {largest}, {number(own['value'][largest])}")
    axes.set_xticks(places, names, rotation=30, ha="right")
    axes.set_ylabel("influence, nats per unit of rate")
    mark_value(axes, 0, "", vertical=False)
    legend_below(figure, [handle(look_of(name), label=name) for name in sets])
    return with_alt(figure, f"Influence by part of the model, with intervals. {'; '.join(phrases)}.")


@styled
def plot_real_steps(table: pd.DataFrame) -> Figure:
    """Change of each held-out prompt's log-odds per real step against the first-order prediction, a panel a set.

    ``table`` has columns set, steps, predicted, made. On the line the prediction is exact.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["set", "steps", "predicted", "made"], place="real steps")
    sets, counts = list(dict.fromkeys(table["set"])), sorted(set(table["steps"]))
    looks = looks_of([f"{count} steps" if count > 1 else "1 step" for count in counts])
    figure = new_figure(7.8, 2.7)
    phrases = []
    for axes, name in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
        own = table[table["set"] == name]
        ends = [float(own[["predicted", "made"]].min().min()), float(own[["predicted", "made"]].max().max())]
        axes.axline((ends[0], ends[0]), (ends[1], ends[1]), color=INK, linewidth=0.7)
        for count, look in zip(counts, looks.values(), strict=True):
            made = own[own["steps"] == count]
            axes.plot(
                made["predicted"], made["made"], look.marker, color=look.colour, markersize=3, alpha=0.8
            )
        axes.set_title(name)
        axes.set_xlabel("predicted")
        axes.locator_params(nbins=3)
        axes.ticklabel_format(scilimits=(-2, 2))
        phrases.append(f"{name}: predicted {value_range(own['predicted'])}, made {value_range(own['made'])}")
    figure.axes[0].set_ylabel("made, nats per step")
    legend_below(figure, [handle(look, label=label) for label, look in looks.items()])
    return with_alt(
        figure, f"Real steps against the first-order prediction, by prompt. {'; '.join(phrases)}."
    )
