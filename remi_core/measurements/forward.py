"""One forward pass over the batches, shared by all probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from remi_core.batches import Batch
from remi_core.chat import EncodedDialogue
from remi_core.errors import RemiError, UsageError
from remi_core.hooks import read_blocks
from remi_core.measurements import PassState, Probe, positions_of, require_finite
from remi_core.models import check_layer, decoder_body
from remi_core.placement import input_device
from remi_core.ranks import rank
from remi_core.sharing import Budget, share_batches


def run_probes(
    model: PreTrainedModel,
    encoded: Sequence[EncodedDialogue],
    probes: Sequence[Probe],
    *,
    batch_tokens: int | Budget,
    progress: Callable[[int], None] | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Probe name → its arrays, from one pass over the dialogues in batches of ``batch_tokens`` padded tokens.

    Only the decoder's body runs: logits are computed by the probes, at the positions they need. Only the
    layers asked for are hooked, and kept at the positions the windows need. Where memory runs out the pass goes on
    with smaller batches; a ``Budget`` tells afterwards what ran. ``progress`` is called after each batch with the
    number of tokens done so far (padding not counted). Of several processes the first has the arrays, the others
    have none.

    Raises:
        UsageError: if there is no dialogue, two probes share a name, or a layer does not exist.
        RemiError: if a measured value is not finite, naming probe, layer and dialogue, or if a dialogue does not fit
            into memory alone.
    """
    layers = _checked_layers(model, encoded, probes)
    budget = Budget.of(batch_tokens)
    budget.progress = progress or budget.progress

    def measure(batch: Batch) -> list[Probe]:
        # Empty probes for each batch: what they took of one that fails is gone with them.
        parts = [probe.empty() for probe in probes]
        batch = batch.to(input_device(model))
        with torch.inference_mode():
            state = _forward(model, encoded, batch, layers)
            try:
                for part in parts:
                    part.accumulate(batch, state)
            except RemiError:
                _name_layer(state)
                raise
        return parts

    def keep(_indices: Sequence[int], parts: list[Probe]) -> None:
        for probe, part in zip(probes, parts, strict=True):
            probe.join(part)

    share_batches(encoded, budget, measure=measure, keep=keep)
    return {} if rank() else {probe.name: probe.finish() for probe in probes}


def _name_layer(state: PassState) -> None:
    """Nothing, if all block outputs are finite; a later part of the model is to blame then.

    Raises:
        RemiError: naming the first layer whose output is not, and the first dialogue there.
    """
    for layer, output in sorted(state.blocks.items()):
        bad = (~output.isfinite()).any(dim=-1).nonzero()
        if len(bad):
            at = int(bad[0])
            dialogue = state.dialogues[int(state.kept[0][at])]
            require_finite("block output", output[at].float().cpu().numpy(), dialogue, layer=layer)


def _checked_layers(
    model: PreTrainedModel, encoded: Sequence[EncodedDialogue], probes: Sequence[Probe]
) -> list[int]:
    """All layers that the probes read, each once."""
    if not encoded:
        raise UsageError("no dialogue to measure; at least one is needed")
    names = [probe.name for probe in probes]
    if len(set(names)) < len(names):
        raise UsageError(f"two probes share a name among {', '.join(names)}; give each its own")
    layers = sorted({layer for probe in probes for layer in probe.layers})
    for layer in layers:
        check_layer(model, layer)
    return layers


def _forward(
    model: PreTrainedModel, encoded: Sequence[EncodedDialogue], batch: Batch, layers: list[int]
) -> PassState:
    dialogues = tuple(encoded[index] for index in batch.indices.tolist())
    spans = [(dialogue.prompt_end, dialogue.answer_stop) for dialogue in dialogues]
    rows, positions = positions_of(spans, device=batch.input_ids.device)

    def select(hidden: Tensor) -> Tensor:
        # Blocks of a spread model may lie on other devices than the batch.
        return hidden[rows.to(hidden.device), positions.to(hidden.device)]

    with read_blocks(model, layers, select=select) as blocks:
        body = decoder_body(model)
        output = body(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    hidden = output.last_hidden_state.to(rows.device)
    return PassState(model, dialogues, hidden, blocks, (rows, positions))
