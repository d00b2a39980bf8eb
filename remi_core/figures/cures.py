"""Figures of cures: what is prevented against what is kept, and geometry against behaviour."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from remi_core.figures.alt import number, with_alt, with_interval
from remi_core.figures.panels import mark_value
from remi_core.figures.style import BACKGROUND, Look, handle, legend_below, looks_of, new_figure, styled
from remi_core.figures.tables import require_columns

AXES = {"e": "erosion e", "c": "cosine c", "r": "off the direction, r"}


@styled
def plot_cures(table: pd.DataFrame, *, seed: int, bounds: tuple[float, float]) -> Figure:
    """Share of the spread prevented by share of the task kept, a line a cure from weak to strong.

    ``table`` has columns seed, cure, strength, and kept and prevented each with _low and _high; open dots are further
    seeds. ``bounds`` are what a cure must keep and prevent: thin lines.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    ends = [f"{name}{end}" for name in ("kept", "prevented") for end in ("", "_low", "_high")]
    require_columns(table, ["seed", "cure", "strength", *ends], place="cures")
    looks = looks_of(list(dict.fromkeys(table["cure"])))
    figure = new_figure(7.6, 4.4)
    axes, phrases = figure.subplots(), []
    for cure, look in looks.items():
        own = table[table["cure"] == cure]
        _others(axes, own[own["seed"] != seed], look)
        first = own[own["seed"] == seed]
        gaps = {
            axis: [first[name] - first[f"{name}_low"], first[f"{name}_high"] - first[name]]
            for axis, name in (("xerr", "kept"), ("yerr", "prevented"))
        }
        style = {"color": look.colour, "marker": look.marker, "markersize": 5, "linewidth": 1.0}
        axes.errorbar(first["kept"], first["prevented"], **gaps, **style)
        phrases += [
            f"{cure} at {number(row['strength'])}: keeps "
            f"{with_interval(row['kept'], row['kept_low'], row['kept_high'])}, prevents "
            f"{with_interval(row['prevented'], row['prevented_low'], row['prevented_high'])}"
            for _, row in first.iterrows()
        ]
    mark_value(axes, bounds[0], "")
    mark_value(axes, bounds[1], "", vertical=False)
    axes.set_xlabel("share of the narrow task kept")
    axes.set_ylabel("share of the spread prevented")
    legend_below(figure, [handle(look, label=name) for name, look in looks.items()], n_columns=3)
    return with_alt(
        figure, f"What each cure keeps of the task and prevents of the spread. {'; '.join(phrases)}."
    )


@styled
def plot_geometry(table: pd.DataFrame) -> Figure:
    """Change of care outside the narrow set by e, c and r, a panel each and a dot a run.

    ``table`` has columns cure, spread, e, c, r of one seed.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["cure", "spread", *AXES], place="geometry")
    looks = looks_of(list(dict.fromkeys(table["cure"])))
    figure = new_figure(7.6, 3.4)
    for axes, (name, label) in zip(figure.subplots(1, len(AXES), sharey=True), AXES.items(), strict=True):
        for cure, look in looks.items():
            own = table[table["cure"] == cure]
            axes.plot(own[name], own["spread"], look.marker, color=look.colour, markersize=5)
        axes.set_xlabel(label)
        mark_value(axes, 0, "", vertical=False)
    figure.axes[0].set_ylabel("change of care (nats)")
    legend_below(figure, [handle(look, label=name) for name, look in looks.items()], n_columns=3)
    phrases = [
        f"{row['cure']}: spread {number(row['spread'])}, "
        + ", ".join(f"{name} {number(row[name])}" for name in AXES)
        for _, row in table.iterrows()
    ]
    return with_alt(
        figure, f"Change of care outside the narrow set by geometry, run by run. {'; '.join(phrases)}."
    )


def _others(axes: Axes, table: pd.DataFrame, look: Look) -> None:
    style = {"mfc": BACKGROUND, "mec": look.colour, "markersize": 3.5}
    axes.plot(table["kept"], table["prevented"], look.marker, linestyle="none", **style)
