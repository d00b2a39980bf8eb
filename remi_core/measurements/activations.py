"""Mean block outputs in named windows of each dialogue (paper sections 4.3 and 4.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from remi_core.batches import Batch
from remi_core.errors import UsageError, nearest
from remi_core.measurements import PassState, all_finite, require_finite
from remi_core.measurements.columns import Columns
from remi_core.npz import RowFile
from remi_core.windows import WINDOWS, window_span


class ActivationProbe:
    """Mean raw block output (the residual stream after a block) over the tokens of each window.

    Arrays: ``mean`` (dialogue, window, layer, d_model), float32, windows and layers in the order given;
    ``count`` (dialogue, window), int64, tokens used. A window without tokens has count 0 and a NaN mean.
    With a ``file``, the means of finished batches go there and ``mean`` is read from it.

    Raises:
        UsageError: if a window is unknown or ``first_k`` is below 1.
    """

    def __init__(
        self,
        layers: Sequence[int],
        windows: Sequence[str] = WINDOWS,
        *,
        first_k: int = 10,
        name: str = "activations",
        file: RowFile | None = None,
    ) -> None:
        for window in windows:
            if window not in WINDOWS:
                raise UsageError(f"unknown window {window!r} {nearest(window, WINDOWS)}")
        if first_k < 1:
            raise UsageError(f"first_k is {first_k}; it must be at least 1")
        self.name = name
        self.layers = tuple(layers)
        self.windows = tuple(windows)
        self.first_k = first_k
        self._file = file
        self._kept = Columns()

    def empty(self) -> ActivationProbe:
        """A probe of the same settings that has taken nothing, in memory."""
        return ActivationProbe(self.layers, self.windows, first_k=self.first_k, name=self.name)

    def join(self, other: ActivationProbe) -> None:
        """Adds the dialogues of another one; where there is a file, their means leave memory."""
        if self._file is None:
            self._kept.extend(other._kept)
            return
        for indices, (counts, means) in other._kept.batches():
            for index, mean in zip(indices.tolist(), means, strict=True):
                self._file.write(index, mean)
            self._kept.add(indices, counts)

    def accumulate(self, batch: Batch, state: PassState) -> None:
        """Takes the window means of one batch."""
        members, counts = self._members(state)
        # One look-up a layer averages all windows of all dialogues of the batch; an empty bag is zero.
        starts = counts.flatten().cumsum(0) - counts.flatten()
        means = [
            nn.functional.embedding_bag(
                members, state.blocks[layer].to(members.device, torch.float32), starts, mode="mean"
            )
            for layer in self.layers
        ]
        stacked = torch.stack(means, dim=1).unflatten(0, counts.shape).cpu().numpy()
        n_tokens = counts.cpu().numpy()
        if not all_finite(stacked):
            for row, dialogue in enumerate(state.dialogues):
                for at, layer in enumerate(self.layers):
                    require_finite(self.name, stacked[row, n_tokens[row] > 0, at], dialogue, layer=layer)
        stacked[n_tokens == 0] = np.nan
        self._kept.add(batch.indices.tolist(), n_tokens, stacked)

    def _members(self, state: PassState) -> tuple[Int[Tensor, " member"], Int[Tensor, "dialogue window"]]:
        """Places among the kept positions of every window of every dialogue in turn, and how many each has."""
        members: list[int] = []
        counts = []
        start = 0
        for one in state.dialogues:
            spans = [window_span(one, window, first_k=self.first_k) for window in self.windows]
            for first, stop in spans:
                members.extend(range(start + first - one.prompt_end, start + stop - one.prompt_end))
            counts.append([stop - first for first, stop in spans])
            # What is kept of a dialogue runs from prompt_end to the end of its answer.
            start += one.answer_stop - one.prompt_end
        device = state.kept[0].device
        long = {"dtype": torch.long, "device": device}
        return torch.tensor(members, **long), torch.tensor(counts, **long)

    def finish(self) -> dict[str, np.ndarray]:
        """The arrays named above."""
        indices, (counts, *means) = self._kept.finish()
        order = np.argsort(indices)
        return {
            "mean": means[0][order] if self._file is None else self._file.finish(),
            "count": counts[order],
        }
