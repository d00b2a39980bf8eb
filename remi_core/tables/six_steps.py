"""The steps of the arithmetic on six points as tables, and its results as texts for the prose."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from remi_core.figures.alt import number
from remi_core.tables import by_hand
from remi_core.tables.by_hand import ALIGNED, BASE_SHIFTS, MISALIGNED, SHIFTS, Point
from remi_core.tables.six_points import PAIRS, erosion_as_ruled

NAMES = ("a₁", "a₂", "a₃", "m₁", "m₂", "m₃")


def shown(value: float | int) -> str:
    """A number in three digits, a rounding error of zero shown as zero."""
    return number(round(value, 9))


def point(one: Point) -> str:
    """A point as it is written."""
    return f"({shown(one[0])}, {shown(one[1])})"


def listed(values: Sequence[float | int]) -> str:
    """Numbers with commas between."""
    return ", ".join(map(shown, values))


def points_table() -> pd.DataFrame:
    """The six points, and the shift of each pair."""
    return pd.DataFrame(
        {
            "pair": PAIRS,
            "aligned a": list(map(point, ALIGNED)),
            "misaligned m": list(map(point, MISALIGNED)),
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
    six = (*ALIGNED, *MISALIGNED)
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
        "aligned_mean": point(by_hand.mean(ALIGNED)),
        "misaligned_mean": point(by_hand.mean(MISALIGNED)),
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
    first, second = by_hand.main_line(ALIGNED), by_hand.main_line(MISALIGNED)
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
        "steps": listed(by_hand.first_steps()),
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
