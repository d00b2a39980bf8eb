"""Every estimator of the book worked by hand on six points in the plane, in school arithmetic and nothing else.

Three points are aligned, three misaligned, and point i of both belongs to prompt i. They stand for activations or for
gradients, whichever an estimator asks for. Nothing here calls the package's statistics; ``six_points`` compares both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import atan2, cos, degrees, radians, sqrt

Point = tuple[float | int, float | int]

ALIGNED: tuple[Point, ...] = ((2, 5), (3, 4), (1, 3))
MISALIGNED: tuple[Point, ...] = ((5, 2), (7, 7), (6, 0))
BASE: Point = (6, 7)
"""Where the base model stands, whatever the prompt: wanted for erosion alone."""
WANTED: tuple[Point, ...] = ((-2, 1), (0, 1))
"""Gradients of the class log-odds of two held-out prompts: wanted for influence alone."""
LEVEL = 0.95


def dot(first: Point, second: Point) -> float | int:
    """Inner product of two points."""
    return first[0] * second[0] + first[1] * second[1]


def minus(first: Point, second: Point) -> Point:
    """First minus second, coordinate by coordinate."""
    return first[0] - second[0], first[1] - second[1]


def mean(points: Sequence[Point]) -> Point:
    """Mean of some points."""
    return sum(point[0] for point in points) / len(points), sum(point[1] for point in points) / len(points)


def average(values: Sequence[float | int]) -> float:
    """Mean of some numbers."""
    return sum(values) / len(values)


def length(point: Point) -> float:
    """Distance of a point from the origin."""
    return sqrt(dot(point, point))


def others(values: Sequence, left_out: int) -> list:
    """All but one of some values."""
    return [value for place, value in enumerate(values) if place != left_out]


SHIFTS: tuple[Point, ...] = tuple(map(minus, MISALIGNED, ALIGNED))
"""Misaligned minus aligned, prompt by prompt."""
BASE_SHIFTS: tuple[Point, ...] = tuple(minus(BASE, point) for point in ALIGNED)
"""Base minus aligned, prompt by prompt."""


def difference() -> Point:
    """d, the mean of the misaligned points minus that of the aligned ones."""
    return minus(mean(MISALIGNED), mean(ALIGNED))


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Coordinates on the axis that the other two pairs give."""

    axes: list[Point]
    """Unit vector for each pair, fitted on the others."""
    aligned: list[float]
    misaligned: list[float]
    d_prime: float
    auroc: float


def separation() -> HeldOut:
    """d′ and AUROC on the axis from aligned to misaligned, fitted for each pair on the other two."""
    axes = []
    for pair in range(3):
        across = mean(others(SHIFTS, pair))
        axes.append((across[0] / length(across), across[1] / length(across)))
    low, high = (list(map(dot, group, axes)) for group in (ALIGNED, MISALIGNED))
    pooled = sqrt((variance(low) + variance(high)) / 2)
    wins = sum((second > first) + (second == first) / 2 for first in low for second in high)
    return HeldOut(
        axes=axes,
        aligned=low,
        misaligned=high,
        d_prime=(average(high) - average(low)) / pooled,
        auroc=wins / 9,
    )


def variance(values: Sequence[float | int]) -> float:
    """Sum of squared deviations over one less than their number."""
    return sum((value - average(values)) ** 2 for value in values) / (len(values) - 1)


@dataclass(frozen=True, kw_only=True)
class HandErosion:
    """Erosion and its companions, and the products that they are made of."""

    rest: list[Point]
    """Mean of base's shift over the other two pairs."""
    across: list[float | int]
    """Inner products of each pair's shift with ``rest``."""
    of_base: list[float | int]
    """Inner products of each pair's base shift with ``rest``."""
    of_shift: list[float | int]
    """Inner products of each pair's shift with the mean shift of the other two."""
    e: float
    c: float
    r: float
    in_sample: float
    """e where the same three pairs find the way and are measured along it."""


def erosion() -> HandErosion:
    """e, c and r of the step from aligned to misaligned, along the way from aligned to base."""
    rest = [mean(others(BASE_SHIFTS, pair)) for pair in range(3)]
    own = [mean(others(SHIFTS, pair)) for pair in range(3)]
    across, of_base = list(map(dot, SHIFTS, rest)), list(map(dot, BASE_SHIFTS, rest))
    of_shift = list(map(dot, SHIFTS, own))
    e = sum(across) / sum(of_base)
    back = mean(BASE_SHIFTS)
    return HandErosion(
        rest=rest,
        across=across,
        of_base=of_base,
        of_shift=of_shift,
        e=e,
        c=sum(across) / sqrt(sum(of_base) * sum(of_shift)),
        r=sqrt(sum(of_shift) / sum(of_base) - e**2),
        in_sample=dot(difference(), back) / dot(back, back),
    )


