"""Figures of the page on six points: one for each estimator, drawn from the points and what was worked out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from remi_core.figures.alt import number, with_alt
from remi_core.figures.style import (
    INK,
    NULL_COLOUR,
    Look,
    handle,
    legend_below,
    look_of,
    new_figure,
    styled,
)

Points = Float[np.ndarray, "point 2"]
Vector = Float[np.ndarray, " 2"]

GROUPS: Mapping[str, Look] = {"aligned": look_of("instruct"), "misaligned": look_of("misaligned")}
AXES = ("first coordinate", "second coordinate")


def _said(point: Vector) -> str:
    return f"({number(round(float(point[0]), 9))}, {number(round(float(point[1]), 9))})"


def _plane(axes: Axes, *groups: Float[np.ndarray, "_ 2"]) -> None:
    """Equal units on both axes, a little room around everything drawn, and the two zero lines."""
    every = np.concatenate([*groups])
    low, high = every.min(axis=0) - 1, every.max(axis=0) + 1
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axes.axhline(0, color="#cccccc", linewidth=0.7, zorder=0.5)
    axes.axvline(0, color="#cccccc", linewidth=0.7, zorder=0.5)
    axes.set_xlabel(AXES[0])
    axes.set_ylabel(AXES[1])


def _arrow(axes: Axes, start: Vector, end: Vector, colour: str, *, width: float | int = 1.6) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": width, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=tuple(end), xytext=tuple(start), arrowprops=style)


def _scatter(axes: Axes, groups: Mapping[str, Points]) -> None:
    # The smaller marker lies on the larger one, so that two points in one place both show.
    for (name, points), size, beside in zip(groups.items(), (10, 6), (-17, 8), strict=True):
        look = GROUPS[name]
        axes.plot(*points.T, linestyle="none", color=look.colour, marker=look.marker, markersize=size)
        for place, point in enumerate(points, start=1):
            axes.annotate(f"{name[0]}{place}", tuple(point), xytext=(beside, 6), textcoords="offset points")


def _legend(figure: Figure) -> None:
    legend_below(figure, [handle(look, label=name) for name, look in GROUPS.items()])


def _listed(groups: Mapping[str, Points]) -> str:
    return "; ".join(f"{name} at {', '.join(map(_said, points))}" for name, points in groups.items())


@styled
def plot_difference(aligned: Points, misaligned: Points) -> Figure:
    """The points, thin lines between the two of a pair, the two means, and the arrow between them."""
    groups = {"aligned": aligned, "misaligned": misaligned}
    figure = new_figure(5.4, 5.2)
    axes = figure.subplots()
    for start, end in zip(aligned, misaligned, strict=True):
        axes.plot(*np.stack([start, end]).T, color=NULL_COLOUR, linewidth=0.8)
    _scatter(axes, groups)
    means = {name: points.mean(axis=0) for name, points in groups.items()}
    for name, mean in means.items():
        axes.plot(*mean, marker="+", markersize=14, markeredgewidth=2, color=GROUPS[name].colour)
    _arrow(axes, means["aligned"], means["misaligned"], INK)
    _plane(axes, aligned, misaligned)
    _legend(figure)
    said = ", ".join(f"mean {name} {_said(mean)}" for name, mean in means.items())
    across = _said(means["misaligned"] - means["aligned"])
    return with_alt(
        figure, f"Six points in pairs: {_listed(groups)}. Arrow from {said}: difference {across}."
    )


@styled
def plot_held_out(axes_of: Points, aligned: Sequence[float], misaligned: Sequence[float]) -> Figure:
    """One number line a pair: where its two points fall on the unit axis that the other two pairs give."""
    figure = new_figure(6.4, 2.9)
    axes = figure.subplots()
    values = {"aligned": np.round(aligned, 9), "misaligned": np.round(misaligned, 9)}
    rows = np.arange(len(axes_of), 0, -1)
    axes.hlines(rows, *_ends(np.concatenate([*values.values()])), color="#cccccc", linewidth=0.8)
    for name, found in values.items():
        look = GROUPS[name]
        axes.plot(found, rows, linestyle="none", color=look.colour, marker=look.marker, markersize=8)
        axes.axvline(found.mean(), color=look.colour, linestyle=look.line_style, linewidth=1)
    axes.set_yticks(rows, [f"pair {place}\naxis {_said(one)}" for place, one in enumerate(axes_of, 1)])
    axes.set_ylim(0.5, len(rows) + 0.5)
    axes.set_xlabel("coordinate on the axis of the other two pairs")
    _legend(figure)
    said = "; ".join(f"{name} at {', '.join(map(number, found))}" for name, found in values.items())
    return with_alt(figure, f"Held-out coordinates of three pairs: {said}. Lines at the two means.")


def _ends(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()) - 0.6, float(values.max()) + 0.6


@styled
def plot_triangle_of_means(shift: Vector, base_shift: Vector, share: float) -> Figure:
    """The mean way to base, the mean shift of misaligned, and the shift split along that way and beside it."""
    figure = new_figure(5.2, 4.4)
    axes = figure.subplots()
    start, foot = np.zeros(2), share * base_shift
    _arrow(axes, start, base_shift, look_of("base").colour)
    _arrow(axes, start, shift, GROUPS["misaligned"].colour, width=2)
    _arrow(axes, start, foot, look_of("base").colour, width=3.4)
    axes.plot(*np.stack([foot, shift]).T, color=INK, linestyle=(0, (2, 2)), linewidth=1.4)
    marks = {"instruct": start, "base": base_shift, "misaligned": shift}
    for name, place in marks.items():
        look = look_of(name)
        axes.plot(*place, marker=look.marker, color=look.colour, markersize=8)
    _plane(axes, np.stack([*marks.values()]))
    legend_below(figure, [handle(look_of(name), label=name) for name in marks])
    beside = number(float(np.linalg.norm(shift - foot)))
    text = (
        f"Mean shifts from instruct: base {_said(base_shift)}, misaligned {_said(shift)}. "
        f"A thick arrow covers {number(share)} of the way to base and ends at {_said(foot)}; "
        f"from there a dashed line of length {beside} leads to misaligned."
    )
    return with_alt(figure, text)


@styled
def plot_raw_and_centred(aligned: Points, misaligned: Points) -> Figure:
    """The same six points as arrows from the origin, and as arrows from their common mean."""
    groups, middle = (
        {"aligned": aligned, "misaligned": misaligned},
        np.concatenate([aligned, misaligned]).mean(0),
    )
    figure = new_figure(7.6, 4.2)
    panels = figure.subplots(1, 2)
    for axes, centre, title in zip(panels, (np.zeros(2), middle), ("raw", "centred"), strict=True):
        for name, points in groups.items():
            for point in points:
                _arrow(axes, np.zeros(2), point - centre, GROUPS[name].colour)
            moved = points - centre
            axes.plot(*moved.T, linestyle="none", marker=GROUPS[name].marker, color=GROUPS[name].colour)
        _plane(axes, np.concatenate([aligned, misaligned, [middle]]) - centre)
        axes.set_title(title)
    _legend(figure)
    moved = {name: points - middle for name, points in groups.items()}
    return with_alt(
        figure,
        f"Arrows from the origin, raw: {_listed(groups)}; after subtracting {_said(middle)}: {_listed(moved)}.",
    )


@styled
def plot_main_lines(aligned: Points, misaligned: Points, angles: tuple[float, float]) -> Figure:
    """Each group's three points about their mean, and the line along which they spread most."""
    figure = new_figure(5.2, 5.2)
    axes = figure.subplots()
    moved = {"aligned": aligned - aligned.mean(axis=0), "misaligned": misaligned - misaligned.mean(axis=0)}
    for name, angle in zip(moved, angles, strict=True):
        look, turned = GROUPS[name], np.radians(angle)
        along = np.array([np.cos(turned), np.sin(turned)]) * 5
        axes.plot(*np.stack([-along, along]).T, color=look.colour, linestyle=look.line_style, linewidth=1.4)
    _scatter(axes, moved)
    _plane(axes, *moved.values())
    _legend(figure)
    said = ", ".join(f"{name} {number(angle)}" for name, angle in zip(moved, angles, strict=True))
    return with_alt(
        figure, f"Points about their group's mean: {_listed(moved)}. Main lines, in degrees: {said}."
    )


