"""One forward pass over encoded dialogues, read by many probes; and a check that a model can be read so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from remi_core.batches import Batch, Budget, share_batches
from remi_core.errors import RemiError, UsageError, brief
from remi_core.models import check_layer, decoder_body, follow_blocks, n_layers
from remi_core.parallel import rank
from remi_core.placement import input_device
from remi_core.probes import (
    ActivationProbe,
    BlockProbe,
    PassState,
    Probe,
    SequenceProbe,
    positions_of,
    require_finite,
    split_rows,
)
from remi_core.tokens import EncodedDialogue

# One forward pass over the batches, shared by all probes.


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


# Before a long pass, two dialogues: in one batch as one by one, and with hooks as without.

TOLERANCE = {"float32": (1e-3, 1e-3), "float16": (0.05, 0.05), "bfloat16": (0.25, 0.15)}
"""Dtype → the largest mean difference of an answer's log-probabilities (nats a token), and of a block's mean output as
a share of its norm. Rounding stays well below; a wrong mask, position or row is far above."""


@dataclass(frozen=True, eq=False)
class _Seen:
    """What a pass gives of one dialogue."""

    log_probability: Float[np.ndarray, " token"]
    blocks: Float[np.ndarray, "layer d_model"]


def check_pass(model: PreTrainedModel, encoded: Sequence[EncodedDialogue], *, dtype: str) -> dict[str, float]:
    """Comparison → the largest difference, where all are small enough.

    The two shortest dialogues of different lengths are read in one batch, so that one of them is padded, and one by
    one, by the probes with hooks on all blocks and by the model alone. Of several processes the first compares.

    Raises:
        RemiError: naming what differs, how much, the dialogue and the layer.
    """
    pair = _chosen(encoded)
    together, alone = _passes(model, pair), [_passes(model, [one]) for one in pair]
    if rank():
        return {}
    largest, share = TOLERANCE[dtype]
    found: dict[str, float] = {}
    for at, dialogue in enumerate(pair):
        batched, single, plain = together[at], alone[at][0], _unhooked(model, dialogue)
        by_layer = np.linalg.norm(batched.blocks - single.blocks, axis=1) / (
            np.linalg.norm(single.blocks, axis=1) + np.finfo(np.float32).tiny
        )
        layer = int(np.argmax(by_layer))
        for what, value, most in (
            (f"batched and single, output of block {layer}", by_layer[layer], share),
            ("batched and single, log-probability", _apart(batched, single.log_probability), largest),
            ("hooked and unhooked, log-probability", _apart(single, plain), largest),
        ):
            # Written so that a value that is no number fails, too.
            if not value <= most:
                raise RemiError(
                    f"self-check of dialogue {brief(dialogue.identifier)}: {what} differ by {value:.3g}, more than "
                    f"{most:g} as {dtype} may: no number of this model can be trusted; set another dtype or attention"
                )
            name = what.partition(" of block")[0]
            found[name] = max(found.get(name, 0.0), float(f"{value:.3g}"))
    return found


def _chosen(encoded: Sequence[EncodedDialogue]) -> list[EncodedDialogue]:
    """The shortest dialogue, and the shortest of those that are longer, or of equal ones the second."""
    first, *others = sorted(encoded, key=lambda one: len(one.input_ids))
    longer = [one for one in others if len(one.input_ids) > len(first.input_ids)]
    return [first, *(longer or others)[:1]]


def _passes(model: PreTrainedModel, dialogues: Sequence[EncodedDialogue]) -> list[_Seen]:
    """What the probes see of dialogues in one batch; nothing in a process that is not the first."""
    width = max(len(one.input_ids) for one in dialogues)
    probes = [SequenceProbe(), ActivationProbe(range(n_layers(model)), ("answer_all",))]
    arrays = run_probes(model, dialogues, probes, batch_tokens=width * len(dialogues))
    if not arrays:
        return []
    pieces = split_rows(arrays["sequence"]["log_probability"], [one.n_answer for one in dialogues])
    blocks = arrays["activations"]["mean"][:, 0]
    return [_Seen(*pair) for pair in zip(pieces, blocks, strict=True)]


@torch.inference_mode()
def _unhooked(model: PreTrainedModel, dialogue: EncodedDialogue) -> Float[np.ndarray, " token"]:
    """Log-probability of each answer token by the model's own forward pass and head, nothing registered on it."""
    ids = torch.tensor([dialogue.input_ids], device=input_device(model))
    logits = model(input_ids=ids, use_cache=False).logits[0]
    answer = slice(dialogue.answer_start, dialogue.answer_stop)
    before = logits[dialogue.answer_start - 1 : dialogue.answer_stop - 1].float().log_softmax(dim=-1)
    return before.gather(1, ids[0, answer, None].to(before.device))[:, 0].cpu().numpy()


def _apart(seen: _Seen, other: Float[np.ndarray, " token"]) -> float:
    return float(np.abs(seen.log_probability - other).mean())
