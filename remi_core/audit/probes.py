"""What the audit reads of a forward pass besides the token statistics: states in given spans, and the wrong token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from remi_core.batches import Batch
from remi_core.dialogues.chat import EncodedDialogue
from remi_core.measurements import PassState, require_finite

Spans = Mapping[str, tuple[int, int]]
"""Window → token positions [start, stop) of one dialogue."""


class SpanProbe:
    """Mean raw block output in given spans, and the state after the final norm at the last token.

    Arrays: ``mean`` (dialogue, window, layer, d_model) and ``normed_end`` (dialogue, d_model), float32, in units
    of the residual stream and of the normed state; ``count`` (dialogue, window), tokens used. It needs
    dialogues whose blocks are kept at every position (``parts.whole``).
    """

    def __init__(self, layers: Sequence[int], spans: Sequence[Spans], *, name: str = "spans") -> None:
        self.name = name
        self.layers = tuple(layers)
        self._spans = spans
        self._means: dict[int, Tensor] = {}
        self._rows: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def empty(self) -> SpanProbe:
        """A probe of the same settings that has taken nothing."""
        return SpanProbe(self.layers, self._spans, name=self.name)

    def join(self, other: SpanProbe) -> None:
        """Adds the dialogues of another one."""
        self._rows |= other._rows

    def read_block(
        self,
        layer: int,
        kept: Float[Tensor, "kept d_model"],
        batch: Batch,
        dialogues: Sequence[EncodedDialogue],
    ) -> None:
        """Averages one block's output over the spans of the batch."""
        own = kept.float().split([len(one.input_ids) for one in dialogues])
        means = [
            torch.stack([hidden[start:stop].mean(dim=0) for start, stop in self._within(index, len(hidden))])
            for index, hidden in zip(batch.indices.tolist(), own, strict=True)
        ]
        self._means[layer] = torch.stack(means).to(batch.input_ids.device)

    def accumulate(self, batch: Batch, state: PassState) -> None:
        """Takes the spans of one batch."""
        stacked = torch.stack([self._means[layer] for layer in self.layers], dim=2).cpu().numpy()
        self._means = {}
        for row, index in enumerate(batch.indices.tolist()):
            dialogue, means = state.dialogues[row], stacked[row]
            n_tokens = len(dialogue.input_ids)
            end = state.final_hidden[row, n_tokens - 1].float().cpu().numpy()
            for values in (means, end):
                require_finite(self.name, values, dialogue)
            counts = np.array([stop - start for start, stop in self._within(index, n_tokens)])
            self._rows[index] = (means, end, counts)

    def _within(self, index: int, n_tokens: int) -> list[tuple[int, int]]:
        return [(start, min(stop, n_tokens)) for start, stop in self._spans[index].values()]

    def finish(self) -> dict[str, np.ndarray]:
        """The arrays named above."""
        rows = [self._rows[index] for index in sorted(self._rows)]
        self._rows = {}
        mean, end, count = (np.stack(column) for column in zip(*rows, strict=True))
        return {"mean": mean, "normed_end": end, "count": count}


class WrongTokenProbe:
    """Log-probability of the dialogue's token at the choice, and of its word's id without the leading space.

    Arrays (dialogue,), nats, float32, NaN where there is no such pair: ``in_context``, ``bare``.
    """

    layers: tuple[int, ...] = ()

    def __init__(self, bare: Sequence[int | None], *, name: str = "wrong_token") -> None:
        self.name = name
        self._bare = bare
        self._rows: dict[int, np.ndarray] = {}

    def empty(self) -> WrongTokenProbe:
        """A probe of the same settings that has taken nothing."""
        return WrongTokenProbe(self._bare, name=self.name)

    def join(self, other: WrongTokenProbe) -> None:
        """Adds the dialogues of another one."""
        self._rows |= other._rows

    def accumulate(self, batch: Batch, state: PassState) -> None:
        """Takes the pairs of one batch."""
        indices = batch.indices.tolist()
        self._rows |= {index: np.full(2, np.nan, dtype=np.float32) for index in indices}
        used = [row for row, index in enumerate(indices) if self._bare[index] is not None]
        if not used:
            return
        rows = torch.tensor(used, device=batch.input_ids.device)
        choices = torch.tensor([state.dialogues[row].choice for row in used], device=rows.device)
        wrong = torch.tensor([self._bare[indices[row]] for row in used], device=rows.device)
        for part, log_p in state.log_probabilities(rows, choices - 1):
            tokens = torch.stack([batch.input_ids[rows[part], choices[part]], wrong[part]], dim=1)
            values = log_p.gather(1, tokens).float().cpu().numpy()
            for row, pair in zip(used[part], values, strict=True):
                require_finite(self.name, pair, state.dialogues[row])
                self._rows[indices[row]] = pair

    def finish(self) -> dict[str, np.ndarray]:
        """The arrays named above."""
        pairs = np.stack([self._rows[index] for index in sorted(self._rows)])
        self._rows = {}
        return {"in_context": pairs[:, 0], "bare": pairs[:, 1]}
