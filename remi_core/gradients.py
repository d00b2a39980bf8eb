"""Gradients of the answer loss in one block, as factors, and the Gram matrix of many of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from tempfile import TemporaryFile
from types import MappingProxyType
from typing import IO

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from transformers import PreTrainedModel

from remi_core.batches import Batch, BatchBudget, share_batches
from remi_core.errors import UsageError
from remi_core.models import (
    attention_output,
    check_ids,
    decoder_blocks,
    final_norm,
    final_states,
    find_family,
    forward_replaced,
    hidden_of,
    logits_at,
    n_layers,
    unembedding,
)
from remi_core.parallel import n_ranks, rank
from remi_core.placement import input_device, to_device
from remi_core.probes import chunks, positions_of, require_finite
from remi_core.tokens import EncodedDialogue

# Factors of gradients in a temporary file: for a large model those of a thousand dialogues take gigabytes.

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
        """Keep the factors of a dialogue.

        Raises:
            OSError: if they do not fit on the disk.
        """
        self._shapes[index] = tuple(tuple(part.shape) for part in factors)
        self._held[index] = factors
        self._n_bytes += _BYTES * sum(part.numel() for part in factors)
        if self._stream is None and self._n_bytes <= self._spill_from:
            return
        self._stream = self._stream or TemporaryFile()
        for held, parts in self._held.items():
            self._starts[held] = self._end
            self._stream.seek(self._end)
            for part in parts:
                values = np.ascontiguousarray(part.cpu().numpy(), dtype=np.float32)
                self._end += self._stream.write(values.data)
        self._held.clear()

    @property
    def n_tokens(self) -> int:
        """Tokens of all dialogues that were written."""
        return sum(inputs[0] for inputs, _ in filter(None, self._shapes))

    def __len__(self) -> int:
        """Number of dialogues."""
        return len(self._shapes)

    def __getitem__(self, index: int | slice) -> Factors | Sequence[Factors]:
        """The factors of a dialogue, or of several, in memory.

        Raises:
            KeyError: if they were never written.
        """
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        shapes = self._shapes[index]
        if shapes is None:
            raise KeyError(f"no factors of dialogue {index} of {len(self)} were written")
        if index in self._held:
            return self._held[index]
        self._stream.seek(self._starts[index])
        parts = []
        for rows, width in shapes:
            data = bytearray(self._stream.read(rows * width * _BYTES))
            # torch refuses an empty buffer.
            flat = torch.frombuffer(data, dtype=torch.float32) if data else torch.empty(0)
            parts.append(flat.view(rows, width))
        return parts[0], parts[1]


# Inner products of gradients from their factors: each way costs what its shapes make it cost, the cheaper one runs.

# Elements of one block of float32: 64 MB, and at most this share of all gradients, so that few dialogues of a small
# model are no reason to hold them all. Beside it only the factors and the n × n matrix are held.
BLOCK_ELEMENTS = 1 << 24
# A graphics card has room for more, and each block costs it a copy of all factors from main memory.
CARD_ELEMENTS = 1 << 28
_SLICES = 4
# Rows of the matrix that are made at a time, against those before them alone: it is symmetric.
_ROWS = 128


def gram_of_factors(
    factors: Sequence[Factors], *, device: str = "cpu", block_elements: int | None = None
) -> Float64[np.ndarray, "dialogue dialogue"]:
    """⟨G_i, G_j⟩ of G_i = Σ_t δ_t a_tᵀ, from the factors (a, δ) of each dialogue.

    Products are taken in float32 and summed over blocks in float64. Whichever way takes fewer operations runs:
    by slices of the gradients, or by pairs of tokens, ⟨G_i, G_j⟩ = Σ_ts (a_t·a_s)(δ_t·δ_s).
    """
    by_pairs, by_slices = operations(factors)
    on_card = torch.device(device).type != "cpu"
    block_elements = block_elements or (CARD_ELEMENTS if on_card else BLOCK_ELEMENTS)
    width = sum(part.shape[-1] for part in factors[0])
    if on_card and _n_tokens(factors) * width <= block_elements:
        factors = [(_on(inputs, device), _on(gradients, device)) for inputs, gradients in factors]
    way = gram_by_token_pairs if by_pairs < by_slices else gram_by_slices
    return way(factors, device=device, block_elements=block_elements)


def operations(factors: Sequence[Factors]) -> tuple[int, int]:
    """Floating-point operations of the Gram matrix by pairs of tokens, and by slices of the gradients."""
    n, tokens = len(factors), _n_tokens(factors)
    d_in, d_out = factors[0][0].shape[-1], factors[0][1].shape[-1]
    by_pairs = 2 * tokens * tokens * (d_in + d_out)
    by_slices = 2 * d_in * d_out * (tokens + n * n)
    return by_pairs, by_slices


def _n_tokens(factors: Sequence[Factors]) -> int:
    # A file knows without being read.
    return factors.n_tokens if isinstance(factors, FactorFile) else sum(len(inputs) for inputs, _ in factors)


def gram_by_slices(
    factors: Sequence[Factors], *, device: str = "cpu", block_elements: int = BLOCK_ELEMENTS
) -> Float64[np.ndarray, "dialogue dialogue"]:
    """The Gram matrix, from all dialogues' gradients at a few rows of the weight at a time: each is formed once."""
    n = len(factors)
    d_in, d_out = factors[0][0].shape[-1], factors[0][1].shape[-1]
    step = max(1, min(block_elements // (n * d_in), -(-d_out // _SLICES)))
    gram = torch.zeros((n, n), dtype=torch.float64, device=device)
    part = torch.empty((n, min(step, d_out), d_in), device=device)
    for start in range(0, d_out, step):
        width = min(step, d_out - start)
        for matrix, (inputs, gradients) in zip(part[:, :width], factors, strict=True):
            torch.mm(_on(gradients[:, start : start + width], device).T, _on(inputs, device), out=matrix)
        # A view: a copy of the last, narrower slice would double it.
        flat = part.flatten(1)[:, : width * d_in]
        for first in range(0, n, _ROWS):
            last = min(first + _ROWS, n)
            gram[first:last, :last] += flat[first:last] @ flat[:last].T
    return (gram.tril() + gram.tril(-1).T).cpu().numpy()


def gram_by_token_pairs(
    factors: Sequence[Factors], *, device: str = "cpu", block_elements: int = BLOCK_ELEMENTS
) -> Float64[np.ndarray, "dialogue dialogue"]:
    """The Gram matrix, from the inner products of tokens: no gradient is formed."""
    gram = torch.zeros((len(factors), len(factors)), dtype=torch.float64, device=device)
    groups = list(_groups([len(inputs) for inputs, _ in factors], int(block_elements**0.5)))
    for number, left in enumerate(groups):
        first = _joined(factors, left, device)
        for right in groups[: number + 1]:
            second = first if right == left else _joined(factors, right, device)
            product = (first[0] @ second[0].T) * (first[1] @ second[1].T)
            rows = torch.zeros((len(left), product.shape[1]), dtype=torch.float64, device=device)
            rows.index_add_(0, first[2], product.double())
            block = torch.zeros((len(left), len(right)), dtype=torch.float64, device=device)
            block.index_add_(1, second[2], rows)
            gram[left.start : left.stop, right.start : right.stop] = block
            gram[right.start : right.stop, left.start : left.stop] = block.T
    return gram.cpu().numpy()


def _on(values: Tensor, device: str) -> Tensor:
    return values.to(device, torch.float32)


def _groups(counts: Sequence[int], most: int) -> Iterator[range]:
    """Runs of dialogues with at most so many tokens together; a longer dialogue is one of its own."""
    start, total = 0, 0
    for index, count in enumerate(counts):
        if index > start and total + count > most:
            yield range(start, index)
            start, total = index, 0
        total += count
    yield range(start, len(counts))


def _joined(factors: Sequence[Factors], group: range, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs and gradients of all tokens of a group, and which dialogue of the group each belongs to."""
    pairs = [factors[index] for index in group]
    counts = torch.tensor([len(inputs) for inputs, _ in pairs])
    inputs, gradients = (torch.cat([pair[side] for pair in pairs]) for side in (0, 1))
    owner = torch.repeat_interleave(torch.arange(len(pairs)), counts)
    return _on(inputs, device), _on(gradients, device), owner.to(device)


# A pass that stops inside the last block, after its attention: from there on every token stands alone. What follows
# (sums, norms, the feed-forward part) is done for the tokens that are asked for, a few at a time.


class _Stop(Exception):
    """Ends a forward pass."""


def stop_in_last_block(
    model: PreTrainedModel, batch: Batch
) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor, Tensor], Tensor]] | None:
    """The pass up to the last block's attention, without gradients; None where what follows cannot be done apart.

    Inputs (dialogue, token, d_in) of the attention's output projection, and its outputs (dialogue, token, d_model),
    which the attention adds to the stream, before a norm where there is one; and a function of such outputs at some
    places, their rows and positions, that gives the hidden states there after the final norm.

    It cannot where something reads or changes the block by hooks, which expect whole dialogues, where the attention
    does more to the projection's output than return it, or where something else in the block mixes tokens or no single
    norm follows it. The caller then runs the whole pass.
    """
    family = find_family(model)
    if not family.apart or family.lacks.keys() & {"blocks", "stream", "norm"}:
        return None
    block = decoder_blocks(model)[-1]
    # The attention, which ends with its output projection.
    part = block.get_submodule(family.need(("attention", n_layers(model) - 1)).rpartition(".")[0])
    if any(
        module._forward_hooks or module._forward_pre_hooks for module in (*block.modules(), final_norm(model))
    ):
        return None
    seen: dict[str, tuple] = {}

    def on_block(_module: nn.Module, args: tuple, options: dict) -> None:
        seen["block"] = args, options

    def on_projection(_module: nn.Module, inputs: tuple, output: Tensor) -> None:
        seen["projection"] = inputs[0], output

    def on_attention(_module: nn.Module, _inputs: tuple, output: tuple) -> None:
        seen["attention"] = output
        if isinstance(output, tuple) and output[0].data_ptr() == seen["projection"][1].data_ptr():
            raise _Stop

    with torch.no_grad(), ExitStack() as stack:
        for handle in (
            block.register_forward_pre_hook(on_block, with_kwargs=True),
            attention_output(model, -1).register_forward_hook(on_projection),
            part.register_forward_hook(on_attention),
        ):
            stack.callback(handle.remove)
        try:
            final_states(model, batch)
        except _Stop:
            pass
        else:
            return None
    args, options = seen["block"]
    stream, *args = args or (options.pop("hidden_states"),)
    inputs, outputs = seen["projection"]
    # Of a spread model, the block before may lie on another device.
    stream = stream.to(outputs.device)

    def final_hidden(values: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        returned = (values.unsqueeze(0), *seen["attention"][1:])
        with forward_replaced(part, lambda *_, **__: returned):
            hidden = hidden_of(block(stream[rows, positions].unsqueeze(0), *args, **options))
        return final_norm(model)(hidden)[0]

    return inputs, outputs, final_hidden


# Inner products of per-dialogue gradients of one weight, gradients not stored (paper section 4.2.2).
#
# The gradient of a dialogue's loss with respect to the weight of a linear map y = W a is G = Σ_t δ_t a_tᵀ,
# with a_t the input at token t and δ_t the gradient with respect to y_t. The factors are kept; of the matrices only
# slices exist.


def measure_gradient_gram(
    model: PreTrainedModel,
    encoded: Sequence[EncodedDialogue],
    *,
    weight: int = -1,
    batch_tokens: int | BatchBudget,
    whole_sequence: bool = False,
) -> dict[str, np.ndarray]:
    """Inner products of the dialogues' gradients, and their losses.

    The gradient is that of the dialogue's mean token loss with respect to the attention output weight of the
    layer ``weight`` (default the last; a negative one counts from the end). Arrays: ``gram`` (dialogue,
    dialogue), float64, squared nats per squared unit of weight; ``loss`` (dialogue,), float64, nats per
    token. The loss is over the answer tokens; ``whole_sequence`` takes every token but the first, as the
    released scripts do. The backward pass stops at the output of that projection, so the layers below it cost
    a forward pass only. Where memory runs out the pass goes on with smaller batches; of several processes the first
    has the arrays, the others have none.

    Raises:
        UsageError: if there is no dialogue or the layer does not exist.
        RemiError: if a value is not finite, naming layer and dialogue, or if a dialogue does not fit into memory alone.
    """
    options = {"weight": weight, "batch_tokens": batch_tokens, "whole_sequence": whole_sequence}
    factors, losses = gradient_factors(model, encoded, **options)
    if not factors:
        return {}
    return {"gram": gram_of_factors(factors, device=str(input_device(model))), "loss": losses}


def gradient_factors(
    model: PreTrainedModel,
    encoded: Sequence[EncodedDialogue],
    *,
    weight: int = -1,
    batch_tokens: int | BatchBudget,
    whole_sequence: bool = False,
) -> tuple[Sequence[Factors], Float64[np.ndarray, " dialogue"]]:
    """Each dialogue's factors (a, δ), in memory or on disk, and its loss; for inner products across models.

    Of several processes the first has the factors, the others have none.

    Arguments and errors are those of ``measure_gradient_gram``.
    """
    if not encoded:
        raise UsageError("no dialogue to measure; at least one is needed")
    projection = attention_output(model, weight)
    check_ids(model, encoded)
    device = input_device(model)
    factors = FactorFile(len(encoded), spill_from=SPILL_FROM.get(device.type, SPILL_FROM["cpu"]))
    losses = np.empty(len(encoded))

    def measure(batch: Batch) -> list[tuple[Factors, float]]:
        batch = batch.to(device)
        dialogues = [encoded[index] for index in batch.indices.tolist()]
        spans = [
            (1, len(one.input_ids)) if whole_sequence else (one.answer_start, one.answer_stop)
            for one in dialogues
        ]
        loss, inputs, gradients = _backward(model, projection, batch, spans)
        # After the last attention every token stands alone, so most rows are exactly zero there; padding always
        # is. "not equal to zero" is true for NaN too: such a row must stay, to be found.
        used = (gradients != 0).any(dim=-1)
        counts = used.sum(dim=1).tolist()
        parts = [values[used].float().split(counts) for values in (inputs, gradients)]
        if n_ranks() > 1:
            # Sent to another process, a part of a tensor would take all of it along.
            parts = [[part.cpu().clone() for part in side] for side in parts]
        # One answer a batch is waited for, and only if it is no are names looked for.
        finite = torch.stack([part.isfinite().all() for side in parts for part in side]).all()
        if not (bool(finite) and bool(loss.isfinite().all())):
            for row, dialogue in enumerate(dialogues):
                for values in (loss[row : row + 1], parts[0][row], parts[1][row]):
                    require_finite("gradients", values.cpu().numpy(), dialogue, layer=weight)
        return list(zip(zip(*parts, strict=True), loss.tolist(), strict=True))

    def keep(indices: Sequence[int], parts: list[tuple[Factors, float]]) -> None:
        for index, (pair, loss) in zip(indices, parts, strict=True):
            factors.write(index, pair)
            losses[index] = loss

    share_batches(encoded, BatchBudget.of(batch_tokens), measure=measure, keep=keep)
    return ([] if rank() else factors), losses


def _backward(
    model: PreTrainedModel, projection: nn.Module, batch: Batch, spans: list[tuple[int, int]]
) -> tuple[
    Float64[Tensor, " dialogue"], Float[Tensor, "dialogue token d_in"], Float[Tensor, "dialogue token d_out"]
]:
    """Mean loss a dialogue, the projection's input, and the gradient of those losses at its output."""
    if projection is attention_output(model, -1):
        stopped = stop_in_last_block(model, batch)
        if stopped is not None:
            inputs, outputs, final_hidden = stopped
            with torch.enable_grad():
                losses, gradients = _head_backward(model, outputs, batch, spans, final_hidden)
            return losses.cpu(), inputs, gradients
    seen: dict[str, Tensor] = {}

    def cut(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        # The graph begins at the projection's output.
        seen["input"], seen["output"] = inputs[0], output.detach().requires_grad_(True)
        return seen["output"]

    handle = projection.register_forward_hook(cut)
    try:
        with torch.enable_grad():
            hidden = final_states(model, batch)
    finally:
        handle.remove()
    # The dialogues of a batch do not see each other: the gradient of the sum holds each one's own.
    with torch.enable_grad():
        losses, hidden_gradient = _head_backward(model, hidden.detach(), batch, spans)
    (gradients,) = torch.autograd.grad(hidden, seen["output"], grad_outputs=hidden_gradient)
    return losses.cpu(), seen["input"].detach(), gradients


def _head_backward(
    model: PreTrainedModel,
    leaf: Float[Tensor, "dialogue token d_out"],
    batch: Batch,
    spans: list[tuple[int, int]],
    to_final: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda values, _rows, _positions: values,
) -> tuple[Float64[Tensor, " dialogue"], Float[Tensor, "dialogue token d_out"]]:
    """Mean loss a dialogue and its gradient at ``leaf``, in chunks: no full logits exist.

    ``to_final`` takes values of the leaf, their rows and positions, and gives the final hidden states there.
    """
    rows, positions = positions_of(spans, device=leaf.device)
    tokens = batch.input_ids.to(leaf.device)
    counts = to_device([stop - start for start, stop in spans], leaf.device)
    losses = torch.zeros(len(spans), dtype=torch.float64, device=leaf.device)
    gradient = torch.zeros_like(leaf)
    for part in chunks(len(rows), unembedding(model).weight.shape[0], device=leaf.device):
        # A token is predicted at the position before it.
        row, position = rows[part], positions[part] - 1
        piece = leaf[row, position].requires_grad_(True)
        logits = logits_at(model, to_final(piece, row, position)).to(leaf.device)
        loss = nn.functional.cross_entropy(logits, tokens[row, position + 1], reduction="none") / counts[row]
        (gradient[row, position],) = torch.autograd.grad(loss.sum(), piece)
        losses.index_add_(0, row, loss.detach().double())
    return losses, gradient
