"""How far two judges agree on yes and no: their table, and Cohen's kappa with an interval over clusters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from remi_core.statistics.bootstrap import ClusterResamples, cluster_sums, index_clusters
from remi_core.statistics.intervals import Estimate, cluster_estimate

CELLS = ("both yes", "first alone", "second alone", "both no")
"""The cells of the table of two judges, in the order of every array here."""


def agreement_cells(
    first: Bool[np.ndarray, " item"], second: Bool[np.ndarray, " item"]
) -> Float[np.ndarray, "item 4"]:
    """For each item a 1 in the cell that it falls into, in the order of ``CELLS``."""
    return np.stack([first & second, first & ~second, ~first & second, ~first & ~second], axis=-1).astype(
        np.float64
    )


def kappa(counts: Float[np.ndarray, "*rest 4"]) -> Float[np.ndarray, " *rest"]:
    """Cohen's kappa from counts in the order of ``CELLS``: 1 is full agreement, 0 what chance gives.

    Where both judges say one thing throughout, chance alone agrees everywhere and kappa is 0 over 0: given as 0, since
    nothing beyond chance is shown. Source: Cohen (1960), A Coefficient of Agreement for Nominal Scales.
    """
    shares = counts / counts.sum(axis=-1, keepdims=True)
    first, second = shares[..., 0] + shares[..., 1], shares[..., 0] + shares[..., 2]
    observed = shares[..., 0] + shares[..., 3]
    chance = first * second + (1 - first) * (1 - second)
    room = 1 - chance
    certain = room > 1e-12  # below it, both judges are constant up to rounding
    # Agreement that equals chance is 0, and no rest of rounding.
    beyond = np.where(np.abs(observed - chance) > 1e-12, observed - chance, 0.0)
    return np.where(certain, beyond / np.where(certain, room, 1.0), 0.0)


def kappa_interval(
    first: Bool[np.ndarray, " item"],
    second: Bool[np.ndarray, " item"],
    clusters: Sequence[str],
    resamples: ClusterResamples,
) -> Estimate:
    """Cohen's kappa of two judges with its interval over clusters of items.

    Raises:
        ValueError: for fewer than two clusters.
    """
    names, _ = index_clusters(clusters)
    sums, _ = cluster_sums(agreement_cells(first, second), clusters, names)
    return cluster_estimate(lambda weights: kappa(weights @ sums), names, resamples)
