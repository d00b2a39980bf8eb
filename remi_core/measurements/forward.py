"""One forward pass over the batches, shared by all probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from remi_core.batches import Batch
from remi_core.dialogues.chat import EncodedDialogue
from remi_core.errors import RemiError, UsageError
from remi_core.measurements import BlockProbe, PassState, Probe, positions_of, require_finite
from remi_core.models.hooks import follow_blocks
from remi_core.models.opening import check_layer, decoder_body, n_layers
from remi_core.models.placement import input_device
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
    layers asked for are hooked, and what probes do not keep of one is gone before the next. Where memory runs out
    the pass goes on with smaller batches; a ``Budget`` tells afterwards what ran. ``progress`` is called after each
    batch with the number of tokens done so far (padding not counted). Of several processes the first has the arrays,
    the others have none.

    Raises:
        UsageError: if there is no dialogue, two probes share a name, or a layer does not exist.
        RemiError: if a measured value is not finite, naming probe, layer and dialogue, or if a dialogue does not fit
            into memory alone.
    """
    _check(model, encoded, probes)
    budget = Budget.of(batch_tokens)
    budget.progress = progress or budget.progress

    def measure(batch: Batch) -> list[Probe]:
        # Empty probes for each batch: what they took of one that fails is gone with them.
        parts = [probe.empty() for probe in probes]
        batch = batch.to(input_device(model))
        with torch.inference_mode():
            state = _forward(model, encoded, batch, parts)
            try:
                for part in parts:
                    part.accumulate(batch, state)
            except RemiError:
                _name_layer(model, batch, state)
                raise
        return parts

    def keep(_indices: Sequence[int], parts: list[Probe]) -> None:
        for probe, part in zip(probes, parts, strict=True):
            probe.join(part)

    share_batches(encoded, budget, measure=measure, keep=keep)
    return {} if rank() else {probe.name: probe.finish() for probe in probes}


def _name_layer(model: PreTrainedModel, batch: Batch, state: PassState) -> None:
    """Nothing, if all block outputs are finite, as another pass shows; a later part of the model is to blame then.

    Raises:
        RemiError: naming the first layer whose output is not, and the first dialogue there.
    """
    used = batch.attention_mask.bool()

    def look(layer: int, hidden: Tensor) -> None:
        bad = (~hidden.isfinite()).any(dim=-1) & used.to(hidden.device)
        if bad.any():
            row, position = bad.nonzero()[0].tolist()
            values = hidden[row, position].float().cpu().numpy()
            require_finite("block output", values, state.dialogues[row], layer=layer)

    with follow_blocks(model, range(n_layers(model)), look):
        decoder_body(model)(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)


def _check(model: PreTrainedModel, encoded: Sequence[EncodedDialogue], probes: Sequence[Probe]) -> None:
    if not encoded:
        raise UsageError("no dialogue to measure; at least one is needed")
    names = [probe.name for probe in probes]
    if len(set(names)) < len(names):
        raise UsageError(f"two probes share a name among {', '.join(names)}; give each its own")
    for layer in sorted({layer for probe in probes for layer in probe.layers}):
        check_layer(model, layer)


def _forward(
    model: PreTrainedModel, encoded: Sequence[EncodedDialogue], batch: Batch, probes: Sequence[Probe]
) -> PassState:
    """What is left of a pass over one batch, once the probes have read the blocks they ask for."""
    dialogues = tuple(encoded[index] for index in batch.indices.tolist())
    spans = [(dialogue.prompt_end, dialogue.answer_stop) for dialogue in dialogues]
    rows, positions = positions_of(spans, device=batch.input_ids.device)

    # One block may have several readers, and several names: 2 and -1 of a model of three.
    readers: dict[int, list[tuple[int, BlockProbe]]] = {}
    for probe in probes:
        for layer in probe.layers:
            readers.setdefault(check_layer(model, layer), []).append((layer, probe))

    def read(block: int, hidden: Tensor) -> None:
        # Blocks of a spread model may lie on other devices than the batch.
        kept = hidden[rows.to(hidden.device), positions.to(hidden.device)]
        for layer, probe in readers[block]:
            probe.read_block(layer, kept, batch, dialogues)

    with follow_blocks(model, sorted(readers), read):
        body = decoder_body(model)
        output = body(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    hidden = output.last_hidden_state.to(rows.device)
    return PassState(model, dialogues, hidden)
