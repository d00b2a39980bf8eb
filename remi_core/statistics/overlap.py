"""Where a subspace overlap stands: its interval, a floor of random subspaces, a ceiling of split halves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import linalg

from remi_core.statistics.bootstrap import ClusterResamples, index_clusters, refuse_nan
from remi_core.statistics.geometry import overlap_and_largest, top_components
from remi_core.statistics.intervals import Estimate, cluster_estimate, combine
from remi_core.statistics.refits import RefittedSet, in_joint_span


@dataclass(frozen=True, eq=False)
class VectorSet:
    """Rows to decompose, with the prompt template of each."""

    rows: Float[np.ndarray, "dialogue d_model"]
    clusters: Sequence[str]

    def __post_init__(self) -> None:
        """Refuse NaN and rows without a cluster."""
        refuse_nan(self.rows, "rows to decompose")
        if len(self.rows) != len(self.clusters):
            raise ValueError(f"{len(self.rows)} rows but {len(self.clusters)} cluster labels")


@dataclass(frozen=True, eq=False)
class Overlap:
    """Subspace overlap of two sets, components refitted in every resample."""

    overlap: Estimate
    """S in [0, 1]."""
    largest: Estimate
    """Largest absolute cosine between components, in [0, 1]."""


def measure_overlap(
    first: VectorSet, second: VectorSet, resamples: ClusterResamples, *, n_components: int, centred: bool
) -> Overlap:
    """S and the largest absolute cosine of the top components of two sets, with intervals over prompt templates.

    Templates that both sets use are drawn together. A resample repeats rows, so its components are noisier
    than the data's own and its overlap is too low: both intervals are the jackknife's. A component that hardly
    differs from the next turns with the sample, which moves S to one side too: its interval counts the
    jackknife's bias beside its variance. That rule was chosen on known truth, see ``book/deviations.md``.

    Raises:
        ValueError: if components are more than the rows or dimensions, or there are fewer than two clusters.
    """
    names, _ = index_clusters([*first.clusters, *second.clusters])
    for one in (first, second):
        top_components(one.rows, n_components, centred=centred)
    sides = [
        (RefittedSet(rows, n_components, centred=centred), np.searchsorted(names, one.clusters))
        for rows, one in zip(in_joint_span(first.rows, second.rows), (first, second), strict=True)
    ]
    # Leaving out a template of one set changes nothing in the other: each set is refitted once a weighting.
    known: list[dict[bytes, np.ndarray]] = [{}, {}]

    def components(side: int, row: np.ndarray) -> np.ndarray:
        refitted, index = sides[side]
        weights = row[index]
        key = weights.tobytes()
        if key not in known[side]:
            known[side][key] = refitted.components(weights)
        return known[side][key]

    def statistic(weights: np.ndarray) -> np.ndarray:
        return np.stack([overlap_and_largest(components(0, row), components(1, row)) for row in weights])

    both = replace(cluster_estimate(statistic, names, resamples), repeats_bias=True)
    overlap, largest = (combine(lambda rows, at=at: rows[..., at], both) for at in (0, 1))
    return Overlap(overlap=replace(overlap, counts_bias=True), largest=largest)


def measure_scree(
    one: VectorSet, resamples: ClusterResamples, *, n_components: int, centred: bool
) -> Estimate:
    """Share of the sum of squares (variance, where centred) of each leading component, (component,), in [0, 1].

    Raises:
        ValueError: if components are more than the rows or dimensions, or there are fewer than two clusters.
    """
    top_components(one.rows, n_components, centred=centred)
    names, index = index_clusters(one.clusters)
    gram = one.rows.astype(np.float64) @ one.rows.T.astype(np.float64)

    def statistic(weights: np.ndarray) -> np.ndarray:
        return np.stack([_shares(gram, row[index], n_components, centred) for row in weights])

    return cluster_estimate(statistic, names, resamples)


def _shares(gram: np.ndarray, weights: np.ndarray, n_components: int, centred: bool) -> np.ndarray:
    if centred:
        shift = gram @ weights / weights.sum()
        gram = gram - shift - shift[:, None] + weights @ shift / weights.sum()
    root = np.sqrt(weights)
    values = linalg.eigvalsh(root[:, None] * gram * root)[::-1]
    return np.maximum(values[:n_components], 0) / values.sum()


@lru_cache(maxsize=8)
def random_overlaps(
    d_model: int, n_components: int, *, n_draws: int = 1000, seed: int = 0
) -> Float[np.ndarray, "draw 2"]:
    """S and the largest absolute cosine of two uniformly random subspaces: the floor, with mean S = k / d exactly.

    Raises:
        ValueError: if the subspace does not fit into the space.
    """
    if not 1 <= n_components <= d_model:
        raise ValueError(f"{n_components} components do not fit into {d_model} dimensions")
    generator = np.random.default_rng(seed)
    # By rotation invariance the first subspace may be the first coordinates.
    fixed = np.eye(n_components, d_model)
    bases = (
        linalg.qr(generator.standard_normal((d_model, n_components)), mode="economic")[0].T
        for _ in range(n_draws)
    )
    draws = np.stack([overlap_and_largest(fixed, basis) for basis in bases])
    draws.setflags(write=False)  # every caller with the same question gets these
    return draws


def split_half_overlaps(
    one: VectorSet, *, n_components: int, centred: bool, n_splits: int = 100, seed: int = 0
) -> Float[np.ndarray, "split 2"]:
    """S and the largest absolute cosine between components of two random halves of one set's templates: the ceiling.

    Each half has half the data, so the ceiling is on the low side.

    Raises:
        ValueError: if a half has too few rows for the components.
    """
    names, index = index_clusters(one.clusters)
    generator = np.random.default_rng(seed)
    refitted = RefittedSet(*in_joint_span(one.rows), n_components, centred=centred)
    results = []
    for _ in range(n_splits):
        side = generator.permutation(len(names))[index] < len(names) // 2
        if min(side.sum(), (~side).sum()) < n_components:
            raise ValueError(f"{n_components} components from half of {len(side)} rows: too few")
        halves = (refitted.components(part.astype(np.float64)) for part in (side, ~side))
        results.append(overlap_and_largest(*halves))
    return np.stack(results)
