"""Exercises on loss vectors: gaps to fill, shares of variance, and a null that keeps pairs."""

from __future__ import annotations

import numpy as np

from remi_book.exercises.answers import as_choices, call, call_for_array, call_for_number
from remi_book.exercises.exercise import Exercise, NotYet

WAYS, SOUND = "ABCDE", {"C", "D"}
"""Ways to bring loss vectors to one length, as in the text, and those that make no difference between groups."""
N_PAIRS, N_DRAWS = 12, 400


def _gaps(answer: object) -> None:
    found = as_choices(answer, WAYS)
    if "A" in found:
        raise NotYet("one of your ways uses the very labels that are to be compared")
    if found - SOUND:
        raise NotYet(
            "one of your ways puts one and the same value into places that mostly the second group lacks: "
            "how alike does that make its vectors?"
        )
    if found != SOUND:
        raise NotYet("nothing you chose is wrong, but it is not all: one more way treats both groups alike")


def _share(losses: np.ndarray) -> float:
    mean = losses.mean(axis=(0, 1, 2))
    by_set = losses.mean(axis=(0, 2)) - mean
    return float((by_set**2).sum() * losses.shape[0] * losses.shape[2] / ((losses - mean) ** 2).sum())


def _shares(answer: object) -> None:
    generator = np.random.default_rng(2)
    noise = generator.normal(size=(2, 2, 10, 4))
    model = np.array([0.0, 5.0]).reshape(2, 1, 1, 1)
    only_model = call_for_number(answer, np.broadcast_to(model, noise.shape) + 0.01 * noise)
    if only_model > 0.5:
        raise NotYet(
            f"where the two models differ and the two sets do not, it gives {only_model:.2g}: "
            "do your two groups also differ in their model?"
        )
    opposite = np.zeros(noise.shape)
    opposite[:, 1] = [1, -1, 1, -1]
    turned = call_for_number(answer, opposite)
    if not np.isclose(turned, 1):
        raise NotYet(
            f"where the sets alone differ, by +1 at some tokens and −1 at others, it gives {turned:.2g}: "
            "are tokens averaged too early?"
        )
    both = noise + model + 2 * opposite
    mixed, truth = call_for_number(answer, both), _share(both)
    if not np.isclose(mixed, truth):
        raise NotYet(
            f"where model, set and noise all vary, it gives {mixed:.3g}: is the whole the variance of everything?"
        )
    nothing = call(answer, np.ones(noise.shape))
    if not np.isnan(np.asarray(nothing, dtype=float)).all():
        raise NotYet(f"where nothing varies a share is not defined, and it gives {nothing}")


def _swaps(answer: object) -> np.ndarray:
    """Which pairs the reader's null exchanges in each draw: an array of draws and pairs."""
    generator = np.random.default_rng(3)
    pairs = generator.permutation(np.repeat(np.arange(N_PAIRS), 2))
    labels = np.zeros(2 * N_PAIRS, dtype=int)
    seconds = [np.flatnonzero(pairs == pair)[1] for pair in range(N_PAIRS)]
    labels[seconds] = 1
    drawn = np.array(
        [call_for_array(answer, labels, pairs, generator, shape=labels.shape) for _ in range(N_DRAWS)]
    )
    sums = np.array([drawn[:, pairs == pair].sum(axis=1) for pair in range(N_PAIRS)])
    if not np.isin(drawn, (0, 1)).all() or (sums != 1).any():
        raise NotYet("in some draw both partners of a pair have one framing, and no such pair exists")
    return drawn[:, seconds] == 0


def _null(answer: object) -> None:
    swaps = _swaps(answer)
    shares = swaps.mean(axis=0)
    if (swaps == swaps[0]).all():
        raise NotYet("every draw is the same one: a null has to vary")
    if np.isin(swaps.sum(axis=1), (0, N_PAIRS)).all():
        raise NotYet(
            "all pairs change places together: that gives two labellings, which are one and the same split"
        )
    if abs(shares - 0.5).max() > 0.12:
        raise NotYet(
            f"over many draws, pairs swap in {shares.min():.0%} to {shares.max():.0%} of them: the coin is not fair"
        )


EXERCISES = (
    Exercise(
        name="losses.gaps",
        title="vectors of one length",
        kind="choice",
        minutes=6,
        lesson="what looks at no label, neither directly nor by way of the length, cannot make a difference of groups.",
        checker=_gaps,
    ),
    Exercise(
        name="losses.shares",
        title="a share for the data",
        kind="function",
        minutes=12,
        lesson="with both sets through both models the shares add up, and none of them can stand for another.",
        checker=_shares,
    ),
    Exercise(
        name="losses.null",
        title="a null that keeps the pairs",
        kind="function",
        minutes=8,
        lesson="each draw is a data set that could have been, if the framing meant nothing.",
        checker=_null,
    ),
)
