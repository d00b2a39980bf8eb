"""Six points in the plane: every estimator, worked step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import SupportsFloat

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from remi_book.chapters import by_hand
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
from remi_book.statistics import alignment_axis, centring_identity, erosion_of_weights
from remi_core.statistics import displacement, resampling
from remi_core.statistics.groups import cosine_matrix, pair_means
from remi_core.statistics.nulls import permutation_p_value
from remi_core.statistics.subspaces import overlap_and_largest, top_components
from remi_lab.statistics import centred_gram

# Figures of the page on six points: one for each estimator, drawn from the points and what was worked out.

Points = Float[np.ndarray, "point 2"]
Vector = Float[np.ndarray, " 2"]

GROUPS: Mapping[str, Look] = {"aligned": look_of("instruct"), "misaligned": look_of("misaligned")}
LEGEND = [handle(look, label=name) for name, look in GROUPS.items()]


def shown(value: SupportsFloat) -> str:
    """A number in three digits, a rounding error of zero shown as zero."""
    return number(round(float(value), 9))


def written(point: Vector | by_hand.Point) -> str:
    """A point as it is written."""
    return f"({shown(point[0])}, {shown(point[1])})"


def _plane(axes: Axes, *groups: Float[np.ndarray, "_ 2"]) -> None:
    """Equal units on both axes, a little room around everything drawn, and the two zero lines."""
    every = np.concatenate([*groups])
    low, high = every.min(axis=0) - 1, every.max(axis=0) + 1
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axes.axhline(0, color="#cccccc", linewidth=0.7, zorder=0.5)
    axes.axvline(0, color="#cccccc", linewidth=0.7, zorder=0.5)
    axes.set_xlabel("first coordinate")
    axes.set_ylabel("second coordinate")


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


def _listed(groups: Mapping[str, Points]) -> str:
    return "; ".join(f"{name} at {', '.join(map(written, points))}" for name, points in groups.items())


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
    legend_below(figure, LEGEND)
    said = ", ".join(f"mean {name} {written(mean)}" for name, mean in means.items())
    across = written(means["misaligned"] - means["aligned"])
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
    every = np.concatenate([*values.values()])
    axes.hlines(rows, every.min() - 0.6, every.max() + 0.6, color="#cccccc", linewidth=0.8)
    for name, found in values.items():
        look = GROUPS[name]
        axes.plot(found, rows, linestyle="none", color=look.colour, marker=look.marker, markersize=8)
        axes.axvline(found.mean(), color=look.colour, linestyle=look.line_style, linewidth=1)
    axes.set_yticks(rows, [f"pair {place}\naxis {written(axis)}" for place, axis in enumerate(axes_of, 1)])
    axes.set_ylim(0.5, len(rows) + 0.5)
    axes.set_xlabel("coordinate on the axis of the other two pairs")
    legend_below(figure, LEGEND)
    said = "; ".join(f"{name} at {', '.join(map(number, found))}" for name, found in values.items())
    return with_alt(figure, f"Held-out coordinates of three pairs: {said}. Lines at the two means.")


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
        f"Mean shifts from instruct: base {written(base_shift)}, misaligned {written(shift)}. "
        f"A thick arrow covers {number(share)} of the way to base and ends at {written(foot)}; "
        f"from there a dashed line of length {beside} leads to misaligned."
    )
    return with_alt(figure, text)


@styled
def plot_raw_and_centred(aligned: Points, misaligned: Points) -> Figure:
    """The same six points as arrows from the origin, and as arrows from their common mean."""
    groups = {"aligned": aligned, "misaligned": misaligned}
    middle = np.concatenate([aligned, misaligned]).mean(0)
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
    legend_below(figure, LEGEND)
    moved = {name: points - middle for name, points in groups.items()}
    return with_alt(
        figure,
        f"Arrows from the origin, raw: {_listed(groups)}; after subtracting {written(middle)}: {_listed(moved)}.",
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
    legend_below(figure, LEGEND)
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
    names = [
        handle(Look(GROUP_INKS[place], "None", "-"), label=name, line=True) for place, name in enumerate(ends)
    ]
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
    legend_below(figure, LEGEND)
    said = "; ".join(f"{name} {', '.join(map(shown, -points @ wanted))}" for name, points in groups.items())
    text = (
        f"Six gradients, the gradient {written(wanted)} of the log-odds, and the line at right angles to it."
    )
    return with_alt(figure, f"{text} Influences: {said}.")


# The six points of ``by_hand`` through the package's own estimators, and both side by side.

PAIRS = ("pair 1", "pair 2", "pair 3")
PROMPTS = ("prompt 1", "prompt 2")
ALIGNED, MISALIGNED = np.array(by_hand.ALIGNED, float), np.array(by_hand.MISALIGNED, float)
BASE, WANTED = np.array(by_hand.BASE, float), np.array(by_hand.WANTED, float)
SIX = np.concatenate([ALIGNED, MISALIGNED])
LABELS = np.repeat([0, 1], len(PAIRS))
CLOSE = 1e-12

Values = Sequence[SupportsFloat] | np.ndarray


def as_they_are(*names: str) -> resampling.ClusterResamples:
    """One resample, in which every cluster occurs once: for values without an interval."""
    kept = tuple(sorted(names))
    return resampling.ClusterResamples(
        kept, np.ones((1, len(kept)), dtype=np.int64), seed=0, strata=("",) * len(kept)
    )


def every_resample() -> resampling.ClusterResamples:
    """All 27 resamples of three pairs, each once: what the package draws from at random."""
    drawn = np.array(list(product(range(3), repeat=3)))
    weights = (drawn[:, :, None] == np.arange(3)).sum(axis=1)
    return resampling.ClusterResamples(PAIRS, weights, seed=0, strata=("",) * 3)


def mean_first_step() -> resampling.Estimate:
    """Mean shift of the first coordinate, with all 27 resamples and its interval over pairs."""
    return resampling.mean_interval((MISALIGNED - ALIGNED)[:, 0], PAIRS, every_resample())


def _shifts() -> tuple[Float[np.ndarray, "pair 1 2"], Float[np.ndarray, "pair 1 2"]]:
    """Misaligned's and base's shift from the aligned points, as those of a model with one layer."""
    return (MISALIGNED - ALIGNED)[:, None], (BASE - ALIGNED)[:, None]


def erosion_without_interval() -> displacement.Erosion:
    """e, c and r as the package computes them, its rule on the denominator's interval set aside.

    With three pairs that rule calls e undefined, see ``erosion_as_ruled``.
    """
    products = displacement.cross_fitted_products(*_shifts(), PAIRS, as_they_are(*PAIRS))
    certain = np.repeat(products.value[None], len(PAIRS), axis=0)
    return displacement.erosion_of_products(replace(products, samples=certain[:1], left_out=certain))


def erosion_as_ruled() -> displacement.Erosion:
    """What ``measure_erosion`` says of three pairs."""
    return displacement.measure_erosion(*_shifts(), PAIRS, as_they_are(*PAIRS))


def compared() -> dict[str, tuple[str, Values, Values]]:
    """What is estimated → the package's function, the values worked by hand, and those of the function."""
    once, each = as_they_are(*PAIRS), np.ones(len(PAIRS), dtype=np.int64)
    d, held, eroded = by_hand.difference(), by_hand.separation(), by_hand.erosion()
    models = ALIGNED[:, None], MISALIGNED[:, None]
    separation = displacement.measure_separation(displacement.Contrast(*models), PAIRS, once)
    erosion = erosion_without_interval()
    gram = SIX @ SIX.T
    raw, centred = (
        pair_means(cosine_matrix(matrix), LABELS[None], PAIRS * 2)[0] for matrix in (gram, centred_gram(gram))
    )
    hand_raw, hand_centred = (
        by_hand.within_and_between(centred=centred, cosine=True) for centred in (False, True)
    )
    shared, largest = overlap_and_largest(
        *(top_components(points, 1, centred=True).vectors for points in (ALIGNED, MISALIGNED))
    )
    step, relabelled = mean_first_step(), (by_hand.shuffles(), by_hand.exchanges())
    # The true labels are taken out, since the function counts them itself.
    others = [np.delete(values, np.argmin(np.abs(np.array(values) - d[0]))) for values in relabelled]
    axis = [coordinate / by_hand.length(d) for coordinate in d]
    e = erosion_of_weights(*_shifts(), each, resampling.cluster_folds(len(PAIRS)), each[None].astype(float))[
        0
    ]
    ecr = [float(part.value[0]) for part in (erosion.erosion, erosion.cosine, erosion.residual)]
    tails = [by_hand.tail(values) for values in relabelled]
    p_values = [permutation_p_value(d[0], rest) for rest in others]
    both = as_they_are(*PAIRS, *PROMPTS)
    influence = [
        crossed_mean(-group @ WANTED.T, PAIRS, PROMPTS, both).value for group in (ALIGNED, MISALIGNED)
    ]
    separated = [separation.d_prime.value[0], separation.auroc.value[0]]
    angle, interval = np.degrees(np.arccos(largest)), resampling.percentile_interval(step.samples)
    centring = by_hand.centring_sides(), centring_identity(gram, LABELS)
    averages = [by_hand.average(group) for group in by_hand.influence()]
    return {
        "unit difference in means": ("alignment_axis", axis, alignment_axis(*models)[0]),
        "d′ and AUROC, held out": ("measure_separation", [held.d_prime, held.auroc], separated),
        "e, cross-fitted": ("erosion_of_weights", [eroded.e], e),
        "e, c and r": ("erosion_of_products", [eroded.e, eroded.c, eroded.r], ecr),
        "raw cosines: within aligned, within misaligned, between": ("pair_means", hand_raw, raw),
        "the same, centred": ("pair_means", hand_centred, centred),
        "both sides of the centring identity": ("centring_identity", *centring),
        "principal angle in degrees, and S": ("overlap_and_largest", by_hand.overlap(), [angle, shared]),
        "central 95 % of 27 resamples": ("percentile_interval", by_hand.percentiles(), interval),
        "interval by t": ("mean_interval", by_hand.student()[:2], [step.low, step.high]),
        "p of 20 shuffles and of 8 exchanges": ("permutation_p_value", tails, p_values),
        "mean influence: aligned, misaligned": ("crossed_mean", averages, influence),
    }


