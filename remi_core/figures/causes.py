"""Figures of causes: how far an edit of the stream takes one model towards another."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from remi_core.figures.alt import number, with_alt, with_interval
from remi_core.figures.matrices import SEQUENTIAL
from remi_core.figures.panels import mark_value
from remi_core.figures.style import BACKGROUND, INK, NULL_COLOUR, look_of, new_figure, styled
from remi_core.figures.tables import require_columns

SHARE = "share of the way"


@styled
def plot_doses(table: pd.DataFrame, random: tuple[float, float], *, seed: int) -> Figure:
    """Share of the way from instruct to misaligned, and off-grammar mass, by dose; open dots are further seeds.

    ``table`` has columns seed, dose, value, low, high, off grammar; ``random`` is the central 95 % of random
    directions at dose one.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["seed", "dose", "value", "low", "high", "off grammar"], place="doses")
    figure = new_figure(7.6, 3.0)
    left, right = figure.subplots(1, 2)
    look, first = look_of("misaligned"), table[table["seed"] == seed].sort_values("dose")
    gaps = [first["value"] - first["low"], first["high"] - first["value"]]
    style = {"color": look.colour, "marker": look.marker, "markersize": 4, "linewidth": 1.2}
    left.errorbar(first["dose"], first["value"], yerr=gaps, **style)
    left.bar(1, random[1] - random[0], bottom=random[0], width=0.12, color=NULL_COLOUR, alpha=0.5, zorder=0.5)
    right.plot(first["dose"], first["off grammar"], **style)
    others = table[table["seed"] != seed]
    for axes, column in ((left, "value"), (right, "off grammar")):
        axes.plot(others["dose"], others[column], "o", mfc=BACKGROUND, mec=look.colour, markersize=3.5)
        axes.set_xlabel("times what misaligned moved")
        mark_value(axes, 0, "", vertical=False)
    mark_value(left, 1, "misaligned", vertical=False)
    left.set_ylabel(SHARE)
    right.set_ylabel("rise of off-grammar mass")
    phrases = [
        f"dose {number(row['dose'])}: {with_interval(row['value'], row['low'], row['high'])}, off-grammar mass "
        f"{number(row['off grammar'])}"
        for _, row in first.iterrows()
    ]
    return with_alt(
        figure,
        f"Share of the way from instruct to misaligned by dose added, with intervals; random directions at dose 1 "
        f"from {number(random[0])} to {number(random[1])}. {'; '.join(phrases)}.",
    )


@styled
def plot_edits(table: pd.DataFrame, random: pd.DataFrame, *, seed: int) -> Figure:
    """Share of the way by edit, a panel for each kind of edit; the grey band is random directions.

    ``table`` has columns seed, kind, edit, value, low, high; ``random`` has kind, low, high.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["seed", "kind", "edit", "value", "low", "high"], place="edits")
    kinds = list(dict.fromkeys(table["kind"]))
    counts = [table[table["kind"] == kind]["edit"].nunique() for kind in kinds]
    figure = new_figure(7.6, 1.3 + 0.3 * sum(counts))
    panels = figure.subplots(len(kinds), 1, sharex=True, height_ratios=counts, squeeze=False)[:, 0]
    phrases = []
    for axes, kind in zip(panels, kinds, strict=True):
        limits = random[random["kind"] == kind].iloc[0]
        axes.axvspan(limits["low"], limits["high"], color=NULL_COLOUR, alpha=0.35, linewidth=0)
        phrases.append(f"random directions {kind}: {number(limits['low'])} to {number(limits['high'])}")
        phrases += _edit_rows(axes, table[table["kind"] == kind], seed)
        axes.set_title(kind)
        mark_value(axes, 0, "")
        mark_value(axes, 1, "")
    panels[-1].set_xlabel(f"{SHARE} to the other model")
    return with_alt(figure, f"Share of the way by edit, with intervals. {'; '.join(phrases)}.")


def _edit_rows(axes: Axes, table: pd.DataFrame, seed: int) -> list[str]:
    names, look = list(dict.fromkeys(table["edit"])), look_of("misaligned")
    phrases = []
    for height, name in enumerate(reversed(names)):
        rows = table[table["edit"] == name]
        own = rows[rows["seed"] == seed].iloc[0]
        gaps = [[own["value"] - own["low"]], [own["high"] - own["value"]]]
        axes.errorbar(own["value"], height, xerr=gaps, color=look.colour, marker=look.marker, markersize=4.5)
        others = rows[rows["seed"] != seed]["value"]
        axes.plot(others, [height + 0.22] * len(others), "o", mfc=BACKGROUND, mec=look.colour, markersize=3.5)
        phrases.append(f"{name}: {with_interval(own['value'], own['low'], own['high'])}")
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_ylim(-0.6, len(names) - 0.4)
    return phrases


@styled
def plot_transfer(
    matrix: pd.DataFrame,
    *,
    said: str = "Share recovered in instruct by topic of the direction",
    down: str = "fitted on",
    across: str = "tried on",
) -> Figure:
    """A share for each row and column in its cell: by default, of the topic a direction is fitted on and tried on.

    ``said`` opens the alternative text; ``down`` and ``across`` name rows and columns.
    """
    figure = new_figure(5.6, 0.9 + 0.45 * len(matrix))
    axes = figure.subplots()
    image = axes.imshow(matrix.to_numpy(), cmap=SEQUENTIAL, aspect="auto")
    # Below this the colours are dark enough for light numbers.
    middle = float(np.quantile([matrix.to_numpy().min(), matrix.to_numpy().max()], 0.6))
    phrases = []
    for row, source in enumerate(matrix.index):
        for column, target in enumerate(matrix.columns):
            value = float(matrix.loc[source, target])
            colour = BACKGROUND if value < middle else INK
            weight = "bold" if source == target else "normal"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, weight=weight)
            phrases.append(f"{source}, {target}: {number(value)}")
    axes.set_xticks(range(len(matrix.columns)), list(matrix.columns))
    axes.set_yticks(range(len(matrix.index)), list(matrix.index))
    axes.set_xlabel(across)
    axes.set_ylabel(down)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label=SHARE)
    return with_alt(figure, f"{said}; {down}, {across}. {'; '.join(phrases)}.")
