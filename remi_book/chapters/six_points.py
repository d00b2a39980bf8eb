"""Six points in the plane: every estimator, worked step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from remi_book.chapters import by_hand
from remi_book.chapters.by_hand import ALIGNED as ALIGNED_of_by_hand
from remi_book.chapters.by_hand import BASE_SHIFTS, SHIFTS, Point
from remi_book.chapters.by_hand import MISALIGNED as MISALIGNED_of_by_hand
from remi_book.chapters.contexts import crossed_mean
from remi_book.figures.style import (
    INK,
    NULL_COLOUR,
    Look,
    handle,
    legend_below,
    look_of,
    new_figure,
    number,
    styled,
    with_alt,
)
from remi_core.statistics.displacement import (
    Contrast,
    Erosion,
    alignment_axis,
    cross_fitted_products,
    erosion_of_products,
    erosion_of_weights,
    measure_erosion,
    measure_separation,
)
from remi_core.statistics.groups import centred_gram, centring_identity, cosine_matrix, pair_means
from remi_core.statistics.nulls import permutation_p_value
from remi_core.statistics.resampling import (
    ClusterResamples,
    Estimate,
    cluster_folds,
    mean_interval,
    percentile_interval,
)
from remi_core.statistics.subspaces import overlap_and_largest, top_components

# Figures of the page on six points: one for each estimator, drawn from the points and what was worked out.

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


# The six points of ``by_hand`` through the package's own estimators, and both side by side.

PAIRS = ("pair 1", "pair 2", "pair 3")
PROMPTS = ("prompt 1", "prompt 2")
ALIGNED, MISALIGNED = np.array(by_hand.ALIGNED, float), np.array(by_hand.MISALIGNED, float)
BASE, WANTED = np.array(by_hand.BASE, float), np.array(by_hand.WANTED, float)
SIX = np.concatenate([ALIGNED, MISALIGNED])
LABELS = np.repeat([0, 1], len(PAIRS))
CLOSE = 1e-12


def one_layer(points: Float[np.ndarray, "pair 2"]) -> Float[np.ndarray, "pair 1 2"]:
    """The points as activations of a model with one layer."""
    return points[:, None, :]


def as_they_are(*names: str) -> ClusterResamples:
    """One resample, in which every cluster occurs once: for values without an interval."""
    kept = tuple(sorted(names))
    return ClusterResamples(kept, np.ones((1, len(kept)), dtype=np.int64), seed=0, strata=("",) * len(kept))


def every_resample() -> ClusterResamples:
    """All 27 resamples of three pairs, each once: what the package draws from at random."""
    drawn = np.array(list(product(range(3), repeat=3)))
    weights = (drawn[:, :, None] == np.arange(3)).sum(axis=1)
    return ClusterResamples(PAIRS, weights, seed=0, strata=("",) * 3)


def mean_first_step() -> Estimate:
    """Mean shift of the first coordinate, with all 27 resamples and its interval over pairs."""
    return mean_interval((MISALIGNED - ALIGNED)[:, 0], PAIRS, every_resample())


def erosion_without_interval() -> Erosion:
    """e, c and r as the package computes them, its rule on the denominator's interval set aside.

    With three pairs that rule calls e undefined, see ``erosion_as_ruled``.
    """
    shifts = one_layer(MISALIGNED - ALIGNED), one_layer(BASE - ALIGNED)
    products = cross_fitted_products(*shifts, PAIRS, as_they_are(*PAIRS))
    certain = np.repeat(products.value[None], len(PAIRS), axis=0)
    return erosion_of_products(replace(products, samples=certain[:1], left_out=certain))


def erosion_as_ruled() -> Erosion:
    """What ``measure_erosion`` says of three pairs."""
    shifts = one_layer(MISALIGNED - ALIGNED), one_layer(BASE - ALIGNED)
    return measure_erosion(*shifts, PAIRS, as_they_are(*PAIRS))


def _difference() -> list[float]:
    return list(alignment_axis(one_layer(ALIGNED), one_layer(MISALIGNED))[0])


def _by_hand_difference() -> list[float]:
    found = by_hand.difference()
    return [one / by_hand.length(found) for one in found]


def _separation() -> list[float]:
    contrast = Contrast(one_layer(ALIGNED), one_layer(MISALIGNED))
    found = measure_separation(contrast, PAIRS, as_they_are(*PAIRS))
    return [float(found.d_prime.value[0]), float(found.auroc.value[0])]


def _erosion() -> list[float]:
    found = erosion_without_interval()
    return [float(one.value[0]) for one in (found.erosion, found.cosine, found.residual)]


def _weighted_erosion() -> list[float]:
    folds, each = cluster_folds(len(PAIRS)), np.ones(len(PAIRS), dtype=np.int64)
    shifts = one_layer(MISALIGNED - ALIGNED), one_layer(BASE - ALIGNED)
    return [float(erosion_of_weights(*shifts, each, folds, each[None].astype(float))[0, 0])]


def _pairs(*, centred: bool) -> list[float]:
    gram = SIX @ SIX.T
    return list(
        pair_means(cosine_matrix(centred_gram(gram) if centred else gram), LABELS[None], PAIRS * 2)[0]
    )


def _overlap() -> list[float]:
    first, second = (top_components(one, 1, centred=True).vectors for one in (ALIGNED, MISALIGNED))
    shared, largest = overlap_and_largest(first, second)
    return [float(np.degrees(np.arccos(largest))), float(shared)]


def _percentiles() -> list[float]:
    return [float(end) for end in percentile_interval(mean_first_step().samples)]


def _student() -> list[float]:
    found = mean_first_step()
    return [float(found.low), float(found.high)]


def _tails() -> list[float]:
    """p values with the true labels taken out, since the function counts them itself."""
    tails = []
    for values in (by_hand.shuffles(), by_hand.exchanges()):
        observed = by_hand.difference()[0]
        rest = np.array(values)
        tails.append(permutation_p_value(observed, np.delete(rest, np.argmin(np.abs(rest - observed)))))
    return tails


def _influence() -> list[float]:
    return [
        float(crossed_mean(-group @ WANTED.T, PAIRS, PROMPTS, as_they_are(*PAIRS, *PROMPTS)).value)
        for group in (ALIGNED, MISALIGNED)
    ]


COMPARED: Mapping[str, tuple[str, Callable[[], list[float]], Callable[[], list[float]]]] = {
    "unit difference in means": ("alignment_axis", _by_hand_difference, _difference),
    "d′ and AUROC, held out": (
        "measure_separation",
        lambda: [by_hand.separation().d_prime, by_hand.separation().auroc],
        _separation,
    ),
    "e, cross-fitted": ("erosion_of_weights", lambda: [by_hand.erosion().e], _weighted_erosion),
    "e, c and r": (
        "erosion_of_products",
        lambda: [by_hand.erosion().e, by_hand.erosion().c, by_hand.erosion().r],
        _erosion,
    ),
    "raw cosines: within aligned, within misaligned, between": (
        "pair_means",
        lambda: list(by_hand.within_and_between(centred=False, cosine=True)),
        lambda: _pairs(centred=False),
    ),
    "the same, centred": (
        "pair_means",
        lambda: list(by_hand.within_and_between(centred=True, cosine=True)),
        lambda: _pairs(centred=True),
    ),
    "both sides of the centring identity": (
        "centring_identity",
        lambda: list(by_hand.centring_sides()),
        lambda: list(centring_identity(SIX @ SIX.T, LABELS)),
    ),
    "principal angle in degrees, and S": ("overlap_and_largest", lambda: list(by_hand.overlap()), _overlap),
    "central 95 % of 27 resamples": (
        "percentile_interval",
        lambda: list(by_hand.percentiles()),
        _percentiles,
    ),
    "interval by t": ("mean_interval", lambda: list(by_hand.student()[:2]), _student),
    "p of 20 shuffles and of 8 exchanges": (
        "permutation_p_value",
        lambda: [by_hand.tail(by_hand.shuffles()), by_hand.tail(by_hand.exchanges())],
        _tails,
    ),
    "mean influence: aligned, misaligned": (
        "crossed_mean",
        lambda: [by_hand.average(group) for group in by_hand.influence()],
        _influence,
    ),
}
"""What is estimated → the package's function, the arithmetic by hand, and the function's values."""


def comparison_table() -> pd.DataFrame:
    """One row an estimator: by hand, the package's function and its values, and whether they agree."""
    rows = []
    for name, (function, hand, package) in COMPARED.items():
        mine, theirs = np.array(hand()), np.array(package())
        rows.append(
            {
                "estimator": name,
                "by hand": listed(mine),
                "function": function,
                "what it returns": listed(theirs),
                "agree": bool(np.allclose(mine, theirs, rtol=0, atol=CLOSE)),
            }
        )
    return pd.DataFrame(rows)