def comparison_table() -> pd.DataFrame:
    """One row an estimator: by hand, the package's function and its values, and whether they agree."""
    return pd.DataFrame(
        {
            "estimator": name,
            "by hand": "; ".join(map(shown, hand)),
            "function": function,
            "what it returns": "; ".join(map(shown, package)),
            "agree": bool(np.allclose(hand, package, rtol=0, atol=CLOSE)),
        }
        for name, (function, hand, package) in compared().items()
    )


# The steps of the arithmetic on six points as tables, and its results as texts for the prose.

NAMES = ("a₁", "a₂", "a₃", "m₁", "m₂", "m₃")


def points_table() -> pd.DataFrame:
    """The six points, and the shift of each pair."""
    return pd.DataFrame(
        {
            "pair": PAIRS,
            "aligned a": list(map(written, by_hand.ALIGNED)),
            "misaligned m": list(map(written, by_hand.MISALIGNED)),
            "shift m − a": list(map(written, by_hand.SHIFTS)),
        }
    )


def separation_table() -> pd.DataFrame:
    """For each pair the axis of the other two, and where the pair's own points fall on it."""
    held = by_hand.separation()
    return pd.DataFrame(
        {
            "pair": PAIRS,
            "axis of the other two": list(map(written, held.axes)),
            "a on it": list(map(shown, held.aligned)),
            "m on it": list(map(shown, held.misaligned)),
        }
    )


