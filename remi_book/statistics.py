"""Statistics of arrays that single chapters ask for: projections and their nulls, Gram matrices, components."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import linalg

from remi_core.statistics.displacement import Activations, cross_fitted, layer_grams
from remi_core.statistics.groups import SquareMatrix, within_minus_between
from remi_core.statistics.resampling import (
    TINY,
    ClusterResamples,
    Estimate,
    cluster_estimate,
    cluster_folds,
    cluster_sums,
    index_clusters,
    refuse_nan,
)
from remi_core.statistics.subspaces import VectorSet, top_components, weighted_gram
from remi_lab.statistics import cell_shares, centred_gram, cosine_of_rows

# Projections on the axis from base to instruct, in sample as published and held out; nulls along random directions.


def _random_products(
    shift: np.ndarray, base_shift: np.ndarray, n_draws: int, seed: int
) -> tuple[Float[np.ndarray, "draw layer"], np.ndarray, np.ndarray]:
    """⟨u, D_B⟩ for random unit vectors u, and the squared lengths of D_X and D_B by layer, in sample."""
    # One direction for all layers: they share the stream, and the null of a mean over layers would be too narrow.
    mean, base = (values.mean(axis=0, dtype=np.float64) for values in (shift, base_shift))
    draws = np.random.default_rng(seed).standard_normal((n_draws, mean.shape[1]))
    draws /= np.linalg.norm(draws, axis=1, keepdims=True)
    return draws @ base.T, np.square(mean).sum(axis=1), np.square(base).sum(axis=1)


def random_direction_null(
    shift: Activations, base_shift: Activations, *, n_draws: int = 1000, seed: int = 0
) -> Float[np.ndarray, "draw layer"]:
    """e of random displacements as long as D_X, by layer; one direction is drawn for all layers of a draw.

    Products are in sample, the lengths too.

    Raises:
        ValueError: if D_B is exactly 0 at a layer.
    """
    products, squared, of_base = _random_products(shift, base_shift, n_draws, seed)
    if (of_base == 0).any():
        raise ValueError(
            f"base equals instruct exactly at layer {int(np.argmin(of_base))}: erosion has no direction"
        )
    return products * np.sqrt(squared) / of_base


def simultaneous_band(
    value: Float[np.ndarray, " layer"], samples: Float[np.ndarray, "resample layer"]
) -> tuple[Float[np.ndarray, " layer"], Float[np.ndarray, " layer"]]:
    """Lower and upper band that covers all layers at once with probability 0.95.

    Studentised maximum: every layer gets the same number of its own standard errors, namely that quantile of the
    largest standardised deviation over layers. Source: Davison and Hinkley (1997), section 4.2.

    Raises:
        ValueError: if a sample is NaN.
    """
    refuse_nan(samples, "bootstrap samples")
    error = samples.std(axis=0, ddof=1)
    # A layer that never varies has nothing to cover; 0/0 there must not decide the maximum.
    scaled = np.abs(samples - value) / np.where(error > 0, error, np.inf)
    width = np.quantile(scaled.max(axis=1), 0.95) * error
    return value - width, value + width


def onset_layer(estimate: Estimate, *, boundary: float = 0.0) -> int | None:
    """First layer whose simultaneous lower band lies above the boundary; None if there is none.

    Layers where the estimate is undefined take no part.

    Raises:
        ValueError: if a sample is NaN at a layer where the value is defined.
    """
    defined = np.flatnonzero(~np.isnan(estimate.value))
    if not len(defined):
        return None
    low, _ = simultaneous_band(estimate.value[defined], estimate.samples[:, defined])
    above = defined[low > boundary]
    return int(above[0]) if len(above) else None


def alignment_axis(base: Activations, instruct: Activations) -> Float[np.ndarray, "layer d_model"]:
    """Unit vector from base's mean activation to instruct's, by layer; means in float64.

    Source: Giordani (2025), section 4.3.

    Raises:
        ValueError: if a value is NaN, or the two means coincide at a layer.
    """
    refuse_nan(base, "base activations")
    refuse_nan(instruct, "instruct activations")
    axis = instruct.mean(axis=0, dtype=np.float64) - base.mean(axis=0, dtype=np.float64)
    length = np.linalg.norm(axis, axis=1, keepdims=True)
    if (length == 0).any():
        raise ValueError(
            f"base and instruct have the same mean at layer {int(np.argmin(length))}: no direction"
        )
    return axis / length


def projection_in_sample(
    values: Activations, base: Activations, instruct: Activations
) -> Float[np.ndarray, "dialogue layer"]:
    """Coordinate of each dialogue on the axis fitted on these dialogues, in activation units, as published.

    Source: Giordani (2025), section 4.3.1, figure 5.

    Raises:
        ValueError: if a value is NaN, or the axis has no direction at a layer.
    """
    refuse_nan(values, "activations to project")
    return np.einsum("nld,ld->nl", values, alignment_axis(base, instruct), dtype=np.float64)


def mean_projection(
    values: Activations,
    ends: tuple[Activations, Activations],
    clusters: Sequence[str],
    resamples: ClusterResamples,
    *,
    n_folds: int = 1,
) -> Estimate:
    """Mean coordinate on the axis between the two ends (base, instruct) by layer, axis refitted in every resample.

    In activation units. With one fold the axis is fitted on the dialogues it is measured on, as published;
    with more, on the other folds of prompt templates.

    Raises:
        ValueError: if a value is NaN or there are fewer than two clusters.
    """
    names, _ = index_clusters(clusters)
    sums, counts = cluster_sums(values, clusters, names)
    base, instruct = (cluster_sums(end, clusters, names)[0] for end in ends)
    axis = instruct - base
    whole = np.zeros(len(names), dtype=np.int64)
    folds = whole if n_folds == 1 else cluster_folds(len(names), n_folds=n_folds, seed=resamples.seed)

    def statistic(weights: np.ndarray) -> np.ndarray:
        total = np.zeros((len(weights), sums.shape[1]))
        for fold in np.unique(folds):
            inside = folds == fold
            fitted = inside if n_folds == 1 else ~inside
            for layer in range(sums.shape[1]):
                direction = weights[:, fitted] @ axis[fitted, layer]
                length = np.linalg.norm(direction, axis=1)
                product = ((weights[:, inside] @ sums[inside, layer]) * direction).sum(axis=1)
                total[:, layer] += product / np.where(length > 0, length, np.inf)
        return total / (weights @ counts)[:, None]

    return cluster_estimate(statistic, names, resamples)


def released_separation(
    first: Float[np.ndarray, "token layer"], second: Float[np.ndarray, "token layer"]
) -> Float[np.ndarray, " layer"]:
    """Difference of mean projections over the sum of the standard deviations, tokens pooled, as released.

    About half of d′ where both spreads agree. Source: Giordani (2025), section 4.3, released scripts.

    Raises:
        ValueError: if a projection is NaN.
    """
    refuse_nan(first, "first group's projections")
    refuse_nan(second, "second group's projections")
    spread = first.std(axis=0, ddof=1, dtype=np.float64) + second.std(axis=0, ddof=1, dtype=np.float64)
    return (second.mean(axis=0, dtype=np.float64) - first.mean(axis=0, dtype=np.float64)) / spread


def random_third_null(
    shift: Activations, base_shift: Activations, *, n_draws: int = 1000, seed: int = 0
) -> Float[np.ndarray, "draw layer"]:
    """Where instruct lies from a random third model to base, by layer; the third is as far from instruct as X.

    A random displacement is orthogonal to D_B but for chance, and instruct still lies between the two:
    ‖D_X‖² / (‖D_X‖² + ‖D_B‖²) of the way. One direction is drawn for all layers of a draw.
    """
    products, squared, of_base = _random_products(shift, base_shift, n_draws, seed)
    across = products * np.sqrt(squared)
    return (squared - across) / (squared + of_base - 2 * across)


def erosion_of_weights(
    shift: Float[np.ndarray, "atom layer d_model"],
    base_shift: Float[np.ndarray, "atom layer d_model"],
    counts: Int[np.ndarray, " atom"],
    folds: Int[np.ndarray, " atom"],
    weights: Float[np.ndarray, "row atom"],
) -> Float[np.ndarray, "row layer"]:
    """e by layer for each row of weights, from sums over atoms (such as the dialogues of one template and set).

    Raises:
        ValueError: if a value is NaN.
    """
    refuse_nan(shift, "displacements")
    top, bottom = (
        cross_fitted(layer_grams(first, base_shift), counts, folds, weights) for first in (shift, base_shift)
    )
    return top / np.where(bottom == 0, TINY, bottom)


# What a Gram matrix or paired loss vectors tell.


def pca_coordinates(
    gram: SquareMatrix, n_components: int
) -> tuple[Float[np.ndarray, "n component"], Float[np.ndarray, " component"]]:
    """Principal component coordinates and shares of variance, from inner products alone.

    Raises:
        ValueError: if a value is NaN or all vectors are equal.
    """
    centred = centred_gram(gram)
    total = np.trace(centred)
    if total <= 0:
        raise ValueError(f"all {len(gram)} vectors are equal: no principal component")
    values, vectors = linalg.eigh(
        (centred + centred.T) / 2, subset_by_index=[len(gram) - n_components, len(gram) - 1]
    )
    values = np.maximum(values[::-1], 0)
    return vectors[:, ::-1] * np.sqrt(values), values / total


def squared_distance(means: Float[np.ndarray, "row 3"]) -> Float[np.ndarray, " row"]:
    """Unbiased ‖d‖² of the two group means, from ``pair_means`` of inner products; may be below 0 by chance.

    The U-statistic w₀ + w₁ − 2b: without same-cluster pairs, noise has expectation 0.
    """
    return 2 * within_minus_between(means)


def centring_identity(gram: SquareMatrix, labels: Int[np.ndarray, " n"]) -> tuple[float, float]:
    """Between-group mean after centring, and −p₁p₂‖d‖² from the raw matrix: equal for any data.

    An identity of inner products, not of cosines. ‖d‖² here is in sample, diagonal included.
    """
    first, second = labels == 0, labels == 1
    between = float(centred_gram(gram)[np.ix_(first, second)].mean())
    contrast = second / second.sum() - first / first.sum()
    return between, -float(first.mean() * second.mean() * (contrast @ gram @ contrast))


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


def model_swap_shares(
    losses: Float[np.ndarray, "2 n position"], labels: Int[np.ndarray, " n"], swaps: Int[np.ndarray, "row n"]
) -> Float[np.ndarray, "row 4"]:
    """``factor_shares`` where the two models exchange the dialogues marked 1: the null of the model share.

    Raises:
        ValueError: if a value is NaN or a data set is empty.
    """
    refuse_nan(losses, "loss vectors")
    first, second = losses.astype(np.float64)
    sides = [labels == data for data in (0, 1)]
    cells = [
        [(side * (1 - swaps)) @ kept + (side * swaps) @ swapped for side in sides]
        for kept, swapped in ((first, second), (second, first))
    ]
    counts = np.stack([np.full(len(swaps), float(side.sum())) for side in sides])
    squares = np.full(len(swaps), np.square(losses.astype(np.float64)).sum())
    return cell_shares(np.stack(cells), counts, squares)


# Components.


def participation_ratio(weights: Float[np.ndarray, " *rest n"]) -> Float[np.ndarray, " *rest"]:
    """How many entries carry the weight: (Σw)² / Σw², from 1 (one entry) to n (all equal).

    Of a scree: effective dimensions. Of squared loadings of a component: how many coordinates it uses, so
    that an outlier dimension shows as a value near 1.

    Raises:
        ValueError: if a weight is negative or all are 0.
    """
    total = weights.sum(axis=-1)
    if (weights < 0).any() or (total <= 0).any():
        raise ValueError(
            "participation needs non-negative weights that are not all 0 (shares or squared loadings)"
        )
    return np.asarray(np.square(total) / np.square(weights).sum(axis=-1))


def measure_scree(
    vectors: VectorSet, resamples: ClusterResamples, *, n_components: int, centred: bool
) -> Estimate:
    """Share of the sum of squares (variance, where centred) of each leading component, (component,), in [0, 1].

    Raises:
        ValueError: if components are more than the rows or dimensions, or there are fewer than two clusters.
    """
    top_components(vectors.rows, n_components, centred=centred)
    names, index = index_clusters(vectors.clusters)
    gram = vectors.rows.astype(np.float64) @ vectors.rows.T.astype(np.float64)

    def shares(row: np.ndarray) -> np.ndarray:
        values = linalg.eigvalsh(weighted_gram(gram, row[index], centred=centred))[::-1]
        return np.maximum(values[:n_components], 0) / values.sum()

    return cluster_estimate(lambda weights: np.stack([shares(row) for row in weights]), names, resamples)
