"""Section 4.2.2: the gradients of aligned and misaligned dialogues, raw and centred, from one Gram matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from remi_core.errors import MissingInput
from remi_core.estimates.losses import within_between
from remi_core.estimates.measured import Measured, measured, shared_resamples
from remi_core.estimates.pairing import TwoSets, side_by_side
from remi_core.results import Results
from remi_core.statistics.bootstrap import index_clusters
from remi_core.statistics.gram import (
    cosine_matrix,
    cosine_of_means,
    flipped_between,
    pair_means,
    within_between_estimate,
)
from remi_core.statistics.intervals import Estimate, cluster_estimate, difference
from remi_core.statistics.permutation import against_null, null_interval
from remi_core.statistics.spread import above_chance, small_draws

FEW = 5
"""Gradients of each class in the published picture (C11)."""

ROLES = ("narrow_aligned", "narrow", "framed")
"""Benign code, insecure code, and the same insecure code asked for as a bad example; row i of each is a pair."""


def gradient_datasets(results: Results) -> tuple[str, ...]:
    """The sets whose gradients are compared: those of ``ROLES`` that the preset has."""
    preset = results.preset
    return tuple(preset.role(role) for role in ROLES if not preset.lacks(role))


def gram_of(
    results: Results, seed: int, first: str, second: str, variant: str = "instruct"
) -> tuple[np.ndarray, TwoSets]:
    """Gram matrix of two sets' gradients, squared nats per squared unit of weight, and what its rows are."""
    return _two_of(results.gradients(variant, seed, gradient_datasets(results)), first, second)


def _two_of(arrays: Mapping[str, np.ndarray], first: str, second: str) -> tuple[np.ndarray, TwoSets]:
    places = [np.flatnonzero(arrays["dataset"] == name) for name in (first, second)]
    both = side_by_side(*_parts(arrays, places), tuple(np.ones(len(at), dtype=bool) for at in places))
    rows = np.concatenate([at[kept] for at, kept in zip(places, both.rows, strict=True)])
    return arrays["gram"][np.ix_(rows, rows)], both


def _parts(arrays: Mapping[str, np.ndarray], places: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Pair and cluster of the rows at each of the places."""
    return [{name: arrays[name][at] for name in ("pair", "cluster")} for at in places]


def gradient_cosine(results: Results, seed: int, first: str, second: str) -> Measured:
    """C9, C10: raw within − between cosine of instruct's gradients; labels shuffled."""
    gram, both = gram_of(results, seed, first, second)
    return within_between(results, cosine_matrix(gram), both)


DESIGNS = ("each set its own model", "both through instruct", "both through base")
"""Aligned data through base and misaligned through instruct, as published, and its two unconfounded neighbours."""


def gram_of_design(
    results: Results, seed: int, first: str, second: str, design: str
) -> tuple[np.ndarray, TwoSets]:
    """``gram_of`` in one of ``DESIGNS``."""
    if design != DESIGNS[0]:
        return gram_of(results, seed, first, second, design.rpartition(" ")[2])
    arrays = results.gradients_across({first: "base", second: "instruct"}, seed)
    return _two_of(arrays, first, second)


def confounded_cosine(results: Results, seed: int, first: str, second: str) -> Measured:
    """C8: raw within − between cosine with each set through its own model; contrasts with one model on both."""
    found = {}
    for design in DESIGNS:
        gram, both = gram_of_design(results, seed, first, second, design)
        found[design] = cosine_matrix(gram), both
    headline = within_between(results, *found[DESIGNS[0]])
    own, *others = (
        within_between_estimate(cosines, both.labels, both.clusters, shared_resamples(results.preset))
        for cosines, both in found.values()
    )
    gaps = {name: difference(own, other) for name, other in zip(DESIGNS[1:], others, strict=True)}
    return replace(
        headline,
        contrasts={name: (float(gap.low), float(gap.high)) for name, gap in gaps.items()},
        companions=headline.companions
        | {name: float(other.value) for name, other in zip(DESIGNS[1:], others, strict=True)},
    )


def mean_gradient_cosine(results: Results, seed: int, first: str, second: str) -> Measured:
    """H2, part (i): cosine of the two sets' mean gradients, without pairs of one template, so that noise adds nothing.

    The null flips the sign of all gradients of a template of the second set by a fair coin: no common direction.

    Raises:
        MissingInput: if a mean gradient's length cannot be told from 0, so that it has no direction.
    """
    gram, both = gram_of(results, seed, first, second)
    names, index = index_clusters(both.clusters)

    def means(weights: np.ndarray) -> np.ndarray:
        rows = np.broadcast_to(both.labels, (len(weights), len(gram)))
        return pair_means(gram, rows, both.clusters, weights=weights[:, index])

    resamples = shared_resamples(results.preset)
    for name, column in ((first, 0), (second, 1)):
        squared = cluster_estimate(lambda weights, at=column: means(weights)[:, at], names, resamples)
        _require_length(squared, name)
    estimate = cluster_estimate(lambda weights: cosine_of_means(means(weights)), names, resamples)
    preset = results.preset
    coins = np.random.default_rng(preset.seed).integers(0, 2, (preset.n_permutations, len(names)))
    within = pair_means(gram, both.labels[None], both.clusters)[0]
    null = flipped_between(gram, both.labels, both.clusters, 1 - 2 * coins[:, index])
    null = null / np.sqrt(within[0] * within[1])
    return measured(
        estimate, against_null(float(estimate.value), null, kind="signs flipped", alternative="less")
    )


def _require_length(squared: Estimate, name: str) -> None:
    """Nothing, if the squared length of a mean gradient lies above 0 with its interval."""
    if not float(squared.low) > 0:
        raise MissingInput(
            f"needs a mean gradient whose length is above 0: of {name} the square is"
            f" {float(squared.value):.2g} [{float(squared.low):.2g}, {float(squared.high):.2g}]"
        )


def few_dialogues(results: Results, seed: int, first: str, second: str, variant: str = "base") -> Measured:
    """C11: what a picture of a few gradients of each set shows, over many such pictures.

    Value: mean over draws of the share of spread between the sets above chance; ends: the central 95 % of single
    draws, that is of single pictures. Beside it the same for all dialogues at once.
    """
    preset = results.preset
    gram, both = gram_of(results, seed, first, second, variant)
    _, clusters = index_clusters(both.clusters)
    drawn, shuffled = small_draws(
        gram, both.labels, clusters, count=FEW, n_draws=preset.n_permutations, seed=preset.seed
    )
    low, high = null_interval(drawn)
    value = float(drawn.mean())
    everything = above_chance(gram, both.labels[None], n_components=3)
    return Measured(
        value=value,
        low=low,
        high=high,
        null=against_null(value, shuffled, kind="labels shuffled, single draws"),
        n=2 * FEW,
        companions={"all dialogues": float(everything[0])},
    )
