"""Top components of a set of vectors, and how much two component subspaces share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import linalg

from remi_core.statistics.bootstrap import refuse_nan


@dataclass(frozen=True, eq=False)
class Components:
    """The leading right singular vectors of a set of rows, and the spectrum they come from."""

    vectors: Float[np.ndarray, "component d_model"]
    """Orthonormal rows, largest singular value first; the sign is arbitrary."""
    share: Float[np.ndarray, " rank"]
    """Share of the sum of squares (variance, where centred) along every singular vector: the scree."""
    centred: bool
    """Whether the mean row was subtracted first; if not, the first component is mostly the mean."""


def top_components(
    rows: Float[np.ndarray, "dialogue d_model"], n_components: int, *, centred: bool
) -> Components:
    """The top right singular vectors of the rows, float64.

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
    return Components(vectors=right[:n_components], share=np.square(singular) / total, centred=centred)


def component_cosines(
    first: Float[np.ndarray, "component d_model"], second: Float[np.ndarray, "other d_model"]
) -> Float[np.ndarray, "component other"]:
    """Absolute cosine of every pair of components, in [0, 1], as published: signs are arbitrary.

    Source: Giordani (2025), section 4.4.1, figure 6.
    """
    return np.abs(first @ second.T)


def overlap_and_largest(
    first: Float[np.ndarray, "component d_model"], second: Float[np.ndarray, "component d_model"]
) -> Float[np.ndarray, " 2"]:
    """S and the largest absolute cosine of two bases with orthonormal rows, in this order, both in [0, 1].

    S = ‖Q_aᵀ Q_b‖²_F / k is the mean squared cosine of the principal angles; 1 for equal spans.
    """
    cosines = first @ second.T
    return np.array([np.square(cosines).sum() / len(first), np.abs(cosines).max()])


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
