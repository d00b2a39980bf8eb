"""Mean block outputs in named windows of each dialogue (paper sections 4.3 and 4.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from remi_core.batches import Batch
from remi_core.dialogues.chat import EncodedDialogue
from remi_core.dialogues.windows import WINDOWS, window_span
from remi_core.errors import UsageError, nearest
from remi_core.measurements import PassState, require_finite
from remi_core.measurements.columns import Columns
from remi_core.storage.npz import RowFile
from remi_core.transfer import fetched, placed


@dataclass(frozen=True, eq=False)
class _Open:
    """Windows of a batch whose pass goes on."""

    members: Int[Tensor, " member"]
    """Places among the kept positions of every window of every dialogue in turn."""
    starts: Int[Tensor, " start"]
    """Where each window begins among them."""
    n_tokens: Int[np.ndarray, "dialogue window"]
    """How many each has."""
    means: Float[Tensor, "dialogue window layer d_model"]
    """Filled block by block."""


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
        self._open: _Open | None = None

    def empty(self) -> ActivationProbe:
        """A probe of the same settings that has taken nothing, in memory."""
        return ActivationProbe(self.layers, self.windows, first_k=self.first_k, name=self.name)

    def join(self, other: ActivationProbe) -> None:
        """Adds the dialogues of another one; where there is a file, their means leave memory."""
        if self._file is None:
            self._kept.extend(other._kept)
            return
        indices, (counts, means) = other._kept.finish()
        self._file.write(indices.tolist(), means)
        self._kept.add(indices, counts)

    def read_block(
        self,
        layer: int,
        kept: Float[Tensor, "kept d_model"],
        batch: Batch,
        dialogues: Sequence[EncodedDialogue],
    ) -> None:
        """Averages one block's output over all windows of the batch."""
        if self._open is None:
            self._open = self._opened(dialogues, kept.shape[-1], batch.input_ids.device)
        members, starts = self._open.members.to(kept.device), self._open.starts.to(kept.device)
        # One look-up averages all windows of all dialogues; an empty bag is zero.
        means = nn.functional.embedding_bag(members, kept.float(), starts, mode="mean")
        for at in (at for at, own in enumerate(self.layers) if own == layer):
            self._open.means[:, :, at] = means.unflatten(0, self._open.n_tokens.shape)

    def accumulate(self, batch: Batch, state: PassState) -> None:
        """Takes the window means of one batch."""
        # Looked at where the means lie, at no cost on a card, which is waited for once.
        finite, n_tokens = self._open.means.isfinite().all(), self._open.n_tokens
        stacked = fetched(self._open.means).numpy()
        self._open = None
        if not bool(finite):
            for row, dialogue in enumerate(state.dialogues):
                for at, layer in enumerate(self.layers):
                    require_finite(self.name, stacked[row, n_tokens[row] > 0, at], dialogue, layer=layer)
        stacked[n_tokens == 0] = np.nan
        self._kept.add(batch.indices.tolist(), n_tokens, stacked)

    def _opened(self, dialogues: Sequence[EncodedDialogue], width: int, device: torch.device) -> _Open:
        """The windows of a batch, none of their means filled yet."""
        members: list[int] = []
        counts = []
        start = 0
        for one in dialogues:
            spans = [window_span(one, window, first_k=self.first_k) for window in self.windows]
            for first, stop in spans:
                members.extend(range(start + first - one.prompt_end, start + stop - one.prompt_end))
            counts.append([stop - first for first, stop in spans])
            # What is kept of a dialogue runs from prompt_end to the end of its answer.
            start += one.answer_stop - one.prompt_end
        n_tokens = np.array(counts)
        starts = n_tokens.cumsum() - n_tokens.flatten()
        # One array for all blocks: one a block would lie between the pass's own and break up what these leave.
        means = torch.empty((*n_tokens.shape, len(self.layers), width), device=device)
        return _Open(placed(members, device), placed(starts.tolist(), device), n_tokens, means)

    def finish(self) -> dict[str, np.ndarray]:
        """The arrays named above."""
        indices, (counts, *means) = self._kept.finish()
        order = np.argsort(indices)
        return {
            "mean": means[0][order] if self._file is None else self._file.finish(),
            "count": counts[order],
        }