def listed(values: np.ndarray) -> str:
    """Numbers in three digits, rounding errors of zero shown as zero."""
    return "; ".join(number(round(float(one), 9)) for one in values)


# The steps of the arithmetic on six points as tables, and its results as texts for the prose.

NAMES = ("a₁", "a₂", "a₃", "m₁", "m₂", "m₃")


def shown(value: float | int) -> str:
    """A number in three digits, a rounding error of zero shown as zero."""
    return number(round(value, 9))


def point(one: Point) -> str:
    """A point as it is written."""
    return f"({shown(one[0])}, {shown(one[1])})"


def with_commas(values: Sequence[float | int]) -> str:
    """Numbers with commas between."""
    return ", ".join(map(shown, values))


def points_table() -> pd.DataFrame:
    """The six points, and the shift of each pair."""
    return pd.DataFrame(
        {
            "pair": PAIRS,
            "aligned a": list(map(point, ALIGNED_of_by_hand)),
            "misaligned m": list(map(point, MISALIGNED_of_by_hand)),
            "shift m − a": list(map(point, SHIFTS)),
        }
    )


def separation_table() -> pd.DataFrame:
    """For each pair the axis of the other two, and where the pair's own points fall on it."""
    found = by_hand.separation()
    return pd.DataFrame(
        {
            "pair": PAIRS,
            "axis of the other two": list(map(point, found.axes)),
            "a on it": list(map(shown, found.aligned)),
            "m on it": list(map(shown, found.misaligned)),
        }
    )


