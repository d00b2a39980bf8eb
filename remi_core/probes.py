"""Probes: what each measurement takes from a forward pass, and the arrays it gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from remi_core.batches import Batch
from remi_core.errors import RemiError, UsageError, brief, nearest
from remi_core.files import RowFile
from remi_core.models import logits_at, unembedding
from remi_core.placement import to_device, to_host
from remi_core.tokens import WINDOWS, EncodedDialogue, window_span

# What a probe keeps of all batches, in a few large arrays: one a batch would take more memory than its numbers.
#
# Small arrays that stay lie between the large ones that each pass makes and leaves. What these leave is then broken up,
# the next pass's do not fit into it, and the process grows with every batch.

_LEAST_BYTES = 1 << 20
"""Room for what is added to an array that is full, at least; what is not filled takes no memory."""


class Columns:
    """Arrays of several batches one after another, with the dialogue that each belongs to."""

    def __init__(self) -> None:
        self._columns: list[np.ndarray] = []
        self._n_rows: list[int] = []

    def add(self, indices: Sequence[int] | Int[np.ndarray, " dialogue"], *arrays: np.ndarray) -> None:
        """Takes the arrays of one batch, always as many and in one order."""
        parts = [np.asarray(indices, dtype=np.int64), *arrays]
        if not self._columns:
            self._columns, self._n_rows = parts, [len(part) for part in parts]
            return
        for place, (column, n, part) in enumerate(zip(self._columns, self._n_rows, parts, strict=True)):
            stop = n + len(part)
            if stop > len(column):
                more = max(len(column), _LEAST_BYTES // max(1, part[:1].nbytes))
                self._columns[place] = np.empty((stop + more, *column.shape[1:]), dtype=column.dtype)
                self._columns[place][:n] = column[:n]
            self._columns[place][n:stop] = part
            self._n_rows[place] = stop

    def held(self) -> list[np.ndarray]:
        """The dialogues in the order they came, and each array over all batches; none where nothing was added."""
        return [column[:n] for column, n in zip(self._columns, self._n_rows, strict=True)]

    def finish(self) -> tuple[Int[np.ndarray, " dialogue"], list[np.ndarray]]:
        """Dialogues in the order they came, and each array over all batches; empty afterwards."""
        indices, *arrays = self.held() or [np.zeros(0, dtype=np.int64)]
        self._columns, self._n_rows = [], []
        return indices, arrays


# What every measurement shares: the probe, and the state of a forward pass it reads.

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


class ColumnProbe:
    """What the probes share that keep columns: one takes a batch, another joins it, and its state can lie on disk."""

    layers: tuple[int, ...] = ()

    def __init__(self, name: str) -> None:
        self.name = name
        self._kept = Columns()

    def join(self, other: ColumnProbe) -> None:
        """Adds the dialogues of another probe of the same settings."""
        self.restore(other.state())

    def state(self) -> dict[str, np.ndarray]:
        """All that was taken, settings left out, as arrays by name."""
        return {f"{place:02d}": column for place, column in enumerate(self._kept.held())}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Adds what the ``state`` of a probe of the same settings holds."""
        columns = [state[name] for name in sorted(state) if name.isdigit()]
        if columns:
            self._kept.add(*columns)


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
    flat = to_device(pairs, device).reshape(-1, 2)
    return flat[:, 0], flat[:, 1]


def split_rows(values: np.ndarray, counts: Sequence[int]) -> list[np.ndarray]:
    """A flat array cut into one piece a dialogue."""
    assert len(values) == sum(counts), (len(values), counts)
    return np.split(values, np.cumsum(counts)[:-1])


def require_finite(
    probe: str, values: np.ndarray, dialogue: EncodedDialogue, *, layer: int | None = None
) -> None:
    """Check that all values are finite.

    Raises:
        RemiError: naming the probe, the layer and the dialogue, if one is not.
    """
    if not np.isfinite(values).all():
        place = "" if layer is None else f" at layer {layer}"
        bad = "not a number" if np.isnan(values).any() else "infinite"
        raise RemiError(
            f"{probe}{place}: a value of dialogue {brief(dialogue.identifier)} is {bad} (float16 holds numbers up to "
            "65504; bfloat16 and float32 hold larger ones)"
        )


