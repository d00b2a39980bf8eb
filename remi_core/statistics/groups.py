"""Groups of vectors: cosines within and between, Gram matrices, components, shares of variance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from remi_core.statistics.resampling import (
    ClusterResamples,
    Estimate,
    clipped_cosine,
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


def centred_gram(gram: SquareMatrix) -> SquareMatrix:
    """Inner products after subtracting the mean vector: H G H with H = 1 − 11ᵀ/n. All entries sum to 0."""
    refuse_nan(gram, "Gram matrix")
    matrix = gram.astype(np.float64)
    return matrix - matrix.mean(axis=0) - matrix.mean(axis=1, keepdims=True) + matrix.mean()


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


def cosine_of_means(means: Float[np.ndarray, "row 3"]) -> Float[np.ndarray, " row"]:
    """Cosine of the two group means, from ``pair_means`` of inner products; in [-1, 1] by clipping.

    Numerator and squared lengths leave out pairs of one cluster, so noise shared by nobody adds to none of them.
    """
    return clipped_cosine(means[:, 2], means[:, 0], means[:, 1])


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


# Loss vectors: per-token losses of the first k answer tokens, compared pair by pair and split by factor. Rows have no
# gaps: a dialogue shorter than k tokens is dropped and counted by the caller, never filled in.

FACTORS = ("model", "data", "interaction", "residual")


def cosine_of_rows(
    first: Float[np.ndarray, "n position"], second: Float[np.ndarray, "m position"]
) -> Float[np.ndarray, "n m"]:
    """Cosine of every row of the first with every row of the second; in [0, 1] since losses are not negative.

    Raises:
        ValueError: if a value is NaN or a row is all 0.
    """
    rows = np.concatenate([first, second]).astype(np.float64)
    refuse_nan(rows, "loss vectors")
    return cosine_matrix(rows @ rows.T)[: len(first), len(first) :]


def factor_shares(
    losses: Float[np.ndarray, "2 n position"],
    labels: Int[np.ndarray, "row n"],
    *,
    weights: Float[np.ndarray, "row n"] | None = None,
) -> Float[np.ndarray, "row 4"]:
    """Shares of the sum of squares of a 2 × 2 of model and data, in the order of ``FACTORS``; they sum to 1.

    ``losses`` holds the same n dialogues under two models, ``labels`` the data set (0 or 1) of each, one
    row of labels and weights per relabelling or resample. Cell sizes are proportional, so the four parts
    are orthogonal. Shuffling ``labels`` is the null of data and interaction; for model, the two models
    exchange dialogues.

    Raises:
        ValueError: if a value is NaN or a data set is empty in a row.
    """
    refuse_nan(losses, "loss vectors")
    share = np.ones(labels.shape) if weights is None else weights
    sides = [share * (labels == 0), share * (labels == 1)]
    cells = np.stack([[side @ model.astype(np.float64) for side in sides] for model in losses])
    squares = share @ np.square(losses.astype(np.float64)).sum(axis=(0, 2))
    return cell_shares(cells, np.stack([side.sum(axis=1) for side in sides]), squares)


def cell_shares(
    cells: Float[np.ndarray, "2 2 row position"],
    counts: Float[np.ndarray, "2 row"],
    squares: Float[np.ndarray, " row"],
) -> Float[np.ndarray, "row 4"]:
    """``factor_shares`` from the sums and counts of its cells, and the sum of all squares."""
    if (counts <= 0).any():
        raise ValueError(
            f"{int((counts <= 0).any(axis=0).sum())} of {counts.shape[1]} rows leave a data set empty"
        )

    def explained(sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        return np.square(sums).sum(axis=-1) / sizes

    size = counts.sum(axis=0)
    grand = explained(cells.sum(axis=(0, 1)), 2 * size)
    model = sum(explained(sums, size) for sums in cells.sum(axis=1)) - grand
    data = sum(map(explained, cells.sum(axis=0), 2 * counts)) - grand
    cell = sum(explained(cells[m, d], counts[d]) for m in (0, 1) for d in (0, 1)) - grand
    total = squares - grand
    return np.stack([model, data, cell - model - data, total - cell], axis=1) / total[:, None]


def recovered_share(curve: Estimate) -> Estimate:
    """(X − first) / (last − first) at every place of a curve; NaN where first and last do not differ.

    The first place is the recipient alone (share 0), the last the donor alone (share 1).
    """
    moved = combine(lambda rows: rows - rows[:, :1], curve)
    whole = combine(lambda rows: np.repeat(rows[:, -1:] - rows[:, :1], rows.shape[1], axis=1), curve)
    return ratio(moved, whole)
