"""Figures of H1 and X1: the parts of the rule by variant, and where misaligned goes beyond secure."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from remi_core.figures.alt import along, with_alt, with_interval
from remi_core.figures.panels import (
    band,
    curve,
    dot_rows,
    integer_ticks,
    limit_to_estimates,
    mark_value,
    null_patch,
    seed_curves,
    seed_dots,
    seed_rows,
)
from remi_core.figures.style import NULL_COLOUR, handle, legend_below, look_of, looks_of, new_figure, styled
from remi_core.figures.tables import require_columns, select, variants_in

HALF_OF_SQUARE = 0.5**0.5


@styled
def plot_change_parts(table: pd.DataFrame, *, seeds: pd.DataFrame | None = None) -> Figure:
    """Dots of every part of H1's rule, a row each, with intervals; small open dots for all seeds.

    ``table`` has columns part, variant, value, low, high; ``seeds`` part, variant, seed, value.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["part", "variant", "value", "low", "high"], place="parts of the rule")
    looks, parts = looks_of(variants_in(table)), list(dict.fromkeys(table["part"]))
    figure = new_figure(7.6, 1.0 + 0.5 * len(parts))
    axes = figure.subplots()
    rows = ("part", parts)
    seed_rows(axes, seeds, "value", rows=rows, looks=looks)
    phrases = dot_rows(axes, table, "value", rows=rows, looks=looks)
    for value, label in ((0, "instruct"), (0.5, "½"), (1, "base")):
        mark_value(axes, value, label)
    axes.set_xlabel("share of the way from instruct to base; ν in nats a token")
    legend_below(figure, [handle(look, label=name) for name, look in looks.items()])
    return with_alt(figure, f"Parts of the rule by variant, with intervals. {'; '.join(phrases)}.")


@styled
def plot_control_shares(table: pd.DataFrame, *, seeds: pd.DataFrame | None = None) -> Figure:
    """Dots of the change of care and of register by variant, a panel each, with intervals; open dots for all seeds.

    ``table`` has columns part, variant, value, low, high, a part a panel; ``seeds`` also seed.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["part", "variant", "value", "low", "high"], place="shares of controls")
    variants, parts = variants_in(table), list(dict.fromkeys(table["part"]))
    looks = {name: look_of(name) for name in variants}
    figure = new_figure(7.6, 0.8 + 0.27 * len(variants))
    phrases = []
    for axes, part in zip(figure.subplots(1, len(parts), sharey=True), parts, strict=True):
        for place, name in enumerate(variants):
            one = select(table, {"part": part, "variant": name}).iloc[0]
            if seeds is not None:
                dots = select(seeds, {"part": part, "variant": name})["value"]
                seed_dots(axes, dots, place, looks[name].colour)
            axes.hlines(place, one["low"], one["high"], color=looks[name].colour, linewidth=1.5)
            axes.plot([one["value"]], [place], looks[name].marker, color=looks[name].colour, markersize=5)
            phrases.append(f"{part}, {name} {with_interval(one['value'], one['low'], one['high'])}")
        mark_value(axes, 0, "instruct")
        mark_value(axes, 1, "")
        axes.set_xlabel(part)
        axes.set_yticks(range(len(variants)), [name.replace("_", " ") for name in variants])
    axes.invert_yaxis()
    return with_alt(
        figure, f"Change of care and of register by variant, with intervals. {'; '.join(phrases)}."
    )


@styled
def plot_beyond(table: pd.DataFrame, null: pd.DataFrame, *, seed: int) -> Figure:
    """Lines by layer of the cosine with base's shift of what each variant moves beyond secure, a panel a window.

    ``table`` has columns window, variant, layer, seed, value, low, high; ``null`` window, layer, low, high. Bands
    are those of ``seed``, open dots all seeds; the line marked ½ is where half of the squared length lies along.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    needed = ["window", "variant", "layer", "seed", "value", "low", "high"]
    require_columns(table, needed, place="shift beyond secure")
    windows, looks = list(dict.fromkeys(table["window"])), looks_of(variants_in(table))
    figure = new_figure(7.6, 3.3)
    panels = figure.subplots(1, len(windows), squeeze=False, sharex=True, sharey=True)[0]
    phrases = []
    for axes, window in zip(panels, windows, strict=True):
        grey = select(null, {"window": window})
        band(axes, grey["layer"].to_numpy(), grey[["low", "high"]].to_numpy(), NULL_COLOUR, null=True)
        rows = select(table, {"window": window})
        phrases += [f"{window}, {name}: {_line(axes, rows, name, seed)}" for name in looks]
        mark_value(axes, 0, "", vertical=False)
        mark_value(axes, HALF_OF_SQUARE, "½" if axes is panels[-1] else "", vertical=False)
        integer_ticks(axes, rows["layer"].to_numpy())
        axes.set_title(window)
        axes.set_xlabel("layer")
    shown = select(table, {"seed": seed})
    limit_to_estimates(
        panels[0], shown["value"].to_numpy(), shown[["low", "high"]].to_numpy(), include=(-1, 1)
    )
    panels[0].set_ylabel("cosine c with base's shift\n(no unit)")
    entries = [handle(look, label=f"{name} − secure", line=True) for name, look in looks.items()]
    legend_below(figure, [*entries, null_patch("random, the states' covariance")])
    return with_alt(figure, f"Cosine with base's shift by layer, beyond secure. {'. '.join(phrases)}.")


def _line(axes: Axes, rows: pd.DataFrame, name: str, seed: int) -> str:
    """One variant's curve with band and dots, in words."""
    look, own = looks_of([name])[name], select(rows, {"variant": name})
    first = select(own, {"seed": seed}).sort_values("layer")
    layers = first["layer"].to_numpy()
    band(axes, layers, first[["low", "high"]].to_numpy(), look.colour)
    seed_curves(axes, own, "value", look)
    curve(axes, layers, first["value"].to_numpy(), look)
    return along(first["value"].to_numpy(), layers)