# Mean block outputs in named windows of each dialogue (paper sections 4.3 and 4.4).


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


class Activations(ColumnProbe):
    """Mean raw block output (the residual stream after a block) over the tokens of each window.

    Arrays: ``mean`` (dialogue, window, layer, d_model), float32, windows and layers in the order given;
    ``count`` (dialogue, window), int64, tokens used. A window without tokens has count 0 and a NaN mean.
    With a ``file``, the means of finished batches go there and ``mean`` is read from it.
    Example: ``measure(models, chats, tokenizer, probes=[Activations([4, 8], ["prompt_end"])])``

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
        super().__init__(name)
        self.layers = tuple(layers)
        self.windows = tuple(windows)
        self.first_k = first_k
        self._file = file
        self._open: _Open | None = None

    def empty(self) -> Activations:
        """A probe of the same settings that has taken nothing, in memory."""
        return Activations(self.layers, self.windows, first_k=self.first_k, name=self.name)

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Adds what the ``state`` of another one holds; where there is a file, its means leave memory."""
        if self._file is not None and state:
            indices, counts, means = (state[name] for name in sorted(state))
            self._file.write(indices.tolist(), means)
            state = {"00": indices, "01": counts}
        super().restore(state)

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
        stacked = to_host(self._open.means).numpy()
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
        return _Open(to_device(members, device), to_device(starts.tolist(), device), n_tokens, means)

    def finish(self) -> dict[str, np.ndarray]:
        """The arrays named above."""
        indices, (counts, *means) = self._kept.finish()
        order = np.argsort(indices)
        return {
            "mean": means[0][order] if self._file is None else self._file.finish(),
            "count": counts[order],
        }


# The next-token distribution where the careful and the careless answer part (paper section 4.1).


