"""Figures of section 4.4: component cosines, subspace similarity between its floor and ceiling, and scree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from remi_core.figures.alt import along, number, value_range, with_alt, with_interval
from remi_core.figures.matrices import DIVERGING, annotate_cells, symmetric
from remi_core.figures.panels import band, curve, integer_ticks, null_patch, null_rows, seed_dots
from remi_core.figures.style import NULL_COLOUR, Look, handle, legend_below, looks_of, new_figure, styled
from remi_core.figures.tables import interval_of, one_row, require_columns, select

TREATMENTS: Mapping[str, Look] = {
    "centred": Look("#00798c", "o", "-"),
    "uncentred": Look("#a3297a", "X", (0, (4, 1.6))),
}
ENDS = ["floor_low", "floor_high", "ceiling_low", "ceiling_high"]
CEILING_COLOUR = "#c9b458"


@styled
def plot_component_cosines(
    cosines: Float[np.ndarray, "component_a component_b"], *, names: tuple[str, str], layer: int
) -> Figure:
    """Heat map of the cosines between the components of two sets, with every value written in.

    ``names`` are the sets of the rows and of the columns. The sign of a component is arbitrary.

    Source: Giordani (2025), section 4.4, figure 6.
    """
    rows, columns = cosines.shape
    figure = new_figure(1.9 + 0.62 * columns, 1.2 + 0.48 * rows)
    axes = figure.subplots()
    image = axes.imshow(np.ma.masked_invalid(cosines), cmap=DIVERGING, norm=symmetric(1.0), aspect="auto")
    annotate_cells(axes, image, cosines)
    axes.set_xticks(range(columns), range(1, columns + 1))
    axes.set_yticks(range(rows), range(1, rows + 1))
    axes.set_xlabel(f"component of {names[1]}")
    axes.set_ylabel(f"component of {names[0]}")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label="cosine (no unit)")
    lines = "; ".join(
        f"{names[0]} {row + 1}: {', '.join(number(value) for value in cosines[row])}" for row in range(rows)
    )
    return with_alt(
        figure,
        f"Cosines between components at layer {layer}, a row for each component of {names[0]}, "
        f"a column for each of {names[1]}. {lines}.",
    )


@styled
def plot_similarity_by_layer(table: pd.DataFrame, *, floor_label: str, ceiling_label: str) -> Figure:
    """Lines of subspace similarity S by layer between floor and ceiling: a column a pair, a row a treatment.

    ``table`` has columns pair, treatment ("centred" or "uncentred"), layer, similarity, low, high,
    floor_low, floor_high, ceiling_low, ceiling_high; S lies in [0, 1].

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    needed = ["pair", "treatment", "layer", "similarity", "low", "high", *ENDS]
    require_columns(table, needed, place="similarity by layer")
    pairs = list(dict.fromkeys(table["pair"]))
    treatments = [name for name in TREATMENTS if name in set(table["treatment"])]
    figure = new_figure(7.6, 0.8 + 1.9 * len(treatments))
    panels = figure.subplots(len(treatments), len(pairs), squeeze=False, sharex=True, sharey=True)
    phrases = []
    for line, treatment in zip(panels, treatments, strict=True):
        for axes, pair in zip(line, pairs, strict=True):
            rows = select(table, {"pair": pair, "treatment": treatment}).sort_values("layer")
            phrases.append(f"{pair}, {treatment}: {_similarity_panel(axes, rows, TREATMENTS[treatment])}")
        line[0].set_ylabel(f"similarity S, {treatment}\n(no unit)")
    for axes, pair in zip(panels[0], pairs, strict=True):
        axes.set_title(pair)
    for axes in panels[-1]:
        axes.set_xlabel("layer")
    legend_below(figure, _similarity_legend(treatments, floor_label, ceiling_label), n_columns=2)
    return with_alt(figure, f"Subspace similarity S by layer with intervals. {'. '.join(phrases)}.")


def _similarity_panel(axes: Axes, rows: pd.DataFrame, look: Look) -> str:
    """One pair in one treatment, and what it shows in words."""
    layers = rows["layer"].to_numpy()
    band(axes, layers, rows[["floor_low", "floor_high"]].to_numpy(), NULL_COLOUR, null=True)
    band(axes, layers, rows[["ceiling_low", "ceiling_high"]].to_numpy(), CEILING_COLOUR, null=True)
    band(axes, layers, rows[["low", "high"]].to_numpy(), look.colour)
    curve(axes, layers, rows["similarity"].to_numpy(), look)
    axes.set_ylim(-0.02, 1.02)
    integer_ticks(axes, layers)
    floor = value_range([*rows["floor_low"], *rows["floor_high"]])
    ceiling = value_range([*rows["ceiling_low"], *rows["ceiling_high"]])
    return f"S {along(rows['similarity'].to_numpy(), layers)}; floor {floor}; ceiling {ceiling}"


