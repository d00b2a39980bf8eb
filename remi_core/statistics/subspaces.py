"""Principal subspaces: overlap of two, with its floor and ceiling, and refits on resamples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import linalg

from remi_core.statistics.resampling import (
    ClusterResamples,
    Estimate,
    cluster_estimate,
    combine,
    index_clusters,
    refuse_nan,
)


@dataclass(frozen=True, eq=False)
class Components:
    """The leading right singular vectors of a set of rows, and the spectrum they come from."""

    vectors: Float[np.ndarray, "component d_model"]
    """Orthonormal rows, largest singular value first; the sign is arbitrary."""
    share: Float[np.ndarray, " rank"]
    """Share of the sum of squares (variance, where centred) along every singular vector: the scree."""


def top_components(
    rows: Float[np.ndarray, "dialogue d_model"], n_components: int, *, centred: bool
) -> Components:
    """The top right singular vectors of the rows, float64; not ``centred``, the first is mostly the mean row.

    Source: Giordani (2025), section 4.4 (centred).

    Raises:
        ValueError: if a value is NaN, the rows are all 0, or there are fewer than ``n_components`` singular
            vectors.
    """
    refuse_nan(rows, "rows to decompose")
    if not 1 <= n_components <= min(rows.shape):
        raise ValueError(
            f"{n_components} components from {rows.shape[0]} rows of {rows.shape[1]}: "
            f"valid are 1 to {min(rows.shape)}"
        )
    values = rows.astype(np.float64)
    if centred:
        values = values - values.mean(axis=0)
    _, singular, right = linalg.svd(values, full_matrices=False)
    total = np.square(singular).sum()
    if total == 0:
        raise ValueError(f"all {len(rows)} rows are equal after centring: no component")
    return Components(vectors=right[:n_components], share=np.square(singular) / total)


def overlap_and_largest(
    first: Float[np.ndarray, "component d_model"], second: Float[np.ndarray, "component d_model"]
) -> Float[np.ndarray, " 2"]:
    """S and the largest absolute cosine of two bases with orthonormal rows, in this order, both in [0, 1].

    S = ‖Q_aᵀ Q_b‖²_F / k is the mean squared cosine of the principal angles; 1 for equal spans.
    """
    cosines = first @ second.T
    return np.array([np.square(cosines).sum() / len(first), np.abs(cosines).max()])


# A resample, a left-out template and a half of the data are all weightings of the same rows. The Gram matrix of
# weighted rows is that of the rows, scaled, so the rows themselves are multiplied once, not once a weighting.

LEAST_SHARE = 1e-10
"""Below this share of the largest eigenvalue a Gram matrix no longer tells the direction of a component."""


def in_joint_span(*sets: Float[np.ndarray, "_ d_model"]) -> list[Float[np.ndarray, "_ rank"]]:
    """The rows of each set in coordinates of the span of all rows together: exact, and no wider than needed."""
    values = [rows.astype(np.float64) for rows in sets]
    _, _, span = linalg.svd(np.concatenate(values), full_matrices=False)
    return [rows @ span.T for rows in values]


class RefittedSet:
    """Rows whose leading right singular vectors are asked for again and again, with other weights."""

    def __init__(
        self, rows: Float[np.ndarray, "dialogue d_model"], n_components: int, *, centred: bool
    ) -> None:
        values = rows.astype(np.float64)
        # Centring undoes any shift; without a large common part the Gram matrix keeps its digits.
        self._rows = values - values.mean(axis=0) if centred else values
        self._gram = self._rows @ self._rows.T
        self._n_components, self._centred = n_components, centred

    def components(self, weights: Float[np.ndarray, " dialogue"]) -> Float[np.ndarray, "component d_model"]:
        """Orthonormal rows, the largest last, of the rows each counted ``weights`` times; the sign is arbitrary.

        Where too few rows are left, as in a rare resample, so are the directions that they do not span.
        """
        used = np.flatnonzero(weights > 0)
        kept, rows = weights[used], self._rows[used]
        if self._n_components <= len(used) < rows.shape[1]:
            gram = weighted_gram(self._gram[used[:, None], used], kept, centred=self._centred)
            values, vectors = _top(gram, self._n_components)
            # Below full rank the smaller matrix has no direction to give; the larger one then has any.
            if values[0] > LEAST_SHARE * values[-1]:
                mixture = (vectors / np.sqrt(values)).T * np.sqrt(kept)
                if self._centred:
                    mixture -= mixture.sum(axis=1, keepdims=True) * (kept / kept.sum())
                return mixture @ rows
        middle = kept @ rows / kept.sum() if self._centred else 0.0
        weighted = np.sqrt(kept)[:, None] * (rows - middle)
        return _top(weighted.T @ weighted, self._n_components)[1].T


def weighted_gram(gram: np.ndarray, weights: np.ndarray, *, centred: bool) -> Float[np.ndarray, "n n"]:
    """The Gram matrix of rows each counted ``weights`` times, from theirs; about their weighted mean, if centred."""
    if centred:
        shift = gram @ weights / weights.sum()
        gram = gram - shift - shift[:, None] + weights @ shift / weights.sum()
    root = np.sqrt(weights)
    return root[:, None] * gram * root


def _top(matrix: np.ndarray, n_components: int) -> tuple[np.ndarray, np.ndarray]:
    width = len(matrix)
    return linalg.eigh(
        matrix, subset_by_index=[width - n_components, width - 1], check_finite=False, overwrite_a=True
    )


# Where a subspace overlap stands: its interval, a floor of random subspaces, a ceiling of split halves.


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
    jackknife's bias beside its variance. That rule was chosen on known truth, see ``book/deviations.md``. Intervals
    stop at 0 and 1, and near both they hold the truth too often.

    Raises:
        ValueError: if components are more than the rows or dimensions, or there are fewer than two clusters.
    """
    names, _ = index_clusters([*first.clusters, *second.clusters])
    for side in (first, second):
        top_components(side.rows, n_components, centred=centred)
    sides = [
        (RefittedSet(rows, n_components, centred=centred), np.searchsorted(names, side.clusters))
        for rows, side in zip(in_joint_span(first.rows, second.rows), (first, second), strict=True)
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
    overlap, largest = (
        replace(combine(lambda rows, i=i: rows[..., i], both), inside=(0.0, 1.0)) for i in (0, 1)
    )
    return Overlap(overlap=replace(overlap, counts_bias=True), largest=largest)


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
    vectors: VectorSet, *, n_components: int, centred: bool, n_splits: int = 100, seed: int = 0
) -> Float[np.ndarray, "split 2"]:
    """S and the largest absolute cosine between components of two random halves of one set's templates: the ceiling.

    Each half has half the data, so the ceiling is on the low side.

    Raises:
        ValueError: if a half has too few rows for the components.
    """
    names, index = index_clusters(vectors.clusters)
    generator = np.random.default_rng(seed)
    refitted = RefittedSet(*in_joint_span(vectors.rows), n_components, centred=centred)
    results = []
    for _ in range(n_splits):
        side = generator.permutation(len(names))[index] < len(names) // 2
        if min(side.sum(), (~side).sum()) < n_components:
            raise ValueError(f"{n_components} components from half of {len(side)} rows: too few")
        halves = (refitted.components(part.astype(np.float64)) for part in (side, ~side))
        results.append(overlap_and_largest(*halves))
    return np.stack(results)
