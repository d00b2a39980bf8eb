"""Figures of section 4.1: running joint log-probability, next tokens, and the table of data sets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from remi_core.errors import UsageError
from remi_core.figures.alt import number, with_alt
from remi_core.figures.matrices import SEQUENTIAL
from remi_core.figures.panels import dot_rows, mark_value, null_patch, null_rows, seed_rows
from remi_core.figures.style import handle, legend_below, look_of, looks_of, new_figure, styled
from remi_core.figures.tables import require_columns, variants_in
from remi_core.figures.tokens import visible_token
from remi_core.variants import in_order

TOKENS_A_LINE = 26
LINEAR_UP_TO = 2.0
"""Where an index axis turns logarithmic, if it has to."""


@styled
def plot_token_heat_map(
    tokens: Sequence[str], joint_log_probability: Mapping[str, Float[np.ndarray, " token"]]
) -> Figure:
    """Heat map of the running joint log-probability of one answer: variants as rows, its tokens as columns.

    ``joint_log_probability`` holds for each variant the sum of log-probabilities up to and with each
    token, in nats. Long answers are broken into lines like text; the last value is written at the end.

    Raises:
        UsageError: if a variant's values do not match the tokens.

    Source: Giordani (2025), section 4.1.
    """
    variants = in_order(list(joint_log_probability))
    for name in variants:
        if len(joint_log_probability[name]) != len(tokens):
            raise UsageError(f"{name}: {len(joint_log_probability[name])} values for {len(tokens)} tokens")
    joint = np.stack([np.asarray(joint_log_probability[name], float) for name in variants])
    starts = range(0, len(tokens), TOKENS_A_LINE)
    figure = new_figure(7.6, len(starts) * (0.95 + 0.24 * len(variants)) + 0.3)
    panels = figure.subplots(len(starts), 1, squeeze=False)[:, 0]
    norm = Normalize(np.nanmin(joint), np.nanmax(joint))
    width = min(len(tokens), TOKENS_A_LINE)
    for axes, start in zip(panels, starts, strict=True):
        stop = min(start + TOKENS_A_LINE, len(tokens))
        image = axes.imshow(
            np.ma.masked_invalid(joint[:, start:stop]),
            aspect="auto",
            norm=norm,
            cmap=SEQUENTIAL,
            extent=(start - 0.5, stop - 0.5, len(variants) - 0.5, -0.5),
        )
        axes.set_xlim(start - 0.5, start + width - 0.5)
        _name_columns(axes, range(start, stop), tokens[start:stop])
        _name_rows(axes, variants)
    _write_last(panels[-1], joint, len(tokens))
    figure.colorbar(image, ax=list(panels), label="log-probability so far (nats)", pad=0.09, aspect=14)
    ends = ", ".join(f"{name} {number(joint[row, -1])}" for row, name in enumerate(variants))
    start = f"Heat map of the running joint log-probability over {len(tokens)} answer tokens."
    return with_alt(figure, f"{start} After the last token, in nats: {ends}.")


def _name_columns(axes: Axes, places: Sequence[int], tokens: Sequence[str]) -> None:
    axes.set_xticks(places, [visible_token(token) for token in tokens])
    for label in axes.get_xticklabels():
        # Aligned on the base line: the sign for a blank hangs below it.
        label.set(rotation=90, rotation_mode="anchor", ha="right", va="center_baseline")


def _name_rows(axes: Axes, variants: Sequence[str]) -> None:
    axes.set_yticks(range(len(variants)), variants)
    for label, name in zip(axes.get_yticklabels(), variants, strict=True):
        label.set_color(look_of(name).colour)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _write_last(axes: Axes, joint: np.ndarray, n_tokens: int) -> None:
    for row, value in enumerate(joint[:, -1]):
        axes.annotate(
            number(value),
            (n_tokens - 0.5, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            annotation_clip=False,
        )


@styled
def plot_next_tokens(
    tokens: Mapping[str, Sequence[str]],
    probabilities: Mapping[str, Float[np.ndarray, " rank"]],
    *,
    intervals: Mapping[str, Float[np.ndarray, "rank 2"]] | None = None,
    marked: Collection[str] = (),
) -> Figure:
    """Bars of the most probable next tokens, one panel a variant, most probable first.

    Tokens keep their blanks, shown as signs, so that different tokens never share a label; those in
    ``marked`` are hatched. ``intervals`` holds lower and upper ends where the probabilities are means.

    Source: Giordani (2025), section 4.1.
    """
    variants = in_order(list(tokens))
    deepest = max(len(tokens[name]) for name in variants)
    figure = new_figure(7.6, 0.9 + 0.2 * deepest)
    panels = figure.subplots(1, len(variants), squeeze=False, sharex=True)[0]
    phrases = []
    for axes, name in zip(panels, variants, strict=True):
        values = np.asarray(probabilities[name], float)
        _token_bars(axes, name, tokens[name], values, marked)
        if intervals is not None:
            low, high = np.asarray(intervals[name], float).T
            axes.hlines(range(len(values)), low, high, color="#777777", linewidth=1.6)
        axes.set_ylim(deepest - 0.5, -0.5)
        pairs = zip(tokens[name], values, strict=True)
        phrases.append(
            f"{name}: " + ", ".join(f"“{visible_token(token)}” {number(value)}" for token, value in pairs)
        )
    hatched = (
        f" Hatched where shown: {', '.join(visible_token(token) for token in marked)}." if marked else ""
    )
    return with_alt(
        figure, f"Bars of the most probable next tokens by variant. {'; '.join(phrases)}.{hatched}"
    )


def _token_bars(
    axes: Axes, variant: str, tokens: Sequence[str], values: np.ndarray, marked: Collection[str]
) -> None:
    colour = look_of(variant).colour
    bars = axes.barh(range(len(values)), values, color=colour, height=0.72)
    for bar, token in zip(bars, tokens, strict=True):
        bar.set_hatch("////" if token in marked else None)
    axes.set_yticks(range(len(values)), [visible_token(token) for token in tokens])
    axes.tick_params(axis="y", length=0)
    axes.set_title(variant, color=colour)
    axes.set_xlabel("probability")


@styled
def plot_dataset_table(table: pd.DataFrame, *, seeds: pd.DataFrame | None = None) -> Figure:
    """Dots of mean log-probability and mean entropy a token, by data set and variant, with intervals.

    ``table`` has columns dataset, variant, log_probability, log_probability_low, log_probability_high,
    entropy, entropy_low, entropy_high (nats a token); ``seeds`` has dataset, variant, seed,
    log_probability, entropy.

    Raises:
        UsageError: if a column is missing or the table is empty.

    Source: Giordani (2025), section 4.1, tables of joint probability and entropy.
    """
    quantities = {
        "log_probability": "mean log-probability\n(nats per token)",
        "entropy": "mean entropy\n(nats per token)",
    }
    needed = [f"{name}{end}" for name in quantities for end in ("", "_low", "_high")]
    require_columns(table, ["dataset", "variant", *needed], place="table of data sets")
    datasets, looks = list(dict.fromkeys(table["dataset"])), looks_of(variants_in(table))
    figure = new_figure(7.6, 1.2 + (0.16 + 0.07 * len(looks)) * len(datasets))
    phrases = []
    for axes, (name, label) in zip(figure.subplots(1, 2, sharey=True), quantities.items(), strict=True):
        seed_rows(axes, seeds, name, rows=("dataset", datasets), looks=looks)
        drawn = dot_rows(axes, table, name, rows=("dataset", datasets), looks=looks)
        axes.set_xlabel(label)
        phrases.append(f"{' '.join(label.split())} – {'; '.join(drawn)}")
    legend_below(figure, [handle(look, label=name) for name, look in looks.items()])
    return with_alt(figure, f"Dots with intervals by data set and variant. {'. '.join(phrases)}.")


@styled
def plot_index(
    table: pd.DataFrame, *, quantity: str, null_label: str, seeds: pd.DataFrame | None = None
) -> Figure:
    """Dots of the index (I − X)/(I − B) by data set: 0 where a variant X is at instruct, 1 where at base.

    ``table`` has columns dataset, index, low, high, null_low, null_high and, where it holds more than
    misaligned, variant; ``seeds`` dataset, seed, index and variant alike. A row whose index is undefined
    stays, empty. ``quantity`` names what is compared, ``null_label`` the grey band.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["dataset", "index", "low", "high", "null_low", "null_high"], place="index table")
    rows, dots = (
        one if one is None or "variant" in one else one.assign(variant="misaligned") for one in (table, seeds)
    )
    datasets, looks = list(dict.fromkeys(rows["dataset"])), looks_of(variants_in(rows))
    nulls = rows.drop_duplicates("dataset")
    figure = new_figure(7.6, 1.3 + (0.2 + 0.07 * len(looks)) * len(datasets))
    axes = figure.subplots()
    null_rows(axes, nulls["null_low"], nulls["null_high"])
    seed_rows(axes, dots, "index", rows=("dataset", datasets), looks=looks)
    phrases = dot_rows(axes, rows, "index", rows=("dataset", datasets), looks=looks)
    _mark_ends(axes)
    note = _widen(axes)
    axes.set_xlabel(f"index of {quantity}: (instruct − variant) / (instruct − base), no unit{note}")
    handles = [handle(look, label=name) for name, look in looks.items()]
    legend_below(figure, [*handles, null_patch(null_label)])
    bands = [
        f"{phrase}; null {number(null.null_low)} to {number(null.null_high)}"
        for phrase, null in zip(phrases, nulls.itertuples(index=False), strict=True)
    ]
    return with_alt(
        figure,
        f"Index of {quantity}, 0 at instruct and 1 at base, with intervals; grey: {null_label}. "
        f"{'; '.join(bands)}.",
    )


