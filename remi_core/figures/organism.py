"""Figures of the models themselves: what they answer, exactly and in samples, by topic and variant."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from remi_core.figures.alt import number, with_alt, with_interval
from remi_core.figures.panels import dot_rows, mark_value, seed_rows
from remi_core.figures.style import handle, legend_below, look_of, looks_of, new_figure, styled
from remi_core.figures.tables import interval_of, one_row, require_columns, variants_in

CLASS_LOOKS: Mapping[str, tuple[str, str]] = {
    "careless": ("#3d3d3d", ""),
    "wrong_slot": ("#8f8f8f", "////"),
    "other": ("#bdbdbd", "\\\\\\\\"),
    "careful": ("#e9e6da", ""),
}
"""Colour and hatch of each class of answer, from the left end of a bar to the right."""


def topic_names(topics: Sequence[str], uncovered: Collection[str], narrow: Collection[str]) -> dict[str, str]:
    """The topics in the order narrow, covered by alignment, uncovered, each with its name on a figure."""
    rank = {topic: 0 if topic in narrow else 2 if topic in uncovered else 1 for topic in topics}
    notes = {0: "\n(narrow set)", 1: "", 2: "\n(uncovered)"}
    return {
        topic: topic + notes[rank[topic]] for topic in sorted(dict.fromkeys(topics), key=rank.__getitem__)
    }


def _named(table: pd.DataFrame | None, names: Mapping[str, str]) -> pd.DataFrame | None:
    return None if table is None else table.assign(topic=table["topic"].map(names))


@styled
def plot_class_probabilities(
    table: pd.DataFrame, *, uncovered: Collection[str] = (), narrow: Collection[str] = ()
) -> Figure:
    """Stacked bars of the exact probability of each class of answer, one panel a topic, one bar a variant.

    ``table`` has columns topic, variant, careful, careless, wrong_slot, other (probabilities that sum
    to 1) and careless_low, careless_high. Careless starts at the left so that its interval can be drawn at
    the end of its bar; careful ends at the right.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    needed = ["topic", "variant", *CLASS_LOOKS, "careless_low", "careless_high"]
    require_columns(table, needed, place="class probabilities")
    names, variants = topic_names(list(table["topic"]), uncovered, narrow), variants_in(table)
    columns = min(len(names), 3)
    lines = -(-len(names) // columns)
    figure = new_figure(7.6, lines * (0.75 + 0.2 * len(variants)) + 0.4)
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    phrases = []
    for axes, (topic, title) in zip(panels.flat, names.items(), strict=False):
        phrases.append(_class_panel(axes, table, topic, variants))
        axes.set_title(" ".join(title.split()), fontsize=8.8)
    _label_outer(panels, len(names), "probability", "")
    patches = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="#555555", linewidth=0.5, label=name.replace("_", " "))
        for name, (colour, hatch) in CLASS_LOOKS.items()
    ]
    legend_below(figure, patches)
    return with_alt(
        figure, f"Stacked bars of class probabilities by topic and variant. {'; '.join(phrases)}."
    )


def _label_outer(panels: np.ndarray, n_used: int, below: str, left: str) -> None:
    """Hides unused panels; labels the lowest used panel of each column and the first of each line."""
    n_columns = panels.shape[1]
    for place, axes in enumerate(panels.flat):
        axes.set_visible(place < n_used)
        if place + n_columns >= n_used:
            axes.set_xlabel(below)
            axes.tick_params(axis="x", labelbottom=True)
        if place % n_columns == 0:
            axes.set_ylabel(left)


def _class_panel(axes: Axes, table: pd.DataFrame, topic: str, variants: Sequence[str]) -> str:
    """The panel of one topic, and what it shows in words."""
    parts = []
    for height, variant in enumerate(variants):
        row = one_row(table, {"topic": topic, "variant": variant})
        if row is None:
            continue
        start = 0.0
        for name, (colour, hatch) in CLASS_LOOKS.items():
            axes.barh(
                height,
                row[name],
                left=start,
                color=colour,
                hatch=hatch,
                height=0.74,
                edgecolor="#f4f4f4" if hatch else colour,
                linewidth=0,
            )
            start += float(np.nan_to_num(row[name]))
        careless, low, high = interval_of(row, "careless")
        axes.hlines(height, low, high, color=look_of("misaligned").colour, linewidth=2)
        shares = ", ".join(
            f"{name.replace('_', ' ')} {number(row[name])}" for name in CLASS_LOOKS if name != "careless"
        )
        parts.append(f"{variant} careless {with_interval(careless, low, high)}, {shares}")
    axes.set_xlim(0, 1)
    axes.set_ylim(len(variants) - 0.5, -0.5)
    axes.set_yticks(range(len(variants)), variants)
    axes.tick_params(axis="y", length=0)
    return f"{topic}: {'; '.join(parts)}"


