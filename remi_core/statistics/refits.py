"""Top components of the same rows under many weightings, from one Gram matrix.

A resample, a left-out template and a half of the data are all weightings of the same rows. The Gram matrix of
weighted rows is that of the rows, scaled, so the rows themselves are multiplied once, not once a weighting.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import linalg

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
            values, vectors = _top(self._weighted_gram(used, kept), self._n_components)
            # Below full rank the smaller matrix has no direction to give; the larger one then has any.
            if values[0] > LEAST_SHARE * values[-1]:
                mixture = (vectors / np.sqrt(values)).T * np.sqrt(kept)
                if self._centred:
                    mixture -= mixture.sum(axis=1, keepdims=True) * (kept / kept.sum())
                return mixture @ rows
        middle = kept @ rows / kept.sum() if self._centred else 0.0
        weighted = np.sqrt(kept)[:, None] * (rows - middle)
        return _top(weighted.T @ weighted, self._n_components)[1].T

    def _weighted_gram(self, used: np.ndarray, weights: np.ndarray) -> Float[np.ndarray, "used used"]:
        gram = self._gram[used[:, None], used]
        if self._centred:
            shift = gram @ weights / weights.sum()
            gram = gram - shift - shift[:, None] + weights @ shift / weights.sum()
        root = np.sqrt(weights)
        return root[:, None] * gram * root


def _top(matrix: np.ndarray, n_components: int) -> tuple[np.ndarray, np.ndarray]:
    width = len(matrix)
    return linalg.eigh(
        matrix, subset_by_index=[width - n_components, width - 1], check_finite=False, overwrite_a=True
    )
