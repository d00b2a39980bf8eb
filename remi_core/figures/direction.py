"""Figures of section 4.3: projections, erosion and separation by layer, and the tokens a direction writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from remi_core.figures.alt import along, number, value_range, with_alt
from remi_core.figures.panels import (
    band,
    curve,
    integer_ticks,
    limit_to_estimates,
    mark_value,
    null_patch,
    seed_curves,
)
from remi_core.figures.style import (
    NULL_COLOUR,
    Look,
    handle,
    legend_below,
    look_of,
    looks_of,
    new_figure,
    styled,
)
from remi_core.figures.tables import require_columns, select, variants_in
from remi_core.figures.tokens import visible_token
from remi_core.variants import in_order

EROSION_LABELS: Mapping[str, str] = {
    "e": "erosion e\n(no unit)",
    "c": "cosine c with\nbase's shift",
    "r": "remainder r\n(of base's shift)",
}


@styled
def plot_projections(
    layers: Int[np.ndarray, " layer"],
    means: Mapping[str, Float[np.ndarray, " layer"]],
    intervals: Mapping[str, Float[np.ndarray, "layer 2"]],
) -> Figure:
    """Lines of the mean projection on the alignment direction by layer, one a variant, with interval bands.

    Projections are in units of the residual stream; ``intervals`` holds lower and upper ends.

    Source: Giordani (2025), section 4.3, figure 5.
    """
    looks = looks_of(in_order(list(means)))
    figure = new_figure(7.2, 3.8)
    axes = figure.subplots()
    axes.axhline(0, color="#cccccc", linewidth=0.7, zorder=0.5)
    for name, look in looks.items():
        band(axes, layers, intervals[name], look.colour)
        curve(axes, layers, means[name], look)
    integer_ticks(axes, layers, most=16)
    axes.set_xlabel("layer (block output)")
    axes.set_ylabel("mean projection on the direction\n(units of the residual stream)")
    legend_below(figure, [handle(look, label=name, line=True) for name, look in looks.items()])
    words = "; ".join(f"{name} {along(means[name], layers)}" for name in looks)
    return with_alt(figure, f"Mean projection on the alignment direction by layer, with intervals. {words}.")


@styled
def plot_erosion(
    table: pd.DataFrame,
    *,
    seeds: pd.DataFrame | None = None,
    null: pd.DataFrame | None = None,
    null_label: str = "null, central 95 %",
) -> Figure:
    """Small multiples of erosion e, cosine c and remainder r by layer: a row for each, a column a window.

    ``table`` has columns window, variant, layer and e, c, r each with _low and _high; a value that is
    not finite leaves a gap. ``seeds`` has window, variant, layer, seed, e, c, r; ``null`` window, layer,
    low, high for e. On e, 0 is instruct and 1 is base. Windows keep the order of the table.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    needed = [f"{name}{end}" for name in EROSION_LABELS for end in ("", "_low", "_high")]
    require_columns(table, ["window", "variant", "layer", *needed], place="erosion table")
    windows, looks = list(dict.fromkeys(table["window"])), looks_of(variants_in(table))
    figure = new_figure(7.6, 5.9)
    panels = figure.subplots(3, len(windows), squeeze=False, sharex=True, sharey="row")
    ranges: list[str] = []
    for column, window in enumerate(windows):
        panels[0, column].set_title(window)
        if null is not None:
            ranges.append(_null_band(panels[0, column], null, window))
        rows, dots = select(table, {"window": window}), _in_window(seeds, window)
        for axes, value in zip(panels[:, column], EROSION_LABELS, strict=True):
            _window_panel(axes, rows, value, looks, seeds=dots)
        _mark_ends(panels[:2, column], named=column == len(windows) - 1)
        integer_ticks(panels[2, column], table["layer"].to_numpy())
        panels[2, column].set_xlabel("layer")
    _label_quantities(panels[:, 0], table)
    entries = [handle(look, label=name, line=True) for name, look in looks.items()]
    legend_below(figure, entries + ([null_patch(null_label)] if ranges else []))
    words = _describe_windows(table, windows, list(looks), list(EROSION_LABELS))
    grey = f" Grey, {null_label}, for e: {'; '.join(ranges)}." if ranges else ""
    start = "Erosion e, cosine c and remainder r by layer, with intervals; e is 0 at instruct and 1 at base."
    return with_alt(figure, f"{start} {words}.{grey}")


def _mark_ends(panels: np.ndarray, *, named: bool) -> None:
    """Reference lines of erosion and cosine, named at the right of the last column."""
    mark_value(panels[0], 0, "instruct" if named else "", vertical=False)
    mark_value(panels[0], 1, "base" if named else "", vertical=False)
    mark_value(panels[1], 0, "", vertical=False)


def _label_quantities(panels: np.ndarray, table: pd.DataFrame) -> None:
    """Name and limits of each row of panels."""
    for axes, (value, label) in zip(panels, EROSION_LABELS.items(), strict=True):
        axes.set_ylabel(label)
        ends = table[[f"{value}_low", f"{value}_high"]].to_numpy()
        limit_to_estimates(axes, table[value].to_numpy(), ends, include=(0, 1))


