"""What a probe keeps of each batch, as whole arrays: an object a dialogue would take more memory than its numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


class Columns:
    """Arrays of several batches, with the dialogues that each batch held."""

    def __init__(self) -> None:
        self._indices: list[Int[np.ndarray, " dialogue"]] = []
        self._arrays: list[tuple[np.ndarray, ...]] = []

    def add(self, indices: Sequence[int] | Int[np.ndarray, " dialogue"], *arrays: np.ndarray) -> None:
        """Takes the arrays of one batch, always as many and in one order."""
        self._indices.append(np.array(indices, dtype=np.int64))
        self._arrays.append(arrays)

    def extend(self, other: Columns) -> None:
        """Takes what another one holds."""
        self._indices += other._indices
        self._arrays += other._arrays

    def batches(self) -> list[tuple[Int[np.ndarray, " dialogue"], tuple[np.ndarray, ...]]]:
        """The dialogues and the arrays of each batch."""
        return list(zip(self._indices, self._arrays, strict=True))

    def held(self) -> list[np.ndarray]:
        """The dialogues in the order they came, and each array over all batches; none where nothing was added."""
        if not self._indices:
            return []
        columns = zip(*self._arrays, strict=True)
        return [np.concatenate(self._indices), *(np.concatenate(column) for column in columns)]

    def finish(self) -> tuple[Int[np.ndarray, " dialogue"], list[np.ndarray]]:
        """Dialogues in the order they came, and each array over all batches; empty afterwards."""
        indices = np.concatenate(self._indices) if self._indices else np.zeros(0, dtype=np.int64)
        arrays = [np.concatenate(column) for column in zip(*self._arrays, strict=True)]
        self.__init__()
        return indices, arrays


def pieces_in_order(
    indices: Int[np.ndarray, " dialogue"], counts: Int[np.ndarray, " dialogue"]
) -> tuple[Int[np.ndarray, " value"], Int[np.ndarray, " edge"]]:
    """Places of a flat array, a piece a dialogue, that put the pieces in the order of their indices; their edges."""
    order = np.argsort(indices, kind="stable")
    starts, sizes = (np.cumsum(counts) - counts)[order], counts[order]
    edges = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return np.repeat(starts - edges[:-1], sizes) + np.arange(edges[-1]), edges