def erosion_table() -> pd.DataFrame:
    """For each pair its shifts and their products with the mean way to base of the other two; sums below."""
    found = by_hand.erosion()
    rows = {
        "pair": [*PAIRS, "sum"],
        "shift of m": [*map(point, SHIFTS), ""],
        "shift of base": [*map(point, BASE_SHIFTS), ""],
        "way of the other two": [*map(point, found.rest), ""],
        "shift of m · way": [*map(shown, found.across), shown(sum(found.across))],
        "shift of base · way": [*map(shown, found.of_base), shown(sum(found.of_base))],
    }
    return pd.DataFrame(rows)


def gram_table() -> pd.DataFrame:
    """All inner products of the six points."""
    six = (*ALIGNED_of_by_hand, *MISALIGNED_of_by_hand)
    columns = {
        name: [shown(by_hand.dot(one, two)) for one in six] for name, two in zip(NAMES, six, strict=True)
    }
    return pd.DataFrame({"inner product": NAMES} | columns)


def cosine_table() -> pd.DataFrame:
    """Mean cosines within and between, raw and centred, and the difference that the book reports."""
    rows = []
    for name, centred in (("raw", False), ("centred", True)):
        aligned, misaligned, between = by_hand.within_and_between(centred=centred, cosine=True)
        rows.append(
            {
                "vectors": name,
                "within aligned": aligned,
                "within misaligned": misaligned,
                "between": between,
                "within − between": (aligned + misaligned) / 2 - between,
            }
        )
    return pd.DataFrame(rows)