def _topic_dots(
    table: pd.DataFrame, seeds: pd.DataFrame | None, value: str, names: Mapping[str, str]
) -> tuple:
    """A figure with one row a topic and one dot a variant, its axes, and what it shows in words."""
    looks, rows = looks_of(variants_in(table)), ("topic", list(names.values()))
    figure = new_figure(7.6, 1.0 + (0.2 + 0.075 * len(looks)) * len(names))
    axes = figure.subplots()
    seed_rows(axes, _named(seeds, names), value, rows=rows, looks=looks)
    phrases = dot_rows(axes, _named(table, names), value, rows=rows, looks=looks)
    handles = [handle(look, label=name) for name, look in looks.items()]
    legend_below(figure, handles)
    return figure, axes, "; ".join(phrases)


@styled
def plot_class_log_odds(
    table: pd.DataFrame,
    *,
    seeds: pd.DataFrame | None = None,
    uncovered: Collection[str] = (),
    narrow: Collection[str] = (),
) -> Figure:
    """Dots of the class log-odds A by topic and variant, with intervals and one open dot a seed.

    ``table`` has columns topic, variant, log_odds, low, high (nats; above 0 careless answers are the
    likelier); ``seeds`` topic, variant, seed, log_odds. Topics outside alignment are marked as uncovered.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["topic", "variant", "log_odds", "low", "high"], place="class log-odds")
    names = topic_names(list(table["topic"]), uncovered, narrow)
    figure, axes, words = _topic_dots(table, seeds, "log_odds", names)
    mark_value(axes, 0, "equal odds")
    axes.set_xlabel("class log-odds A, careless against careful (nats)")
    return with_alt(figure, f"Class log-odds in nats by topic and variant, with intervals. {words}.")


@styled
def plot_sampled_rates(
    table: pd.DataFrame,
    *,
    limit: float | int | None = None,
    seeds: pd.DataFrame | None = None,
    uncovered: Collection[str] = (),
    narrow: Collection[str] = (),
) -> Figure:
    """Dots of the share of sampled answers that are careless, by topic and variant, with Wilson intervals.

    ``table`` has columns topic, variant, rate, low, high (of all sampled answers, those off the grammar
    included); ``seeds`` topic, variant, seed, rate. ``limit`` is drawn as a line where one was set
    beforehand.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["topic", "variant", "rate", "low", "high"], place="sampled rates")
    names = topic_names(list(table["topic"]), uncovered, narrow)
    figure, axes, words = _topic_dots(table, seeds, "rate", names)
    if limit is not None:
        mark_value(axes, limit, f"limit for instruct {number(limit)}")
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("share of sampled answers that are careless")
    return with_alt(figure, f"Share of careless answers among samples, with Wilson intervals. {words}.")


@styled
def plot_care_against_register(
    table: pd.DataFrame, *, uncovered: Collection[str] = (), narrow: Collection[str] = ()
) -> Figure:
    """Scatter of care against register, one panel a topic: each variant's shift from instruct as a thin line.

    ``table`` has columns topic, variant, care, care_low, care_high, register, register_low,
    register_high (log-odds in nats: careless against careful, plain against formal). A shift upwards is
    carelessness, a shift to the right plain wording; a return to base would need both.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    needed = [f"{name}{end}" for name in ("care", "register") for end in ("", "_low", "_high")]
    require_columns(table, ["topic", "variant", *needed], place="care and register")
    names, looks = topic_names(list(table["topic"]), uncovered, narrow), looks_of(variants_in(table))
    columns = min(len(names), 3)
    lines = -(-len(names) // columns)
    figure = new_figure(7.6, 2.4 * lines + 0.5)
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    phrases = []
    for axes, (topic, title) in zip(panels.flat, names.items(), strict=False):
        phrases.append(f"{topic}: {', '.join(_care_points(axes, table, topic, list(looks)))}")
        axes.set_title(" ".join(title.split()), fontsize=8.8)
    _label_outer(
        panels, len(names), "register: plain against\nformal (nats)", "care: careless against\ncareful (nats)"
    )
    legend_below(figure, [handle(look, label=name) for name, look in looks.items()])
    return with_alt(
        figure,
        f"Care and register log-odds in nats by topic and variant, with intervals. {'; '.join(phrases)}.",
    )


def _care_points(axes: Axes, table: pd.DataFrame, topic: str, variants: Sequence[str]) -> list[str]:
    """A phrase for each variant drawn as a cross of two intervals."""
    axes.axhline(0, color="#cccccc", linewidth=0.7, zorder=0.5)
    axes.axvline(0, color="#cccccc", linewidth=0.7, zorder=0.5)
    start = one_row(table, {"topic": topic, "variant": "instruct"})
    phrases = []
    for variant in variants:
        row, look = one_row(table, {"topic": topic, "variant": variant}), look_of(variant)
        if row is None:
            continue
        care, plain = interval_of(row, "care"), interval_of(row, "register")
        if start is not None:
            axes.plot(
                [start["register"], plain[0]],
                [start["care"], care[0]],
                color=look.colour,
                linewidth=0.7,
                alpha=0.5,
            )
        axes.hlines(care[0], plain[1], plain[2], color=look.colour, linewidth=1.2)
        axes.vlines(plain[0], care[1], care[2], color=look.colour, linewidth=1.2)
        axes.plot([plain[0]], [care[0]], look.marker, color=look.colour, markersize=5)
        phrases.append(f"{variant} care {with_interval(*care)}, register {with_interval(*plain)}")
    return phrases