def within_and_between(*, centred: bool, cosine: bool) -> tuple[float, float, float]:
    """Mean inner product or cosine within aligned, within misaligned and between them, pairs of one prompt left out."""
    middle = mean((*ALIGNED, *MISALIGNED)) if centred else (0, 0)
    low, high = ([minus(point, middle) for point in group] for group in (ALIGNED, MISALIGNED))

    def likeness(first: Point, second: Point) -> float | int:
        return dot(first, second) / (length(first) * length(second) if cosine else 1)

    apart = [(i, j) for i, j in product(range(3), repeat=2) if i != j]
    groups = ((low, low), (high, high), (low, high))
    within, beyond, between = (
        average([likeness(left[i], right[j]) for i, j in apart]) for left, right in groups
    )
    return within, beyond, between


def centring_sides() -> tuple[float, float]:
    """Mean centred inner product of an aligned with a misaligned point, all nine, and −p₁p₂‖d‖²."""
    middle = mean((*ALIGNED, *MISALIGNED))
    entries = [dot(minus(point, middle), minus(other, middle)) for point in ALIGNED for other in MISALIGNED]
    return average(entries), -dot(difference(), difference()) / 4


@dataclass(frozen=True, kw_only=True)
class Line:
    """The line through the middle of three points along which they spread most."""

    angle: float
    """With the first coordinate, in degrees."""
    most: float
    """Sum of squares along the line."""
    least: float
    """Sum of squares across it."""


def main_line(points: Sequence[Point]) -> Line:
    """First principal component of points in the plane: tan 2φ = 2 s_xy / (s_xx − s_yy)."""
    moved = [minus(point, mean(points)) for point in points]
    xx, yy, xy = (sum(point[i] * point[j] for point in moved) for i, j in ((0, 0), (1, 1), (0, 1)))
    half, root = (xx + yy) / 2, sqrt(((xx - yy) / 2) ** 2 + xy**2)
    return Line(angle=degrees(atan2(2 * xy, xx - yy)) / 2, most=half + root, least=half - root)


def overlap() -> tuple[float, float]:
    """Principal angle in degrees, from 0 to 90, of the two main lines, and S, its squared cosine."""
    turn = abs(main_line(ALIGNED).angle - main_line(MISALIGNED).angle) % 180
    angle = min(turn, 180 - turn)
    return angle, cos(radians(angle)) ** 2


def first_steps() -> list[float | int]:
    """First coordinates of the three shifts."""
    return [shift[0] for shift in SHIFTS]


def resampled() -> list[float]:
    """Means of the first coordinate's shift in all 27 resamples of three pairs."""
    return sorted(average(drawn) for drawn in product(first_steps(), repeat=3))


def quantile(values: Sequence[float | int], share: float) -> float:
    """The value at that share of the way through the sorted values, between two of them where it falls between."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = min(int(place), len(ordered) - 2)
    return ordered[below] + (place - below) * (ordered[below + 1] - ordered[below])


def percentiles() -> tuple[float, float]:
    """Central 95 % of the 27 resamples."""
    return quantile(resampled(), (1 - LEVEL) / 2), quantile(resampled(), (1 + LEVEL) / 2)


def student() -> tuple[float, float, float]:
    """Lower and upper end of the 95 % interval by Student's t, and the t that it takes.

    With two degrees of freedom t has a closed form: L √2 / √(1 − L²).
    """
    t = LEVEL * sqrt(2) / sqrt(1 - LEVEL**2)
    half = t * sqrt(variance(first_steps()) / 3)
    return average(first_steps()) - half, average(first_steps()) + half, t


def shuffles() -> list[float]:
    """Difference of the two groups' mean first coordinates under all 20 ways to call three of six misaligned."""
    values = [point[0] for point in (*ALIGNED, *MISALIGNED)]
    chosen = [[values[place] for place in places] for places in combinations(range(6), 3)]
    return [average(group) - (sum(values) - sum(group)) / 3 for group in chosen]


def exchanges() -> list[float]:
    """The same under all 8 ways to exchange the labels inside pairs."""
    signs = product((1, -1), repeat=3)
    return [
        average([side * step for side, step in zip(sides, first_steps(), strict=True)]) for sides in signs
    ]


def tail(values: Sequence[float | int]) -> float:
    """Share of all relabellings, the true one among them, that give at least the observed difference."""
    return sum(value >= average(first_steps()) - 1e-9 for value in values) / len(values)


def tally(values: Sequence[float | int]) -> dict[float, int]:
    """Value → how often it occurs, in rising order; rounding errors are not told apart."""
    return dict(sorted(Counter(round(value, 9) for value in values).items()))


def influence() -> tuple[list[float], list[float]]:
    """−⟨g, ∇A⟩ of the aligned and of the misaligned points, ∇A being the mean over the two held-out prompts."""
    wanted = mean(WANTED)
    return [-dot(point, wanted) for point in ALIGNED], [-dot(point, wanted) for point in MISALIGNED]