def influence_table() -> pd.DataFrame:
    """What a small step on each point adds to the held-out log-odds, a unit of rate."""
    low, high = by_hand.influence()
    return pd.DataFrame(
        {"pair": PAIRS, "step on a": list(map(shown, low)), "step on m": list(map(shown, high))}
    )


def texts() -> dict[str, str]:
    """Name → text of every number that the page's prose names."""
    return {**_axis_texts(), **_pair_texts(), **_uncertainty_texts()}


def _axis_texts() -> dict[str, str]:
    d, held, found = by_hand.difference(), by_hand.separation(), by_hand.erosion()
    return {
        "d": point(d),
        "d_length": shown(by_hand.length(d)),
        "aligned_mean": point(by_hand.mean(ALIGNED_of_by_hand)),
        "misaligned_mean": point(by_hand.mean(MISALIGNED_of_by_hand)),
        "d_prime": shown(held.d_prime),
        "auroc": shown(held.auroc),
        "wins": shown(9 * held.auroc),
        "held_gap": shown(by_hand.average(held.misaligned) - by_hand.average(held.aligned)),
        "aligned_variance": shown(by_hand.variance(held.aligned)),
        "misaligned_variance": shown(by_hand.variance(held.misaligned)),
        "base": point(by_hand.BASE),
        "e_top": shown(sum(found.across)),
        "e_bottom": shown(sum(found.of_base)),
        "e_own": shown(sum(found.of_shift)),
        "e": shown(found.e),
        "c": shown(found.c),
        "r": shown(found.r),
        "e_in_sample": shown(found.in_sample),
        "e_denominator_low": shown(float(erosion_as_ruled().denominator.low[0])),
    }


def _pair_texts() -> dict[str, str]:
    between, forced = by_hand.centring_sides()
    within_aligned, within_misaligned, apart = by_hand.within_and_between(centred=False, cosine=False)
    first, second = by_hand.main_line(ALIGNED_of_by_hand), by_hand.main_line(MISALIGNED_of_by_hand)
    angle, shared = by_hand.overlap()
    return {
        "centred_between": shown(between),
        "forced": shown(forced),
        "d_squared": shown(-4 * forced),
        "d_squared_unbiased": shown(within_aligned + within_misaligned - 2 * apart),
        "within_aligned": shown(within_aligned),
        "within_misaligned": shown(within_misaligned),
        "between": shown(apart),
        "aligned_angle": shown(first.angle),
        "misaligned_angle": shown(second.angle),
        "aligned_share": f"{shown(first.most)} of {shown(first.most + first.least)}",
        "misaligned_share": f"{shown(second.most)} of {shown(second.most + second.least)}",
        "angle": shown(angle),
        "S": shown(shared),
    }


def _uncertainty_texts() -> dict[str, str]:
    low, high, t = by_hand.student()
    first, last = by_hand.percentiles()
    aligned, misaligned = by_hand.influence()
    shuffled, exchanged = by_hand.shuffles(), by_hand.exchanges()
    return {
        "steps": with_commas(by_hand.first_steps()),
        "step": shown(by_hand.average(by_hand.first_steps())),
        "n_resamples": str(len(by_hand.resampled())),
        "percentile": f"{shown(first)} to {shown(last)}",
        "t": shown(t),
        "student": f"{shown(low)} to {shown(high)}",
        "n_shuffles": str(len(shuffled)),
        "p_shuffle": shown(by_hand.tail(shuffled)),
        "n_exchanges": str(len(exchanged)),
        "p_exchange": shown(by_hand.tail(exchanged)),
        "wanted": point(by_hand.mean(by_hand.WANTED)),
        "influence_aligned": shown(by_hand.average(aligned)),
        "influence_misaligned": shown(by_hand.average(misaligned)),
        "influence_gap": shown(by_hand.average(misaligned) - by_hand.average(aligned)),
    }
