"""Section 4.2.1: do the per-token losses of aligned and misaligned dialogues differ as vectors?"""

from __future__ import annotations

import numpy as np

from remi_core.errors import RemiError
from remi_core.estimates.measured import Measured, measured, shared_resamples
from remi_core.results import Results
from remi_core.statistics.gram import pair_means, within_between_estimate, within_minus_between
from remi_core.statistics.intervals import Estimate, cluster_estimate, combine
from remi_core.statistics.losses import FACTORS, cosine_of_rows, factor_shares
from remi_core.statistics.permutation import against_null, permuted_labels

Paired = tuple[np.ndarray, np.ndarray, list[str], list[str]]
"""Vectors (or a Gram matrix), labels 0 and 1, and the cluster and pair of each row."""


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


def paired_sets(results: Results, variant: str, seed: int, first: str, second: str) -> Paired:
    """Loss vectors of two sets whose rows belong together, labels 0 and 1, and the shared cluster of each row.

    Only pairs in which both answers are long enough are kept.
    """
    (one, kept_one), (two, kept_two) = (
        loss_vectors(results, variant, seed, name) for name in (first, second)
    )
    both = kept_one & kept_two
    vectors = np.concatenate([one[both[kept_one]], two[both[kept_two]]])
    labels = np.repeat([0, 1], int(both.sum()))
    clusters = [name for name, kept in zip(results.clusters(second), both, strict=True) if kept]
    pairs = [str(at) for at in np.flatnonzero(both)]
    return vectors, labels, clusters * 2, pairs * 2


def loss_cosine(results: Results, seed: int, first: str, second: str) -> Measured:
    """C6: raw within − between cosine of instruct's loss vectors; labels shuffled within pairs."""
    vectors, labels, clusters, pairs = paired_sets(results, "instruct", seed, first, second)
    cosines = cosine_of_rows(vectors, vectors)
    return within_between(results, cosines, labels, clusters, pairs)


def within_between(
    results: Results, cosines: np.ndarray, labels: np.ndarray, clusters: list[str], pairs: list[str]
) -> Measured:
    """Within − between mean cosine against labels shuffled within pairs; the between mean stands beside it."""
    preset = results.preset
    estimate = within_between_estimate(cosines, labels, clusters, shared_resamples(preset))
    shuffled = permuted_labels(
        labels, pairs, scheme="within", n_permutations=preset.n_permutations, seed=preset.seed
    )
    null = within_minus_between(pair_means(cosines, shuffled, clusters))
    between = pair_means(cosines, labels[None], clusters)[0, 2]
    return measured(
        estimate,
        against_null(float(estimate.value), null, kind="labels shuffled within pairs"),
        companions={"between": float(between)},
    )


def share_estimate(results: Results, seed: int, first: str, second: str) -> tuple[Estimate, np.ndarray]:
    """Shares of variance of the 2 × 2 of model and data, in the order of ``FACTORS``, and their null.

    The models are base and instruct, both on both sets, so that the two factors come apart. The null, shape
    (permutation, factor), shuffles the sets' labels within pairs; that says nothing about the model's share.
    """
    preset, models = results.preset, ("base", "instruct")
    stacked = [paired_sets(results, name, seed, first, second) for name in models]
    losses, (_, labels, clusters, pairs) = np.stack([vectors for vectors, *_ in stacked]), stacked[0]
    names, index = np.unique(clusters, return_inverse=True)

    def shares(weights: np.ndarray) -> np.ndarray:
        rows = np.repeat(labels[None], len(weights), axis=0)
        return factor_shares(losses, rows, weights=weights[:, index])

    shuffled = permuted_labels(
        labels, pairs, scheme="within", n_permutations=preset.n_permutations, seed=preset.seed
    )
    return cluster_estimate(shares, list(names), shared_resamples(preset)), factor_shares(losses, shuffled)


def data_share(results: Results, seed: int, first: str, second: str) -> Measured:
    """C7: share of the variance of loss vectors that the data set explains in the 2 × 2 of model and data."""
    at = FACTORS.index("data")
    shares, null = share_estimate(results, seed, first, second)
    estimate = combine(lambda rows: rows[..., at], shares)
    return measured(
        estimate,
        against_null(float(estimate.value), null[:, at], kind="labels shuffled within pairs"),
        companions={name: float(share) for name, share in zip(FACTORS, shares.value, strict=True)},
    )