def _similarity_legend(treatments: Sequence[str], floor_label: str, ceiling_label: str) -> list:
    ceiling = null_patch(f"ceiling: {ceiling_label}")
    ceiling.set_facecolor(CEILING_COLOUR)
    lines = [handle(TREATMENTS[name], label=f"S, {name}", line=True) for name in treatments]
    return [*lines, null_patch(f"floor: {floor_label}"), ceiling]


@styled
def plot_similarity_by_pair(
    table: pd.DataFrame,
    *,
    floor_label: str,
    ceiling_label: str,
    layer: int,
    seeds: pd.DataFrame | None = None,
) -> Figure:
    """Dots of subspace similarity S at one layer by pair of sets, both treatments, on floor and ceiling.

    ``table`` has columns pair, treatment, similarity, low, high, floor_low, floor_high, ceiling_low,
    ceiling_high; ``seeds`` pair, treatment, seed, similarity. S lies in [0, 1].

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(
        table, ["pair", "treatment", "similarity", "low", "high", *ENDS], place="similarity by pair"
    )
    pairs = list(dict.fromkeys(table["pair"]))
    treatments = [name for name in TREATMENTS if name in set(table["treatment"])]
    figure = new_figure(7.6, 1.4 + 0.3 * len(pairs))
    phrases = []
    panels = figure.subplots(1, len(treatments), squeeze=False, sharex=True, sharey=True)[0]
    for axes, treatment in zip(panels, treatments, strict=True):
        dots = None if seeds is None else select(seeds, {"treatment": treatment})
        drawn = _pair_rows(axes, select(table, {"treatment": treatment}), pairs, TREATMENTS[treatment], dots)
        phrases.append(f"{treatment} – {'; '.join(drawn)}")
        axes.set_xlim(-0.02, 1.02)
        axes.set_title(treatment)
        axes.set_xlabel(f"similarity S at layer {layer} (no unit)")
    legend_below(figure, _similarity_legend(treatments, floor_label, ceiling_label), n_columns=2)
    return with_alt(figure, f"Subspace similarity S at layer {layer} with intervals. {'. '.join(phrases)}.")


def _pair_rows(
    axes: Axes, table: pd.DataFrame, pairs: Sequence[str], look: Look, seeds: pd.DataFrame | None
) -> list[str]:
    """A phrase for each pair, drawn as a dot with its interval between a floor and a ceiling block."""
    phrases = []
    ends: dict[str, list[float]] = {name: [] for name in ENDS}
    for height, pair in enumerate(pairs):
        row = one_row(table, {"pair": pair})
        for name in ENDS:
            ends[name].append(np.nan if row is None else float(row[name]))
        if row is None:
            continue
        value, low, high = interval_of(row, "similarity")
        axes.hlines(height, low, high, color=look.colour, linewidth=1.6, zorder=2.5)
        axes.plot([value], [height], look.marker, color=look.colour, markersize=5.5, zorder=3)
        if seeds is not None:
            seed_dots(axes, seeds.loc[seeds["pair"] == pair, "similarity"], height, look.colour)
        phrases.append(
            f"{pair} {with_interval(value, low, high)}, floor {value_range(row[ENDS[:2]])}, "
            f"ceiling {value_range(row[ENDS[2:]])}"
        )
    null_rows(axes, ends["floor_low"], ends["floor_high"])
    null_rows(axes, ends["ceiling_low"], ends["ceiling_high"], colour=CEILING_COLOUR)
    axes.set_yticks(range(len(pairs)), pairs)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    return phrases


@styled
def plot_scree(
    shares: Mapping[str, Float[np.ndarray, " component"]],
    intervals: Mapping[str, Float[np.ndarray, "component 2"]],
) -> Figure:
    """Lines of the share of variance of each component, one a set, with interval bands; logarithmic scale."""
    looks = looks_of(list(shares))
    figure = new_figure(6.4, 3.4)
    axes = figure.subplots()
    phrases, entries = [], []
    for name, look in looks.items():
        components = np.arange(1, len(shares[name]) + 1)
        band(axes, components, intervals[name], look.colour)
        curve(axes, components, shares[name], look)
        phrases.append(f"{name} {along(shares[name], components, axis='component')}")
        entries.append(handle(look, label=name, line=True))
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")  # the default writes powers in mathematics, which tokens forbid
    axes.yaxis.set_minor_formatter("")
    integer_ticks(axes, components, most=12)
    axes.set_xlabel("component")
    axes.set_ylabel("share of variance (logarithmic)")
    legend_below(figure, entries, n_columns=min(len(entries), 3))
    return with_alt(figure, f"Share of variance by component, with intervals. {'; '.join(phrases)}.")
