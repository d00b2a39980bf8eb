"""Factors of gradients in a temporary file: for a large model those of a thousand dialogues take gigabytes."""

from __future__ import annotations

from collections.abc import Sequence
from tempfile import SpooledTemporaryFile
from typing import overload

import numpy as np
import torch

from remi_core.measurements.gram_blocks import Factors

SPILL_FROM = 1 << 22
"""Bytes above which all factors lie on disk and none in memory; 4 MB. ``TMPDIR`` says on which disk."""
_BYTES = 4
"""Of a number: factors are float32."""


class FactorFile(Sequence[Factors]):
    """The factors (a, δ) of each dialogue, read anew whenever they are asked for."""

    def __init__(self, n_dialogues: int, *, spill_from: int = SPILL_FROM) -> None:
        # Read and written, not mapped: pages of a map would count as this process's memory.
        self._stream = SpooledTemporaryFile(max_size=spill_from)
        self._places: list[tuple[int, tuple[int, ...], tuple[int, ...]] | None] = [None] * n_dialogues
        self._end = 0

    def write(self, index: int, factors: Factors) -> None:
        """Return once the factors of a dialogue are kept.

        Raises:
            OSError: if they do not fit on the disk.
        """
        start = self._end
        self._stream.seek(start)
        for part in factors:
            data = np.ascontiguousarray(part.numpy(), dtype=np.float32).tobytes()
            self._stream.write(data)
            self._end += len(data)
        inputs, gradients = factors
        self._places[index] = start, tuple(inputs.shape), tuple(gradients.shape)

    def __len__(self) -> int:
        """Number of dialogues."""
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Factors: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Factors]: ...

    def __getitem__(self, index: int | slice) -> Factors | Sequence[Factors]:
        """The factors of a dialogue, or of several, in memory.

        Raises:
            KeyError: if they were never written.
        """
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        place = self._places[index]
        if place is None:
            raise KeyError(f"no factors of dialogue {index} of {len(self)} were written")
        start, *shapes = place
        self._stream.seek(start)
        inputs, gradients = (self._read(*shape) for shape in shapes)
        return inputs, gradients

    def _read(self, rows: int, width: int) -> torch.Tensor:
        data = bytearray(self._stream.read(rows * width * _BYTES))
        return (
            torch.frombuffer(data, dtype=torch.float32).view(rows, width) if data else torch.empty(0, width)
        )
