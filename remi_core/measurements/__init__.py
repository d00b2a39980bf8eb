"""What every measurement shares: the probe, and the state of a forward pass it reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from remi_core.batches import Batch
from remi_core.dialogues.chat import EncodedDialogue
from remi_core.errors import RemiError, brief
from remi_core.models.opening import logits_at, unembedding
from remi_core.transfer import placed

# Logits exist for a few hundred positions at a time. A GPU wants more of them at once than a processor, whose
# caches and memory allocator like small blocks; below so many rows the weights are read too often for what they do.
_LOGITS_IN_MEMORY = {"cpu": 1 << 20, "cuda": 1 << 27}
_LEAST_ROWS = 256


@runtime_checkable
class Probe(Protocol):
    """One measurement of a shared forward pass: it accumulates batch by batch, then finishes."""

    name: str
    layers: tuple[int, ...]
    """Blocks it reads; may be empty. One that names any is a ``BlockProbe``."""

    def empty(self) -> Probe:
        """A probe of the same settings that has taken nothing."""

    def accumulate(self, batch: Batch, state: PassState) -> None:
        """Takes what it needs from one batch; where memory runs out, the probe is thrown away."""

    def join(self, other: Probe) -> None:
        """Adds what another probe of the same settings took, of dialogues that are not in this one."""

    def finish(self) -> dict[str, np.ndarray]:
        """The record's arrays, dialogues in the order of the encoded set; the probe is empty afterwards."""


class BlockProbe(Probe, Protocol):
    """A probe that keeps what it needs of a block's output while the pass goes on: all outputs are never held."""

    def read_block(
        self,
        layer: int,
        kept: Float[Tensor, "kept d_model"],
        batch: Batch,
        dialogues: Sequence[EncodedDialogue],
    ) -> None:
        """Takes what it needs of the raw output of one of its layers; ``accumulate`` comes after the last.

        ``kept`` holds the batch's dialogues in turn, each from its prompt_end to its last answer token, on the
        block's own device.
        """


@dataclass(frozen=True, eq=False)
class PassState:
    """What a forward pass over one batch has left for the probes."""

    model: PreTrainedModel
    dialogues: tuple[EncodedDialogue, ...]
    """The dialogues of the batch, row by row."""
    final_hidden: Float[Tensor, "dialogue token d_model"]
    """After the final norm, ready for the unembedding."""

    @property
    def n_vocab(self) -> int:
        """Number of logits."""
        return unembedding(self.model).weight.shape[0]

    def answer_positions(self) -> tuple[Int[Tensor, " answer"], Int[Tensor, " answer"]]:
        """Rows and token positions of all answer tokens, dialogue by dialogue, in order."""
        spans = [(dialogue.answer_start, dialogue.answer_stop) for dialogue in self.dialogues]
        return positions_of(spans, device=self.final_hidden.device)

    def log_probabilities(
        self, rows: Int[Tensor, " position"], positions: Int[Tensor, " position"]
    ) -> Iterator[tuple[slice, Float[Tensor, "chunk vocab"]]]:
        """Chunks of the log-probabilities (nats, float32) of the token that follows each position.

        Each chunk comes with the slice of ``rows`` it belongs to; the whole is never in memory.
        """
        for part in chunks(len(rows), self.n_vocab, device=self.final_hidden.device):
            logits = logits_at(self.model, self.final_hidden[rows[part], positions[part]])
            yield part, torch.log_softmax(logits, dim=-1).to(self.final_hidden.device)


def chunks(n_positions: int, n_vocab: int, *, device: torch.device | str = "cpu") -> Iterator[slice]:
    """Slices that cover the positions, each small enough for its logits to be in memory."""
    wanted = _LOGITS_IN_MEMORY.get(torch.device(device).type, _LOGITS_IN_MEMORY["cpu"])
    step = max(_LEAST_ROWS, wanted // n_vocab)
    for start in range(0, n_positions, step):
        yield slice(start, min(start + step, n_positions))


def positions_of(
    spans: Sequence[tuple[int, int]], *, device: torch.device | str
) -> tuple[Int[Tensor, " position"], Int[Tensor, " position"]]:
    """Rows and token positions of one span [start, stop) a row, flattened in order."""
    pairs = [(row, position) for row, (start, stop) in enumerate(spans) for position in range(start, stop)]
    flat = placed(pairs, device).reshape(-1, 2)
    return flat[:, 0], flat[:, 1]


def split_rows(values: np.ndarray, counts: Sequence[int]) -> list[np.ndarray]:
    """A flat array cut into one piece a dialogue."""
    assert len(values) == sum(counts), (len(values), counts)
    return np.split(values, np.cumsum(counts)[:-1])


def all_finite(*values: np.ndarray) -> bool:
    """Whether no value of a batch needs to be looked for by name: one look costs less than one a dialogue."""
    return all(bool(np.isfinite(one).all()) for one in values)


def require_finite(
    probe: str, values: np.ndarray, dialogue: EncodedDialogue, *, layer: int | None = None
) -> None:
    """Nothing, if all values are finite.

    Raises:
        RemiError: naming the probe, the layer and the dialogue otherwise.
    """
    if not np.isfinite(values).all():
        place = "" if layer is None else f" at layer {layer}"
        bad = "not a number" if np.isnan(values).any() else "infinite"
        raise RemiError(
            f"{probe}{place}: a value of dialogue {brief(dialogue.identifier)} is {bad} (float16 holds numbers up to "
            "65504; bfloat16 and float32 hold larger ones)"
        )
