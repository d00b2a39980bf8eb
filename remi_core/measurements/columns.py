"""What a probe keeps of all batches, in a few large arrays: one a batch would take more memory than its numbers.

Small arrays that stay lie between the large ones that each pass makes and leaves. What these leave is then broken up,
the next pass's do not fit into it, and the process grows with every batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

_LEAST_BYTES = 1 << 20
"""Room for what is added to an array that is full, at least; what is not filled takes no memory."""


class Columns:
    """Arrays of several batches one after another, with the dialogue that each belongs to."""

    def __init__(self) -> None:
        self._columns: list[_Growing] = []

    def add(self, indices: Sequence[int] | Int[np.ndarray, " dialogue"], *arrays: np.ndarray) -> None:
        """Takes the arrays of one batch, always as many and in one order."""
        parts = (np.asarray(indices, dtype=np.int64), *arrays)
        if not self._columns:
            self._columns = [_Growing(part) for part in parts]
            return
        for column, part in zip(self._columns, parts, strict=True):
            column.add(part)

    def extend(self, other: Columns) -> None:
        """Takes what another one holds."""
        if other._columns:
            self.add(*other.held())

    def held(self) -> list[np.ndarray]:
        """The dialogues in the order they came, and each array over all batches; none where nothing was added."""
        return [column.filled() for column in self._columns]

    def finish(self) -> tuple[Int[np.ndarray, " dialogue"], list[np.ndarray]]:
        """Dialogues in the order they came, and each array over all batches; empty afterwards."""
        indices, *arrays = self.held() or [np.zeros(0, dtype=np.int64)]
        self._columns = []
        return indices, arrays


class _Growing:
    """Rows of one shape and type: the first ones as they are, then a copy of all with room for more."""

    def __init__(self, first: np.ndarray) -> None:
        self._rows, self._n = first, len(first)

    def add(self, values: np.ndarray) -> None:
        stop = self._n + len(values)
        if stop > len(self._rows):
            more = max(len(self._rows), _LEAST_BYTES // max(1, values[:1].nbytes))
            rows = np.empty((stop + more, *self._rows.shape[1:]), dtype=self._rows.dtype)
            rows[: self._n] = self.filled()
            self._rows = rows
        self._rows[self._n : stop] = values
        self._n = stop

    def filled(self) -> np.ndarray:
        return self._rows[: self._n]


def pieces_in_order(
    indices: Int[np.ndarray, " dialogue"], counts: Int[np.ndarray, " dialogue"]
) -> tuple[Int[np.ndarray, " value"], Int[np.ndarray, " edge"]]:
    """Places of a flat array, a piece a dialogue, that put the pieces in the order of their indices; their edges."""
    order = np.argsort(indices, kind="stable")
    starts, sizes = (np.cumsum(counts) - counts)[order], counts[order]
    edges = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return np.repeat(starts - edges[:-1], sizes) + np.arange(edges[-1]), edges
