"""Statistics of single chapters and of their calibration: distances, triangles of models, shares of variance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from remi_core.statistics.displacement import Activations, cosine_of_products, cross_fitted_length
from remi_core.statistics.groups import SquareMatrix, cosine_matrix
from remi_core.statistics.resampling import (
    ClusterResamples,
    Estimate,
    clipped_cosine,
    cluster_estimate,
    cluster_sums,
    combine,
    index_clusters,
    make_resamples,
    ratio,
    refuse_nan,
)

# Intervals that need no resamples of templates, and resamples of the parts that templates are crossed of.


class Interval(NamedTuple):
    """A value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def student_interval(values: Float[np.ndarray, " run"]) -> Interval:
    """The mean of a few runs, such as orders of the same data, with Student's interval; exact for normal values."""
    ends = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    return Interval(float(values.mean()), float(ends.low), float(ends.high))


def crossed_weights(
    parts: Mapping[str, Sequence[str]], topics: Sequence[str], *, seed: int, n_resamples: int
) -> Int[np.ndarray, "resample cell"]:
    """How often each cell of a grid counts in resamples of its parts: the product of how often each was drawn.

    ``parts`` has the label of every cell by part, ``topics`` the stratum in which its parts are drawn.
    Source: Owen (2007), The Pigeonhole Bootstrap.
    """
    weights = np.ones((n_resamples, len(topics)), dtype=np.int64)
    for part, labels in parts.items():
        strata = {label: f"{part} of {topic}" for label, topic in zip(labels, topics, strict=True)}
        drawn = make_resamples(labels, seed=seed, n_resamples=n_resamples, strata=strata)
        weights *= drawn.weights[:, drawn.positions(labels)]
    return weights


def smaller_within(means: Float[np.ndarray, "row 3"]) -> Float[np.ndarray, " row"]:
    """Within − between of the group that holds together less, from ``pair_means``."""
    return means[:, :2].min(axis=1) - means[:, 2]


# Cosine distance between the mean activations of two sets, layer by layer.


def cosine_distance(
    first: tuple[Activations, Sequence[str]],
    second: tuple[Float[np.ndarray, "other layer d_model"], Sequence[str]],
    resamples: ClusterResamples,
) -> Estimate:
    """1 − cos of the two mean activations by layer (layer,), each set given as rows and their templates.

    Templates that both sets use are drawn together. Source: Giordani (2025), section 4.3, released scripts.

    Raises:
        ValueError: if a value is NaN, or a resample leaves a set empty.
    """
    names, _ = index_clusters([*first[1], *second[1]])
    sums = [cluster_sums(rows, clusters, names)[0] for rows, clusters in (first, second)]

    def statistic(weights: np.ndarray) -> np.ndarray:
        means = [np.einsum("rc,cld->rld", weights, rows, optimize=True) for rows in sums]
        lengths = [np.linalg.norm(rows, axis=-1) for rows in means]
        if any((length == 0).any() for length in lengths):
            raise ValueError("a resample holds no template of one of the two sets; resample within topics")
        return 1 - (means[0] * means[1]).sum(axis=-1) / (lengths[0] * lengths[1])

    return cluster_estimate(statistic, names, resamples)


# The triangle of instruct, base and a third model X, layer by layer: everything follows from the cross-fitted products
# N_XB = ⟨D_X, D_B⟩, N_BB and N_XX. No corner is special: each model can be seen on the way between the other two.


@dataclass(frozen=True, eq=False)
class Triangle:
    """By layer, each estimate with its own interval; NaN where a side cannot be told from 0."""

    sides: dict[str, Estimate]
    """Length between two models (layer,), in units of the residual stream."""
    angles: dict[str, Estimate]
    """Angle at each model (layer,), degrees."""
    shares: dict[str, Estimate]
    """How far the third model lies from the first to the second of a pair (layer,): 0 at the first, 1 at the second."""


def triangle(products: Estimate, *, n_folds: int, third: str = "misaligned") -> Triangle:
    """The triangle of instruct, base and a ``third`` model, from ``cross_fitted_products``."""
    across, of_base, of_third = (combine(lambda rows, i=i: rows[..., i], products) for i in range(3))
    opposite = combine(lambda x, b, t: b + t - 2 * x, across, of_base, of_third)
    at_base = combine(np.subtract, of_base, across)
    at_third = combine(np.subtract, of_third, across)

    def angle(*products: Estimate) -> Estimate:
        return combine(lambda rows: np.degrees(np.arccos(rows)), cosine_of_products(*products))

    return Triangle(
        sides={
            "instruct – base": cross_fitted_length(of_base, n_folds),
            f"instruct – {third}": cross_fitted_length(of_third, n_folds),
            f"base – {third}": cross_fitted_length(opposite, n_folds),
        },
        angles={
            "instruct": angle(across, of_base, of_third),
            "base": angle(at_base, of_base, opposite),
            third: angle(at_third, of_third, opposite),
        },
        shares={
            f"{third} from instruct to base": ratio(across, of_base),
            f"instruct from {third} to base": ratio(at_third, opposite),
            f"base from instruct to {third}": ratio(across, of_third),
        },
    )


# Gram matrices, and cosines of means and of rows.


def centred_gram(gram: SquareMatrix) -> SquareMatrix:
    """Inner products after subtracting the mean vector: H G H with H = 1 − 11ᵀ/n. All entries sum to 0."""
    refuse_nan(gram, "Gram matrix")
    matrix = gram.astype(np.float64)
    return matrix - matrix.mean(axis=0) - matrix.mean(axis=1, keepdims=True) + matrix.mean()


def cosine(one: Float[np.ndarray, " d"], other: Float[np.ndarray, " d"]) -> float:
    """The cosine of two vectors, in [−1, 1]; 0 where one of them is zero."""
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / lengths if lengths else 0.0


def cosine_of_means(means: Float[np.ndarray, "row 3"]) -> Float[np.ndarray, " row"]:
    """Cosine of the two group means, from ``pair_means`` of inner products; in [-1, 1] by clipping.

    Numerator and squared lengths leave out pairs of one cluster, so noise shared by nobody adds to none of them.
    """
    return clipped_cosine(means[:, 2], means[:, 0], means[:, 1])


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


# Loss vectors: per-token losses of the first k answer tokens, compared pair by pair and split by factor. Rows have no
# gaps: a dialogue shorter than k tokens is dropped and counted by the caller, never filled in.

FACTORS = ("model", "data", "interaction", "residual")


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