@styled
def plot_counts(
    panels: Mapping[str, Mapping[float, int]], observed: float, *, label: str, ends: Mapping[str, tuple] = {}
) -> Figure:
    """A stack of dots for each value of an enumeration, one panel each, with the observed value and intervals."""
    figure = new_figure(7.0, 1.5 + 1.5 * len(panels))
    drawn = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, counts) in zip(drawn, panels.items(), strict=True):
        for value, count in counts.items():
            axes.plot([value] * count, np.arange(1, count + 1), "o", color=NULL_COLOUR, markersize=5)
        top = max(counts.values()) + 1
        for place, (low, high) in enumerate(ends.values()):
            axes.hlines(top + 0.9 * place, low, high, color=GROUP_INKS[place], linewidth=2.4)
        axes.axvline(observed, color=GROUPS["misaligned"].colour, linewidth=1.2)
        axes.set(title=name, ylabel="how many", ylim=(0.2, top + 0.6 + 0.9 * len(ends)))
        axes.set_yticks(range(1, top, 2))
    drawn[-1].set_xlabel(label)
    names = [handle(Look(GROUP_INKS[at], "None", "-"), label=one, line=True) for at, one in enumerate(ends)]
    observed_line = handle(Look(GROUPS["misaligned"].colour, "None", "-"), label="observed", line=True)
    legend_below(figure, [observed_line, *names])
    said = "; ".join(
        f"{name}: {', '.join(f'{number(value)} ({count})' for value, count in counts.items())}"
        for name, counts in panels.items()
    )
    spans = "".join(f"; {name} {number(low)} to {number(high)}" for name, (low, high) in ends.items())
    return with_alt(
        figure,
        f"All outcomes, in brackets how many give a value. {said}. Observed {number(observed)}{spans}.",
    )


GROUP_INKS = ("#00798c", "#5a6b12")


@styled
def plot_influence_sides(aligned: Points, misaligned: Points, wanted: Vector) -> Figure:
    """The points as gradients, the gradient of the log-odds, and the line on which a step changes nothing."""
    groups = {"aligned": aligned, "misaligned": misaligned}
    figure = new_figure(5.4, 5.2)
    axes = figure.subplots()
    along = np.array([-wanted[1], wanted[0]]) * 20
    axes.plot(*np.stack([-along, along]).T, color=INK, linestyle=(0, (4, 2)), linewidth=1)
    _arrow(axes, np.zeros(2), wanted, INK, width=2)
    _scatter(axes, groups)
    _plane(axes, aligned, misaligned, wanted[None], np.zeros((1, 2)))
    _legend(figure)
    said = "; ".join(
        f"{name} {', '.join(number(round(float(one), 9)) for one in -points @ wanted)}"
        for name, points in groups.items()
    )
    text = f"Six gradients, the gradient {_said(wanted)} of the log-odds, and the line at right angles to it."
    return with_alt(figure, f"{text} Influences: {said}.")
