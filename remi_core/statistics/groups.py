"""Groups of vectors: cosines within and between, Gram matrices, components, shares of variance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from remi_core.statistics.resampling import (
    ClusterResamples,
    Estimate,
    cluster_estimate,
    combine,
    index_clusters,
    ratio,
    refuse_nan,
)

SquareMatrix = Float[np.ndarray, "n n"]
"""Inner products, cosines or other values of every pair of n vectors."""

# What an n × n matrix of inner products tells about two groups of gradients. With group shares p₁ + p₂ = 1, centring
# makes the between-group mean −p₁p₂‖d‖² whatever the data, so its sign is no evidence. Group difference is therefore
# tested on the raw matrix, without pairs from one cluster.


def cosine_matrix(gram: SquareMatrix) -> SquareMatrix:
    """Cosines in [-1, 1] from inner products.

    Raises:
        ValueError: if a value is NaN or a vector has length 0.
    """
    refuse_nan(gram, "Gram matrix")
    squared = np.diag(gram).astype(np.float64)
    if (squared <= 0).any():
        raise ValueError(f"{int((squared <= 0).sum())} of {len(squared)} vectors have length 0: no cosine")
    length = np.sqrt(squared)
    return np.clip(gram / length[:, None] / length, -1, 1)


def pair_means(
    matrix: SquareMatrix,
    labels: Int[np.ndarray, "row n"],
    clusters: Sequence[str] | None = None,
    *,
    weights: Float[np.ndarray, "row n"] | None = None,
) -> Float[np.ndarray, "row 3"]:
    """Mean entry over pairs within group 0, within group 1, and between, for each row of labels and weights.

    Pairs of the same cluster are left out (without clusters: only the diagonal), so that what dialogues of
    one template share by construction does not count as likeness of a group.

    Raises:
        ValueError: if a value is NaN, a label is not 0 or 1, or a mean has no pair.
    """
    refuse_nan(matrix, "matrix of pairs")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1, got {np.unique(labels).tolist()}")
    index = np.arange(len(matrix)) if clusters is None else index_clusters(clusters)[1]
    apart = index[:, None] != index
    indicator = (np.arange(index.max() + 1) == index[:, None]).astype(np.float64)
    kept = np.where(apart, matrix, 0.0).astype(np.float64)
    share = np.ones(labels.shape) if weights is None else weights
    groups = [share * (labels == 0), share * (labels == 1)]
    summed = [group @ kept for group in groups]
    means = []
    for left, right in ((0, 0), (1, 1), (0, 1)):
        first, second = groups[left], groups[right]
        same = ((first @ indicator) * (second @ indicator)).sum(axis=1)
        pairs = first.sum(axis=1) * second.sum(axis=1) - same
        if (pairs <= 0).any():
            raise ValueError(
                f"{int((pairs <= 0).sum())} of {len(pairs)} rows have no pair of groups {left} and "
                f"{right} from different clusters"
            )
        means.append((summed[left] * second).sum(axis=1) / pairs)
    return np.stack(means, axis=1)


def within_minus_between(means: Float[np.ndarray, "row 3"]) -> Float[np.ndarray, " row"]:
    """Average of the two within-group means minus the between-group mean, from ``pair_means``."""
    return (means[:, 0] + means[:, 1]) / 2 - means[:, 2]


def pair_means_estimate(
    matrix: SquareMatrix, labels: Int[np.ndarray, " n"], clusters: Sequence[str], resamples: ClusterResamples
) -> Estimate:
    """``pair_means`` with intervals over templates, shape (3,): within group 0, within group 1, and between.

    Raises:
        ValueError: if a value is NaN, a label is not 0 or 1, or a resample leaves a group without pairs.
    """
    names, index = index_clusters(clusters)

    def means(weights: np.ndarray) -> np.ndarray:
        rows = np.broadcast_to(labels, (len(weights), len(labels)))
        return pair_means(matrix, rows, clusters, weights=weights[:, index])

    return cluster_estimate(means, names, resamples)


def recovered_share(curve: Estimate) -> Estimate:
    """(X − first) / (last − first) at every place of a curve; NaN where first and last do not differ.

    The first place is the recipient alone (share 0), the last the donor alone (share 1).
    """
    moved = combine(lambda rows: rows - rows[:, :1], curve)
    whole = combine(lambda rows: np.repeat(rows[:, -1:] - rows[:, :1], rows.shape[1], axis=1), curve)
    return ratio(moved, whole)
