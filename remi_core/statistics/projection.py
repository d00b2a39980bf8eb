"""Projections on the axis from base to instruct: as published (in sample, unnormalised), and held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from remi_core.statistics.bootstrap import ClusterResamples, cluster_sums, index_clusters, refuse_nan
from remi_core.statistics.folds import cluster_folds
from remi_core.statistics.intervals import Estimate, cluster_estimate


def alignment_axis(
    base: Float[np.ndarray, "dialogue layer d_model"], instruct: Float[np.ndarray, "dialogue layer d_model"]
) -> Float[np.ndarray, "layer d_model"]:
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
    values: Float[np.ndarray, "dialogue layer d_model"],
    base: Float[np.ndarray, "dialogue layer d_model"],
    instruct: Float[np.ndarray, "dialogue layer d_model"],
) -> Float[np.ndarray, "dialogue layer"]:
    """Coordinate of each dialogue on the axis fitted on these dialogues, in activation units, as published.

    Source: Giordani (2025), section 4.3.1, figure 5.

    Raises:
        ValueError: if a value is NaN, or the axis has no direction at a layer.
    """
    refuse_nan(values, "activations to project")
    return np.einsum("nld,ld->nl", values, alignment_axis(base, instruct), dtype=np.float64)


def mean_projection(
    values: Float[np.ndarray, "dialogue layer d_model"],
    ends: tuple[Float[np.ndarray, "dialogue layer d_model"], Float[np.ndarray, "dialogue layer d_model"]],
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
    own, counts = cluster_sums(values, clusters, names)
    base, instruct = (cluster_sums(end, clusters, names)[0] for end in ends)
    axis = instruct - base
    whole = np.zeros(len(names), dtype=np.int64)
    folds = whole if n_folds == 1 else cluster_folds(len(names), n_folds=n_folds, seed=resamples.seed)

    def statistic(weights: np.ndarray) -> np.ndarray:
        total = np.zeros((len(weights), own.shape[1]))
        for fold in np.unique(folds):
            inside = folds == fold
            fitted = inside if n_folds == 1 else ~inside
            for layer in range(own.shape[1]):
                direction = weights[:, fitted] @ axis[fitted, layer]
                length = np.linalg.norm(direction, axis=1)
                product = ((weights[:, inside] @ own[inside, layer]) * direction).sum(axis=1)
                total[:, layer] += product / np.where(length > 0, length, np.inf)
        return total / (weights @ counts)[:, None]

    return cluster_estimate(statistic, names, resamples)
