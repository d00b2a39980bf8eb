"""Inner products of per-dialogue gradients of one weight, gradients not stored (paper section 4.2.2).

The gradient of a dialogue's loss with respect to the weight of a linear map y = W a is G = Σ_t δ_t a_tᵀ,
with a_t the input at token t and δ_t the gradient with respect to y_t. The factors are kept; of the matrices only
slices exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from transformers import PreTrainedModel

from remi_core.batches import Batch
from remi_core.dialogues.chat import EncodedDialogue
from remi_core.errors import UsageError
from remi_core.measurements import chunks, positions_of, require_finite
from remi_core.measurements.factor_file import SPILL_FROM, FactorFile, Factors
from remi_core.measurements.gram_blocks import gram_of_factors
from remi_core.measurements.last_block import stop_in_last_block
from remi_core.models.opening import attention_output, decoder_body, logits_at, unembedding
from remi_core.models.placement import input_device
from remi_core.ranks import n_ranks, rank
from remi_core.sharing import Budget, share_batches
from remi_core.transfer import placed


def measure_gradient_gram(
    model: PreTrainedModel,
    encoded: Sequence[EncodedDialogue],
    *,
    weight: int | None = None,
    batch_tokens: int | Budget,
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
    factors, losses = gradient_factors(
        model, encoded, weight=weight, batch_tokens=batch_tokens, whole_sequence=whole_sequence
    )
    if not factors:
        return {}
    return {"gram": gram_of_factors(factors, device=str(input_device(model))), "loss": losses}


def gradient_factors(
    model: PreTrainedModel,
    encoded: Sequence[EncodedDialogue],
    *,
    weight: int | None = None,
    batch_tokens: int | Budget,
    whole_sequence: bool = False,
) -> tuple[Sequence[Factors], Float64[np.ndarray, " dialogue"]]:
    """Each dialogue's factors (a, δ), in memory or on disk, and its loss; for inner products across models.

    Of several processes the first has the factors, the others have none.

    Arguments and errors are those of ``measure_gradient_gram``.
    """
    if not encoded:
        raise UsageError("no dialogue to measure; at least one is needed")
    layer = -1 if weight is None else weight
    projection = attention_output(model, layer)
    device = input_device(model)
    factors = FactorFile(len(encoded), spill_from=SPILL_FROM.get(device.type, SPILL_FROM["cpu"]))
    losses = np.empty(len(encoded))

    def measure(batch: Batch) -> list[tuple[Factors, float]]:
        batch = batch.to(device)
        dialogues = [encoded[index] for index in batch.indices.tolist()]
        starts = [1 if whole_sequence else dialogue.answer_start for dialogue in dialogues]
        stops = [len(one.input_ids) if whole_sequence else one.answer_stop for one in dialogues]
        loss, inputs, gradients = _backward(model, projection, batch, list(zip(starts, stops, strict=True)))
        own = _factors(inputs, gradients)
        _require_finite(loss, own, dialogues, layer)
        return list(zip(own, loss.tolist(), strict=True))

    def keep(indices: Sequence[int], parts: list[tuple[Factors, float]]) -> None:
        for index, (own, loss) in zip(indices, parts, strict=True):
            factors.write(index, own)
            losses[index] = loss

    share_batches(encoded, Budget.of(batch_tokens), measure=measure, keep=keep)
    return ([] if rank() else factors), losses


def _factors(
    inputs: Float[Tensor, "dialogue token d_in"], gradients: Float[Tensor, "dialogue token d_out"]
) -> list[Factors]:
    # After the last attention every token stands alone, so most rows are exactly zero there; padding always
    # is. "not equal to zero" is true for NaN too: such a row must stay, to be found.
    used = (gradients != 0).any(dim=-1)
    counts = used.sum(dim=1).tolist()
    parts = [values[used].float().split(counts) for values in (inputs, gradients)]
    if n_ranks() > 1:
        # Sent to another process, a part of a tensor would take all of it along.
        parts = [[one.cpu().clone() for one in side] for side in parts]
    return list(zip(*parts, strict=True))


def _require_finite(
    loss: Float64[Tensor, " dialogue"],
    factors: Sequence[Factors],
    dialogues: Sequence[EncodedDialogue],
    layer: int,
) -> None:
    """Nothing, if all are finite; one answer a batch is waited for, and only if it is no are names looked for.

    Raises:
        RemiError: naming layer and dialogue otherwise.
    """
    flags = [one.isfinite().all() for pair in factors for one in pair]
    if bool(torch.stack(flags).all()) and bool(loss.isfinite().all()):
        return
    for row, dialogue in enumerate(dialogues):
        for values in (loss[row : row + 1], *factors[row]):
            require_finite("gradients", values.cpu().numpy(), dialogue, layer=layer)


def _backward(
    model: PreTrainedModel, projection: nn.Module, batch: Batch, spans: list[tuple[int, int]]
) -> tuple[
    Float64[Tensor, " dialogue"], Float[Tensor, "dialogue token d_in"], Float[Tensor, "dialogue token d_out"]
]:
    """Mean loss a dialogue, the projection's input, and the gradient of those losses at its output."""
    if projection is attention_output(model, -1):
        stopped = stop_in_last_block(model, batch)
        if stopped is not None:
            with torch.enable_grad():
                losses, gradients = _head_backward(model, stopped.outputs, batch, spans, stopped.final_hidden)
            return losses.cpu(), stopped.inputs, gradients
    with torch.enable_grad(), _leaf_output(projection) as seen:
        body = decoder_body(model)
        output = body(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
        hidden = output.last_hidden_state
        # The dialogues of a batch do not see each other: the gradient of the sum holds each one's own.
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
    counts = placed([stop - start for start, stop in spans], leaf.device)
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


@contextmanager
def _leaf_output(projection: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Cuts the graph at the projection's output, and gives its input and that output."""
    seen: dict[str, Tensor] = {}

    def cut(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen["input"] = inputs[0]
        seen["output"] = output.detach().requires_grad_(True)
        return seen["output"]

    handle = projection.register_forward_hook(cut)
    try:
        yield seen
    finally:
        handle.remove()