def erosion_table() -> pd.DataFrame:
    """For each pair its shifts and their products with the mean way to base of the other two; sums below."""
    eroded = by_hand.erosion()
    return pd.DataFrame(
        {
            "pair": [*PAIRS, "sum"],
            "shift of m": [*map(written, by_hand.SHIFTS), ""],
            "shift of base": [*map(written, by_hand.BASE_SHIFTS), ""],
            "way of the other two": [*map(written, eroded.rest), ""],
            "shift of m · way": [*map(shown, eroded.across), shown(sum(eroded.across))],
            "shift of base · way": [*map(shown, eroded.of_base), shown(sum(eroded.of_base))],
        }
    )


def gram_table() -> pd.DataFrame:
    """All inner products of the six points."""
    six = (*by_hand.ALIGNED, *by_hand.MISALIGNED)
    columns = {
        name: [shown(by_hand.dot(point, other)) for point in six]
        for name, other in zip(NAMES, six, strict=True)
    }
    return pd.DataFrame({"inner product": NAMES} | columns)


def cosine_table() -> pd.DataFrame:
    """Mean cosines within and between, raw and centred, and the difference that the book reports."""
    rows = []
    for name, centred in (("raw", False), ("centred", True)):
        aligned, misaligned, between = by_hand.within_and_between(centred=centred, cosine=True)
        rows.append((name, aligned, misaligned, between, (aligned + misaligned) / 2 - between))
    columns = ["vectors", "within aligned", "within misaligned", "between", "within − between"]
    return pd.DataFrame(rows, columns=columns)


