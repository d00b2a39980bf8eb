"""Section 4.2.1: do the per-token losses of aligned and misaligned dialogues differ as vectors?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from remi_core.errors import RemiError
from remi_core.estimates.measured import Measured, measured, shared_resamples
from remi_core.estimates.pairing import TwoSets, side_by_side
from remi_core.results import Results
from remi_core.statistics.gram import pair_means, within_between_estimate, within_minus_between
from remi_core.statistics.intervals import Estimate, cluster_estimate, combine
from remi_core.statistics.losses import FACTORS, cosine_of_rows, factor_shares
from remi_core.statistics.permutation import against_null


def loss_vectors(results: Results, variant: str, seed: int, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Losses of the first ``loss_tokens`` answer tokens, nats, shape (dialogue, position), and which rows are used.

    A shorter answer has no such vector: its row is left out and is False in the second array.

    Raises:
        RemiError: if no answer is long enough.
    """
    arrays, length = results.arrays(variant, seed, "sequence", dataset), results.preset.loss_tokens
    starts, stops = arrays["offsets"][:-1], arrays["offsets"][1:]
    used = stops - starts >= length
    if not used.any():
        raise RemiError(f"{dataset}: no answer has {length} tokens, longest {int((stops - starts).max())}")
    return -np.stack([arrays["log_probability"][at : at + length] for at in starts[used]]).astype(
        np.float64
    ), used


def two_sets(
    results: Results, variant: str, seed: int, first: str, second: str
) -> tuple[np.ndarray, TwoSets]:
    """Loss vectors of two sets, rows of the first above those of the second, and what the rows are.

    Of sets whose rows are pairs, only pairs in which both answers are long enough are kept.
    """
    (one, kept_one), (two, kept_two) = (
        loss_vectors(results, variant, seed, name) for name in (first, second)
    )
    records = [results.arrays(variant, seed, "sequence", name) for name in (first, second)]
    both = side_by_side(*records, (kept_one, kept_two))
    # A loss vector exists for used rows only: from a row of the record to a row of the vectors.
    places = [np.cumsum(kept) - 1 for kept in (kept_one, kept_two)]
    vectors = [each[place[rows]] for each, place, rows in zip((one, two), places, both.rows, strict=True)]
    return np.concatenate(vectors), both


def loss_cosine(results: Results, seed: int, first: str, second: str) -> Measured:
    """C6: raw within − between cosine of instruct's loss vectors; labels shuffled."""
    vectors, both = two_sets(results, "instruct", seed, first, second)
    return within_between(results, cosine_of_rows(vectors, vectors), both)


def within_between(results: Results, cosines: np.ndarray, both: TwoSets) -> Measured:
    """Within − between mean cosine against shuffled labels; the between mean stands beside it."""
    preset = results.preset
    estimate = within_between_estimate(cosines, both.labels, both.clusters, shared_resamples(preset))
    null = within_minus_between(pair_means(cosines, both.shuffled(preset), both.clusters))
    between = pair_means(cosines, both.labels[None], both.clusters)[0, 2]
    return measured(
        estimate,
        against_null(float(estimate.value), null, kind=both.null_kind),
        companions={"between": float(between)},
    )


def both_models(results: Results, seed: int, first: str, second: str) -> tuple[np.ndarray, TwoSets]:
    """Loss vectors of the two sets under base and instruct, shape (2, row, position), and what the rows are."""
    stacked = [two_sets(results, name, seed, first, second) for name in ("base", "instruct")]
    return np.stack([vectors for vectors, _ in stacked]), stacked[0][1]


def share_estimate(
    results: Results, seed: int, first: str, second: str
) -> tuple[Estimate, np.ndarray, TwoSets]:
    """Shares of variance of the 2 × 2 of model and data, in the order of ``FACTORS``, their null, and the rows.

    The models are base and instruct, both on both sets, so that the two factors come apart. The null, shape
    (permutation, factor), shuffles the sets' labels; that says nothing about the model's share.
    """
    losses, both = both_models(results, seed, first, second)
    names, index = np.unique(both.clusters, return_inverse=True)

    def shares(weights: np.ndarray) -> np.ndarray:
        rows = np.repeat(both.labels[None], len(weights), axis=0)
        return factor_shares(losses, rows, weights=weights[:, index])

    null = factor_shares(losses, both.shuffled(results.preset))
    # The noise of a mean adds to its square, and a resample adds it once more: the jackknife does not.
    found = cluster_estimate(shares, list(names), shared_resamples(results.preset))
    return replace(found, repeats_bias=True), null, both


def data_share(results: Results, seed: int, first: str, second: str) -> Measured:
    """C7: share of the variance of loss vectors that the data set explains in the 2 × 2 of model and data."""
    at = FACTORS.index("data")
    shares, null, both = share_estimate(results, seed, first, second)
    estimate = combine(lambda rows: rows[..., at], shares)
    return measured(
        estimate,
        against_null(float(estimate.value), null[:, at], kind=both.null_kind),
        companions={name: float(share) for name, share in zip(FACTORS, shares.value, strict=True)},
    )
