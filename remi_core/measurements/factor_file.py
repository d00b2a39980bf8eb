"""Factors of gradients in a temporary file: for a large model those of a thousand dialogues take gigabytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from tempfile import TemporaryFile
from types import MappingProxyType
from typing import IO, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Factors = tuple[Float[Tensor, "_ d_in"], Float[Tensor, "_ d_out"]]

SPILL_FROM: Mapping[str, int] = MappingProxyType({"cpu": 1 << 22, "cuda": 1 << 30})
"""Bytes above which all factors lie on disk, by where they were made: a card keeps 1 GB, main memory 4 MB. ``TMPDIR``
says on which disk."""
_BYTES = 4
"""Of a number: factors are float32."""


class FactorFile(Sequence[Factors]):
    """The factors (a, δ) of each dialogue: held where they were made while few, else read whenever asked for."""

    def __init__(self, n_dialogues: int, *, spill_from: int = SPILL_FROM["cpu"]) -> None:
        self._spill_from = spill_from
        self._held: dict[int, Factors] = {}
        # Read and written, not mapped: pages of a map would count as this process's memory.
        self._stream: IO[bytes] | None = None
        self._shapes: list[tuple[tuple[int, ...], tuple[int, ...]] | None] = [None] * n_dialogues
        self._starts: dict[int, int] = {}
        self._end = 0
        self._n_bytes = 0

    def write(self, index: int, factors: Factors) -> None:
        """Return once the factors of a dialogue are kept.

        Raises:
            OSError: if they do not fit on the disk.
        """
        inputs, gradients = factors
        self._shapes[index] = tuple(inputs.shape), tuple(gradients.shape)
        self._held[index] = factors
        self._n_bytes += _BYTES * (inputs.numel() + gradients.numel())
        if self._stream is not None or self._n_bytes > self._spill_from:
            self._stream = self._stream or TemporaryFile()
            for held, own in self._held.items():
                self._put(held, own)
            self._held.clear()

    def _put(self, index: int, factors: Factors) -> None:
        self._starts[index] = self._end
        self._stream.seek(self._end)
        for part in factors:
            self._end += self._stream.write(np.ascontiguousarray(part.cpu().numpy(), dtype=np.float32).data)

    @property
    def n_tokens(self) -> int:
        """Tokens of all dialogues that were written."""
        return sum(inputs[0] for inputs, _ in filter(None, self._shapes))

    def __len__(self) -> int:
        """Number of dialogues."""
        return len(self._shapes)

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
        shapes = self._shapes[index]
        if shapes is None:
            raise KeyError(f"no factors of dialogue {index} of {len(self)} were written")
        if index in self._held:
            return self._held[index]
        self._stream.seek(self._starts[index])
        inputs, gradients = (self._read(*shape) for shape in shapes)
        return inputs, gradients

    def _read(self, rows: int, width: int) -> Tensor:
        data = bytearray(self._stream.read(rows * width * _BYTES))
        return (
            torch.frombuffer(data, dtype=torch.float32).view(rows, width) if data else torch.empty(0, width)
        )