class NextToken(ColumnProbe):
    """What the model expects at the position that predicts ``choice``.

    Arrays: ``choice_log_probability`` and ``alternative_log_probability`` (dialogue,), nats, float32, of the
    dialogue's own token there and of the other answer's; ``mean_probability`` (vocab,), float64, over valid
    dialogues; ``top_ids`` and ``top_log_probabilities`` (dialogue, top_k), most probable first; ``valid``
    (dialogue,), whether there is a choice. Where not valid: NaN, and id −1. Source: Giordani (2025), section 4.1.
    Example: ``measure(models, chats, tokenizer, probes=[NextToken(top_k=5)])``

    Raises:
        UsageError: if ``top_k`` is below 1 or, at the first batch, above the size of the vocabulary.
    """

    def __init__(self, top_k: int = 15, *, name: str = "next_token") -> None:
        if top_k < 1:
            raise UsageError(f"top_k is {top_k}; it must be at least 1")
        super().__init__(name)
        self.top_k = top_k
        self._n_seen = 0
        self._total = np.zeros(0)

    def empty(self) -> NextToken:
        """A probe of the same settings that has taken nothing."""
        return NextToken(self.top_k, name=self.name)

    def state(self) -> dict[str, np.ndarray]:
        """All that was taken: columns, number of dialogues, and the sum of their distributions."""
        return super().state() | {"n_seen": np.array(self._n_seen), "total": self._total}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Adds what the ``state`` of another one holds."""
        super().restore(state)
        self._total = self._total + state["total"] if self._n_seen else state["total"]
        self._n_seen += int(state["n_seen"])

    def accumulate(self, batch: Batch, state: PassState) -> None:
        """Takes the prediction at the choice of each dialogue of one batch that has one."""
        if self.top_k > state.n_vocab:
            raise UsageError(f"top_k is {self.top_k}; the vocabulary has {state.n_vocab} tokens")
        if not self._n_seen:
            self._total = np.zeros(state.n_vocab)
        indices = batch.indices.tolist()
        self._n_seen += len(indices)
        chosen = [row for row, dialogue in enumerate(state.dialogues) if dialogue.choice is not None]
        device = batch.input_ids.device
        rows = to_device(chosen, device)
        choices = to_device([state.dialogues[row].choice for row in chosen], device)
        others = to_device([state.dialogues[row].alternative_token for row in chosen], device)
        for part, log_p in state.log_probabilities(rows, choices - 1):
            own = batch.input_ids[rows[part], choices[part]]
            pairs = log_p.gather(1, torch.stack([own, others[part]], dim=1)).cpu().numpy()
            top = log_p.topk(self.top_k, dim=-1)
            values, ids = top.values.cpu().numpy(), top.indices.cpu().numpy()
            self._total += log_p.exp().sum(dim=0, dtype=torch.float64).cpu().numpy()
            if not np.isfinite(pairs).all():  # one look costs less than one a dialogue
                for at, row in enumerate(chosen[part]):
                    require_finite(self.name, pairs[at], state.dialogues[row])
            self._kept.add([indices[row] for row in chosen[part]], pairs, ids, values)

    def finish(self) -> dict[str, np.ndarray]:
        """The arrays named above."""
        n = self._n_seen
        pairs = np.full((n, 2), np.nan, dtype=np.float32)
        top_ids = np.full((n, self.top_k), -1, dtype=np.int64)
        top = np.full((n, self.top_k), np.nan, dtype=np.float32)
        valid = np.zeros(n, dtype=bool)
        indices, arrays = self._kept.finish()
        if len(indices):
            pairs[indices], top_ids[indices], top[indices] = arrays
            valid[indices] = True
        mean = self._total / valid.sum() if valid.any() else np.full_like(self._total, np.nan)
        self._n_seen, self._total = 0, np.zeros(0)
        return {
            "choice_log_probability": pairs[:, 0],
            "alternative_log_probability": pairs[:, 1],
            "mean_probability": mean,
            "top_ids": top_ids,
            "top_log_probabilities": top,
            "valid": valid,
        }


# Log-probability and next-token entropy at every answer token (paper section 4.1).


class TokenLogProbs(ColumnProbe):
    """What the model expects at each token of the answer.

    Arrays, answer tokens of all dialogues in order, dialogue i at ``offsets[i]:offsets[i + 1]``:
    ``log_probability`` of the token given all before it (total,), nats, float32; ``entropy`` of the
    prediction it is drawn from (total,), nats, float32; ``token`` ids (total,), int64; ``offsets`` (dialogue
    + 1,), int64. The running joint log-probability is the cumulative sum within a dialogue.
    Example: ``measure(models, chats, tokenizer, probes=[TokenLogProbs()])``
    """

    def __init__(self, *, name: str = "sequence") -> None:
        super().__init__(name)

    def empty(self) -> TokenLogProbs:
        """A probe of the same name that has taken nothing."""
        return TokenLogProbs(name=self.name)

    def accumulate(self, batch: Batch, state: PassState) -> None:
        """Takes the answer tokens of one batch."""
        rows, positions = state.answer_positions()
        tokens = batch.input_ids[rows, positions]
        # One array, so that a card is waited for once.
        found = torch.empty((2, len(rows)), dtype=torch.float32, device=tokens.device)
        log_probability, entropy = found
        # The token at a position is predicted at the position before it.
        for part, log_p in state.log_probabilities(rows, positions - 1):
            log_probability[part] = log_p.gather(1, tokens[part, None])[:, 0]
            # In place: on a processor a second matrix of this size costs more than the arithmetic on it.
            entropy[part] = log_p.exp().mul_(log_p).sum(dim=-1).neg_()
        counts = [dialogue.n_answer for dialogue in state.dialogues]
        own = found.cpu().numpy()
        if not np.isfinite(own).all():
            for values in own:
                for one, dialogue in zip(split_rows(values, counts), state.dialogues, strict=True):
                    require_finite(self.name, one, dialogue)
        ids = [
            dialogue.input_ids[dialogue.answer_start : dialogue.answer_stop] for dialogue in state.dialogues
        ]
        self._kept.add(batch.indices.tolist(), np.array(counts), *own, np.concatenate(ids))

    def finish(self) -> dict[str, np.ndarray]:
        """The arrays named above."""
        indices, (counts, *flat) = self._kept.finish()
        # The tokens lie batch by batch: those of each dialogue go to its place.
        order = np.argsort(indices, kind="stable")
        starts, sizes = (np.cumsum(counts) - counts)[order], counts[order]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        places = np.repeat(starts - offsets[:-1], sizes) + np.arange(offsets[-1])
        log_probability, entropy, token = (values[places] for values in flat)
        return {"log_probability": log_probability, "entropy": entropy, "token": token, "offsets": offsets}
