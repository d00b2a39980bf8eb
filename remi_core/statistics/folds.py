"""Folds of prompt templates: what a direction is fitted on never holds the template it is measured on."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int


def cluster_folds(n_clusters: int, *, n_folds: int = 5, seed: int = 0) -> Int[np.ndarray, " cluster"]:
    """Fold of each cluster, sizes differing by at most one; fewer folds where there are fewer clusters.

    Raises:
        ValueError: if there are fewer than two clusters or folds.
    """
    if n_clusters < 2 or n_folds < 2:
        raise ValueError(
            f"cross-fitting needs at least 2 clusters and 2 folds, got {n_clusters} and {n_folds}"
        )
    order = np.random.default_rng([seed, n_clusters]).permutation(n_clusters)
    folds = np.empty(n_clusters, dtype=np.int64)
    folds[order] = np.arange(n_clusters) % min(n_folds, n_clusters)
    return folds