def _null_band(axes: Axes, null: pd.DataFrame, window: str) -> str:
    """The range of the null of one window in words, after drawing it."""
    rows = select(null, {"window": window}).sort_values("layer")
    band(axes, rows["layer"].to_numpy(), rows[["low", "high"]].to_numpy(), NULL_COLOUR, null=True)
    return f"{window} {value_range([*rows['low'], *rows['high']])}"


def _in_window(seeds: pd.DataFrame | None, window: str) -> pd.DataFrame | None:
    return None if seeds is None else select(seeds, {"window": window})


def _window_panel(
    axes: Axes, table: pd.DataFrame, value: str, looks: Mapping[str, Look], *, seeds: pd.DataFrame | None
) -> None:
    """One quantity in one window: a line and a band for each variant, a dot for each seed."""
    for name, look in looks.items():
        rows = select(table, {"variant": name}).sort_values("layer")
        layers = rows["layer"].to_numpy()
        band(axes, layers, rows[[f"{value}_low", f"{value}_high"]].to_numpy(), look.colour)
        seed_curves(axes, None if seeds is None else select(seeds, {"variant": name}), value, look)
        curve(axes, layers, rows[value].to_numpy(), look)


def _describe_windows(
    table: pd.DataFrame, windows: Sequence[str], variants: Sequence[str], values: Sequence[str]
) -> str:
    parts = []
    for window in windows:
        for name in variants:
            rows = select(table, {"window": window, "variant": name}).sort_values("layer")
            words = "; ".join(
                f"{value} {along(rows[value].to_numpy(), rows['layer'].to_numpy())}" for value in values
            )
            parts.append(f"{window}, {name}: {words}")
    return ". ".join(parts)


@styled
def plot_separation(
    table: pd.DataFrame, null: pd.DataFrame, *, null_label: str, seeds: pd.DataFrame | None = None
) -> Figure:
    """Lines of the separation d′ of each variant from instruct by layer, a panel a window, over a null band.

    ``table`` has columns window, variant, layer, d, d_low, d_high (in pooled standard deviations);
    ``null`` window, layer, low, high; ``seeds`` window, variant, layer, seed, d.

    Raises:
        UsageError: if a column is missing or a table is empty.
    """
    require_columns(table, ["window", "variant", "layer", "d", "d_low", "d_high"], place="separation table")
    require_columns(null, ["window", "layer", "low", "high"], place="separation null")
    windows, looks = list(dict.fromkeys(table["window"])), looks_of(variants_in(table))
    figure = new_figure(7.6, 3.3)
    panels = figure.subplots(1, len(windows), squeeze=False, sharex=True, sharey=True)[0]
    ranges = []
    for axes, window in zip(panels, windows, strict=True):
        ranges.append(_null_band(axes, null, window))
        _window_panel(axes, select(table, {"window": window}), "d", looks, seeds=_in_window(seeds, window))
        mark_value(axes, 0, "", vertical=False)
        integer_ticks(axes, table["layer"].to_numpy())
        axes.set_title(window)
        axes.set_xlabel("layer")
    panels[0].set_ylabel("separation d′ from instruct\n(pooled standard deviations)")
    entries = [handle(look, label=name, line=True) for name, look in looks.items()]
    legend_below(figure, [*entries, null_patch(null_label)])
    return with_alt(
        figure,
        "Separation d′ from instruct by layer, with intervals. "
        f"{_describe_windows(table, windows, list(looks), ['d'])}. "
        f"Grey, {null_label}: {'; '.join(ranges)}.",
    )


@styled
def plot_written_tokens(
    raised: Sequence[str],
    raised_change: Float[np.ndarray, " raised"],
    lowered: Sequence[str],
    lowered_change: Float[np.ndarray, " lowered"],
    *,
    ends: tuple[str, str] = ("base", "instruct"),
) -> Figure:
    """Bars of the tokens whose logit a direction raises and lowers most, strongest first.

    Changes are in logits per unit of direction, read through final norm and unembedding. ``ends`` are
    the variants that the direction leads from and to, and give the bars their colours.
    """
    figure = new_figure(7.2, 0.9 + 0.2 * max(len(raised), len(lowered)))
    panels = figure.subplots(1, 2)
    phrases = []
    parts = ((lowered, lowered_change, ends[0], "lowers"), (raised, raised_change, ends[1], "raises"))
    for axes, (tokens, change, variant, verb) in zip(panels, parts, strict=True):
        axes.barh(range(len(tokens)), change, color=look_of(variant).colour, height=0.72)
        axes.set_yticks(range(len(tokens)), [visible_token(token) for token in tokens])
        axes.set_ylim(len(tokens) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_title(f"{verb} (toward {variant})")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("change of logit\n(per unit of direction)")
        pairs = zip(tokens, change, strict=True)
        phrases.append(
            f"{verb} " + ", ".join(f"“{visible_token(token)}” {number(value)}" for token, value in pairs)
        )
    return with_alt(
        figure, f"Bars of the tokens that the direction writes, in logits. It {'; it '.join(phrases)}."
    )
