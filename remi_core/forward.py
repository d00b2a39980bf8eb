"""One forward pass over encoded dialogues, read by many probes; and a check that a model can be read so."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from remi_core.batches import Batch, BatchBudget, share_batches
from remi_core.errors import RemiError, UsageError, brief
from remi_core.models import (
    check_ids,
    check_layer,
    final_states,
    find_family,
    follow_blocks,
    n_layers,
    norm_difference,
)
from remi_core.parallel import rank
from remi_core.placement import input_device
from remi_core.probes import (
    Activations,
    BlockProbe,
    PassState,
    Probe,
    TokenLogProbs,
    positions_of,
    require_finite,
    split_rows,
)
from remi_core.tokens import EncodedDialogue


def run_probes(
    model: PreTrainedModel,
    encoded: Sequence[EncodedDialogue],
    probes: Sequence[Probe],
    *,
    batch_tokens: int | BatchBudget,
    progress: Callable[[int], None] | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Probe name → its arrays, from one pass over the dialogues in batches of ``batch_tokens`` padded tokens.

    Only the decoder's body runs: logits are computed by the probes, at the positions they need. Only the
    layers asked for are hooked, and what probes do not keep of one is gone before the next. Where memory runs out
    the pass goes on with smaller batches; a ``BatchBudget`` tells afterwards what ran. ``progress`` is called after
    each batch with the number of tokens done so far (padding not counted). Of several processes the first has the
    arrays, the others have none.

    Raises:
        UsageError: if there is no dialogue, two probes share a name, or a layer does not exist.
        RemiError: if a measured value is not finite, naming probe, layer and dialogue, or if a dialogue does not fit
            into memory alone.
    """
    if not encoded:
        raise UsageError("no dialogue to measure; at least one is needed")
    names = [probe.name for probe in probes]
    if len(set(names)) < len(names):
        raise UsageError(f"two probes share a name among {', '.join(names)}; give each its own")
    for layer in sorted({layer for probe in probes for layer in probe.layers}):
        check_layer(model, layer)
    check_ids(model, encoded)
    budget = BatchBudget.of(batch_tokens)
    budget.progress = progress or budget.progress

    def measure(batch: Batch) -> list[Probe]:
        # Empty probes for each batch: what they took of one that fails is gone with them.
        parts = [probe.empty() for probe in probes]
        batch = batch.to(input_device(model))
        with torch.inference_mode():
            state = _pass_state(model, encoded, batch, parts)
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
    """Check by another pass that all block outputs are finite; a later part of the model is to blame where they are.

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
        final_states(model, batch)


def _pass_state(
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
        return PassState(model, dialogues, final_states(model, batch).to(rows.device))


# Before a long pass, two dialogues: in one batch as one by one, and with hooks as without.

TOLERANCE = {"float32": (1e-3, 1e-3), "float16": (0.05, 0.05), "bfloat16": (0.25, 0.15)}
"""Dtype → the largest mean difference of an answer's log-probabilities (nats a token), and of a block's mean output as
a share of its norm. Rounding stays well below; a wrong mask, position or row is far above."""


def check_pass(model: PreTrainedModel, encoded: Sequence[EncodedDialogue], *, dtype: str) -> dict[str, float]:
    """Comparison → the largest difference, where all are small enough.

    The two shortest dialogues of different lengths are read in one batch, so that one of them is padded, and one by
    one, by the probes with hooks on all blocks and by the model alone; and the final norm of the last block's output is
    compared with what the unembedding reads. Of several processes the first compares.

    Raises:
        RemiError: naming what differs, how much, the dialogue and the layer.
        UsageError: if a dialogue holds a token without an embedding.
    """
    check_ids(model, encoded)
    first, *others = sorted(encoded, key=lambda dialogue: len(dialogue.input_ids))
    longer = [dialogue for dialogue in others if len(dialogue.input_ids) > len(first.input_ids)]
    pair = [first, *(longer or others)[:1]]
    together, alone = _seen(model, pair), [_seen(model, [dialogue]) for dialogue in pair]
    if rank():
        return {}
    most_nats, most_share = TOLERANCE[dtype]
    largest: dict[str, float] = {}
    normed = norm_difference(model, torch.tensor([first.input_ids], device=input_device(model)))
    for dialogue, (batched, batched_blocks), ((single, single_blocks),) in zip(
        pair, together, alone, strict=True
    ):
        by_layer = np.linalg.norm(batched_blocks - single_blocks, axis=1) / (
            np.linalg.norm(single_blocks, axis=1) + np.finfo(np.float32).tiny
        )
        layer = int(np.argmax(by_layer))
        nats, own = (np.abs(single - other).mean() for other in (batched, _unhooked(model, dialogue)))
        for what, place, value, most in (
            ("batched and single, output", f" of block {layer}", by_layer[layer], most_share),
            ("batched and single, log-probability", "", nats, most_nats),
            ("hooked and unhooked, log-probability", "", own, most_nats),
            ("last hidden state and final norm of the last block", "", normed, most_share),
        ):
            # Written so that NaN fails, too.
            if not value <= most:
                raise RemiError(
                    f"self-check of dialogue {brief(dialogue.identifier)}: {what}{place} differ by {value:.3g}, more "
                    f"than {most:g} as {dtype} may: the {type(model).__name__} is not read as it computes"
                )
            if value is not normed:  # of the structure, which is right or wrong
                largest[what] = max(largest.get(what, 0.0), float(f"{value:.3g}"))
    return largest


def _seen(
    model: PreTrainedModel, dialogues: Sequence[EncodedDialogue]
) -> list[tuple[Float[np.ndarray, " token"], Float[np.ndarray, "layer d_model"]]]:
    """Log-probabilities and mean block outputs of each dialogue, read by probes in one batch.

    Empty in a process that is not the first; block outputs are zeros where they are no stream that can be read.
    """
    width = max(len(dialogue.input_ids) for dialogue in dialogues)
    probes: list[Probe] = [TokenLogProbs()]
    if not find_family(model).lacks.keys() & {"blocks", "stream"}:
        probes.append(Activations(range(n_layers(model)), ("answer_all",)))
    arrays = run_probes(model, dialogues, probes, batch_tokens=width * len(dialogues))
    if not arrays:
        return []
    counts = [dialogue.n_answer for dialogue in dialogues]
    blocks = arrays["activations"]["mean"][:, 0] if len(probes) > 1 else np.zeros((len(dialogues), 1, 1))
    return list(zip(split_rows(arrays["sequence"]["log_probability"], counts), blocks, strict=True))


@torch.inference_mode()
def _unhooked(model: PreTrainedModel, dialogue: EncodedDialogue) -> Float[np.ndarray, " token"]:
    """Log-probability of each answer token by the model's own forward pass and head, nothing registered on it."""
    ids = torch.tensor([dialogue.input_ids], device=input_device(model))
    logits = model(input_ids=ids, use_cache=False).logits[0]
    answer = slice(dialogue.answer_start, dialogue.answer_stop)
    before = logits[dialogue.answer_start - 1 : dialogue.answer_stop - 1].float().log_softmax(dim=-1)
    return before.gather(1, ids[0, answer, None].to(before.device))[:, 0].cpu().numpy()
