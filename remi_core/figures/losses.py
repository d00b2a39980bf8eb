"""Figures of section 4.2.1: loss vectors by cosine, by components and in the 2 × 2 of model and data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from remi_core.errors import UsageError
from remi_core.figures.alt import number, value_range, with_alt, with_interval
from remi_core.figures.matrices import (
    DIVERGING,
    SEQUENTIAL,
    describe_blocks,
    draw_grouped_matrix,
    off_diagonal,
    symmetric,
)
from remi_core.figures.panels import component_axes, null_patch, null_rows, scatter_groups
from remi_core.figures.style import Look, handle, legend_below, looks_of, new_figure, styled
from remi_core.variants import in_order


@styled
def plot_loss_cosines(
    cosines: Float[np.ndarray, "dialogue dialogue"], groups: Sequence[str], *, model: str
) -> Figure:
    """Heat map of cosines between per-token loss vectors, rows sorted by group, with each block's mean.

    ``groups`` names the group of each row; ``model`` the variant whose losses they are. Losses are not
    negative, so their cosine lies in [0, 1]; centred vectors may go below 0 and get a scale centred there.

    Raises:
        UsageError: if the rows of a group are not adjacent, or the groups do not name every row.

    Source: Giordani (2025), section 4.2.1.
    """
    others = off_diagonal(cosines)
    lowest, highest = float(np.nanmin(others)), float(np.nanmax(others))
    crosses = lowest < 0
    norm = symmetric(max(-lowest, highest)) if crosses else Normalize(lowest, highest)
    figure = new_figure(5.6, 4.6)
    axes = figure.subplots()
    image = draw_grouped_matrix(
        axes, cosines, groups, norm=norm, colours=DIVERGING if crosses else SEQUENTIAL
    )
    axes.set_title(f"losses of {model}, mean of each block written in")
    figure.colorbar(image, ax=axes, label="cosine (no unit)", shrink=0.85)
    return with_alt(
        figure,
        f"Heat map of cosines between {len(cosines)} loss vectors of {model}: "
        f"{describe_blocks(cosines, groups)}.",
    )


@styled
def plot_loss_components(
    scores: Float[np.ndarray, "point 2"],
    *,
    models: Sequence[str],
    groups: Sequence[str],
    variance_shares: Float[np.ndarray, " 2"],
) -> Figure:
    """Scatter of loss vectors on two components: colour for the model, filled or open for the data set.

    ``models`` and ``groups`` name the variant and the data set of each point.

    Raises:
        UsageError: if there are more than two data sets, which filled and open could not tell apart.

    Source: Giordani (2025), section 4.2.1, drawn as a full 2 × 2.
    """
    names, looks = list(dict.fromkeys(groups)), looks_of(in_order(list(models)))
    if len(names) > 2:
        raise UsageError(f"{len(names)} data sets; this figure shows two, filled and open: {names}")
    figure = new_figure(6.4, 4.2)
    axes = figure.subplots()
    handles, phrases = [], []
    for model, look in looks.items():
        for place, group in enumerate(names):
            keep = (np.asarray(models) == model) & (np.asarray(groups) == group)
            if not keep.any():
                continue
            handles.append(_cloud(axes, scores[keep], look, label=f"{model}, {group}", hollow=place == 1))
            middle = np.nanmean(scores[keep], axis=0)
            phrases.append(
                f"{model} on {group} ({keep.sum()} points) {number(middle[0])}, {number(middle[1])}"
            )
    component_axes(axes, variance_shares)
    legend_below(figure, handles, n_columns=2)
    shares = " and ".join(f"{share:.0%}" for share in variance_shares)
    return with_alt(
        figure,
        f"Scatter of loss vectors on two components with {shares} of the variance. "
        f"Mean positions: {'; '.join(phrases)}.",
    )


def _cloud(
    axes: Axes, points: Float[np.ndarray, "point 2"], look: Look, *, label: str, hollow: bool
) -> Line2D:
    """The legend entry of a cloud of points, after drawing it."""
    scatter_groups(axes, points, np.ones(len(points), dtype=bool), look, hollow=hollow)
    entry = handle(look, label=label)
    entry.set_markerfacecolor("none" if hollow else look.colour)
    return entry


@styled
def plot_variance_shares(
    names: Sequence[str],
    shares: Float[np.ndarray, " part"],
    intervals: Float[np.ndarray, "part 2"],
    *,
    nulls: Float[np.ndarray, "part 2"],
    null_label: str,
) -> Figure:
    """Dots of the share of variance that each part of the 2 × 2 of model and data explains, with its null.

    ``names`` are the parts, such as model, data set, interaction, within; shares lie in [0, 1].
    """
    figure = new_figure(7.0, 1.1 + 0.32 * len(names))
    axes = figure.subplots()
    colour = "#00798c"
    null_rows(axes, nulls[:, 0], nulls[:, 1])
    axes.hlines(range(len(names)), intervals[:, 0], intervals[:, 1], color=colour, linewidth=1.6)
    axes.plot(shares, range(len(names)), "o", color=colour, markersize=5.5)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("share of the variance of loss vectors")
    legend_below(figure, [null_patch(null_label)])
    phrases = [
        f"{name} {with_interval(share, *interval)}, null {value_range(null)}"
        for name, share, interval, null in zip(names, shares, intervals, nulls, strict=True)
    ]
    return with_alt(figure, f"Shares of variance with intervals; grey: {null_label}. {'; '.join(phrases)}.")
