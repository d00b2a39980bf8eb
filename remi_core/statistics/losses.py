"""Loss vectors: per-token losses of the first k answer tokens, compared pair by pair and split by factor.

Rows have no gaps: a dialogue shorter than k tokens is dropped and counted by the caller, never filled in.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from remi_core.statistics.bootstrap import refuse_nan
from remi_core.statistics.gram import cosine_matrix

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


def paired_cosine(
    first: Float[np.ndarray, "pair position"],
    second: Float[np.ndarray, "pair position"],
    *,
    n_permutations: int = 1000,
    seed: int = 0,
) -> tuple[float, Float[np.ndarray, " permutation"]]:
    """Mean cosine of row i with row i, which share their completion, and the same under permuted pairings.

    Raises:
        ValueError: if the two differ in shape, a value is NaN or a row is all 0.
    """
    if first.shape != second.shape:
        raise ValueError(f"paired loss vectors differ in shape: {first.shape} and {second.shape}")
    cosines = cosine_of_rows(first, second)
    rows = np.arange(len(first))
    shuffled = np.random.default_rng(seed).permuted(np.tile(rows, (n_permutations, 1)), axis=1)
    return float(cosines[rows, rows].mean()), cosines[rows, shuffled].mean(axis=1)


def factor_shares(
    losses: Float[np.ndarray, "2 n position"],
    labels: Int[np.ndarray, "row n"],
    *,
    weights: Float[np.ndarray, "row n"] | None = None,
) -> Float[np.ndarray, "row 4"]:
    """Shares of the sum of squares of a 2 × 2 of model and data, in the order of ``FACTORS``; they sum to 1.

    ``losses`` holds the same n dialogues under two models, ``labels`` the data set (0 or 1) of each, one
    row of labels and weights per relabelling or resample. Cell sizes are proportional, so the four parts
    are orthogonal. Shuffling ``labels`` is the null of data and interaction; for model, see
    ``model_swap_shares``.

    Raises:
        ValueError: if a value is NaN or a data set is empty in a row.
    """
    refuse_nan(losses, "loss vectors")
    share = np.ones(labels.shape) if weights is None else weights
    sides = [share * (labels == 0), share * (labels == 1)]
    cells = np.stack([[side @ model.astype(np.float64) for side in sides] for model in losses])
    squares = share @ np.square(losses.astype(np.float64)).sum(axis=(0, 2))
    return _shares(cells, np.stack([side.sum(axis=1) for side in sides]), squares)


def model_swap_shares(
    losses: Float[np.ndarray, "2 n position"], labels: Int[np.ndarray, " n"], swaps: Int[np.ndarray, "row n"]
) -> Float[np.ndarray, "row 4"]:
    """``factor_shares`` where the two models exchange the dialogues marked 1: the null of the model share.

    Raises:
        ValueError: if a value is NaN or a data set is empty.
    """
    refuse_nan(losses, "loss vectors")
    first, second = losses.astype(np.float64)
    kept = [(labels == data) * (1 - swaps) for data in (0, 1)]
    moved = [(labels == data) * swaps for data in (0, 1)]
    cells = np.stack(
        [
            [stay @ own + go @ other for stay, go in zip(kept, moved, strict=True)]
            for own, other in ((first, second), (second, first))
        ]
    )
    counts = np.stack([np.full(len(swaps), float((labels == data).sum())) for data in (0, 1)])
    return _shares(cells, counts, np.full(len(swaps), np.square(losses.astype(np.float64)).sum()))


def _shares(
    cells: Float[np.ndarray, "2 2 row position"],
    counts: Float[np.ndarray, "2 row"],
    squares: Float[np.ndarray, " row"],
) -> Float[np.ndarray, "row 4"]:
    if (counts <= 0).any():
        raise ValueError(
            f"{int((counts <= 0).any(axis=0).sum())} of {counts.shape[1]} rows leave a data set empty"
        )

    def explained(sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        return np.square(sums).sum(axis=-1) / sizes

    size = counts.sum(axis=0)
    grand = explained(cells.sum(axis=(0, 1)), 2 * size)
    model = sum(explained(one, size) for one in cells.sum(axis=1)) - grand
    data = (
        sum(explained(one, 2 * count) for one, count in zip(cells.sum(axis=0), counts, strict=True)) - grand
    )
    cell = sum(explained(cells[m, d], counts[d]) for m in (0, 1) for d in (0, 1)) - grand
    total = squares - grand
    return np.stack([model, data, cell - model - data, total - cell], axis=1) / total[:, None]