def influence_table() -> pd.DataFrame:
    """What a small step on each point adds to the held-out log-odds, a unit of rate."""
    aligned, misaligned = (list(map(shown, group)) for group in by_hand.influence())
    return pd.DataFrame({"pair": PAIRS, "step on a": aligned, "step on m": misaligned})


def texts() -> dict[str, str]:
    """Name → text of every number that the page's prose names."""
    d, held, eroded = by_hand.difference(), by_hand.separation(), by_hand.erosion()
    between_centred, forced = by_hand.centring_sides()
    within_aligned, within_misaligned, between = by_hand.within_and_between(centred=False, cosine=False)
    groups = {"aligned": by_hand.ALIGNED, "misaligned": by_hand.MISALIGNED}
    lines = {name: by_hand.main_line(points) for name, points in groups.items()}
    (angle, shared), (low, high, t) = by_hand.overlap(), by_hand.student()
    influence = [by_hand.average(group) for group in by_hand.influence()]
    shuffled, exchanged = by_hand.shuffles(), by_hand.exchanges()
    numbers = {
        "d_length": by_hand.length(d),
        "d_prime": held.d_prime,
        "auroc": held.auroc,
        "wins": 9 * held.auroc,
        "held_gap": by_hand.average(held.misaligned) - by_hand.average(held.aligned),
        "aligned_variance": by_hand.variance(held.aligned),
        "misaligned_variance": by_hand.variance(held.misaligned),
        "e_top": sum(eroded.across),
        "e_bottom": sum(eroded.of_base),
        "e_own": sum(eroded.of_shift),
        **{name: getattr(eroded, name) for name in "ecr"},
        "e_in_sample": eroded.in_sample,
        "e_denominator_low": erosion_as_ruled().denominator.low[0],
        "centred_between": between_centred,
        "forced": forced,
        "d_squared": -4 * forced,
        "d_squared_unbiased": within_aligned + within_misaligned - 2 * between,
        "within_aligned": within_aligned,
        "within_misaligned": within_misaligned,
        "between": between,
        **{f"{name}_angle": line.angle for name, line in lines.items()},
        "angle": angle,
        "S": shared,
        "step": by_hand.average(by_hand.first_steps()),
        "n_resamples": len(by_hand.resampled()),
        "t": t,
        "n_shuffles": len(shuffled),
        "p_shuffle": by_hand.tail(shuffled),
        "n_exchanges": len(exchanged),
        "p_exchange": by_hand.tail(exchanged),
        "influence_aligned": influence[0],
        "influence_misaligned": influence[1],
        "influence_gap": influence[1] - influence[0],
    }
    aligned, wanted = by_hand.mean(by_hand.ALIGNED), by_hand.mean(by_hand.WANTED)
    points = {"d": d, "aligned_mean": aligned, "base": by_hand.BASE, "wanted": wanted}
    points["misaligned_mean"] = by_hand.mean(by_hand.MISALIGNED)
    sums = {f"{name}_share": (line.most, line.most + line.least) for name, line in lines.items()}
    return {
        **{name: shown(value) for name, value in numbers.items()},
        **{name: written(point) for name, point in points.items()},
        **{name: " of ".join(map(shown, pair)) for name, pair in sums.items()},
        "steps": ", ".join(map(shown, by_hand.first_steps())),
        "percentile": " to ".join(map(shown, by_hand.percentiles())),
        "student": f"{shown(low)} to {shown(high)}",
    }
