"""The six points of ``by_hand`` through the package's own estimators, and both side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
from jaxtyping import Float

from remi_core.estimates.influence import crossed_mean
from remi_core.figures.alt import number
from remi_core.statistics.bootstrap import ClusterResamples, percentile_interval
from remi_core.statistics.erosion import (
    Erosion,
    cross_fitted_products,
    erosion_of_products,
    erosion_of_weights,
    measure_erosion,
)
from remi_core.statistics.folds import cluster_folds
from remi_core.statistics.geometry import overlap_and_largest, top_components
from remi_core.statistics.gram import centred_gram, centring_identity, cosine_matrix, pair_means
from remi_core.statistics.intervals import Estimate, mean_interval
from remi_core.statistics.permutation import permutation_p_value
from remi_core.statistics.projection import alignment_axis
from remi_core.statistics.separation import Contrast, measure_separation
from remi_core.tables import by_hand

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