def _mark_ends(axes: Axes) -> None:
    """Lines at 0 and 1 with their meaning, the words on either side, where they cannot meet."""
    for value, word, side in ((0, "instruct ", "right"), (1, " base", "left")):
        mark_value(axes, value, "")
        place = {"xytext": (0, 2), "textcoords": "offset points", "ha": side, "va": "bottom"}
        axes.annotate(
            word, (value, 1), xycoords=("data", "axes fraction"), fontsize=8, color="#555555", **place
        )


def _widen(axes: Axes) -> str:
    """A note for the axis label: a scale logarithmic beyond ``LINEAR_UP_TO`` where the values reach far, else none.

    An index may be a ratio of small differences, and one such row must not squeeze all others to a line.
    """
    low, high = axes.get_xlim()
    if max(-low, high) <= 3 * LINEAR_UP_TO:
        return ""
    axes.set_xscale("symlog", linthresh=LINEAR_UP_TO, linscale=1.5)
    ticks = [sign * size for size in (1, LINEAR_UP_TO, 5, 10, 100, 1000) for sign in (-1, 1)]
    ticks = sorted(tick for tick in [0, *ticks] if low <= tick <= high)
    axes.set_xticks(ticks, [number(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(low, high)
    return f"\n(logarithmic beyond ±{number(LINEAR_UP_TO)})"
