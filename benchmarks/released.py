"""The protocol of the released scripts as a fair reference, and what each departure from it saves.

A pass for each measurement, one dialogue at a time, full logits, all layers at all tokens to the host. Written anew
and as fast as that protocol allows: one vectorised softmax a dialogue, over the answer alone; no logits in the pass
that reads activations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.workload import Arrays, Workload
from remi_core.batches import Batch, make_batches
from remi_core.models import decoder_body, read_blocks, unembedding
from remi_core.placement import input_device
from remi_core.tokens import window_span


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Which parts of the released protocol are kept."""

    one_by_one: bool = True
    """One dialogue a batch."""
    pass_each: bool = True
    """A forward pass for each of log-probability, entropy, loss and activations."""
    full_logits: bool = True
    """Logits of every token, not of the answer alone."""
    everything_to_host: bool = True
    """Every layer at every token to the host in float32, not what the windows read alone."""


def departures() -> Iterator[tuple[str, Protocol]]:
    """The released protocol, then each cause of a saving added to those before it."""
    protocol = Protocol()
    yield "released protocol", protocol
    for cause, part in (
        ("batches", "one_by_one"),
        ("one pass instead of four", "pass_each"),
        ("no full logits", "full_logits"),
        ("only the tokens that are read", "everything_to_host"),
    ):
        protocol = replace(protocol, **{part: False})
        yield cause, protocol


def released(workload: Workload, protocol: Protocol) -> Arrays:
    """Arrays ``log_probability``, ``entropy``, ``loss`` and ``mean`` as our own measurements give them."""
    tokens = 1 if protocol.one_by_one else workload.preset.batch_tokens
    kept: dict[int, tuple[np.ndarray, ...]] = {}
    with torch.inference_mode():
        for batch in make_batches(workload.dialogues, batch_tokens=tokens, pad_id=0):
            batch = batch.to(input_device(workload.model))
            kept |= _measured(workload, batch, protocol)
    columns = list(zip(*(kept[index] for index in sorted(kept)), strict=True))
    flat = {
        name: np.concatenate(column)
        for name, column in zip(("log_probability", "entropy", "loss"), columns, strict=False)
    }
    return flat | {"mean": np.stack(columns[3])}


def _measured(workload: Workload, batch: Batch, protocol: Protocol) -> dict[int, tuple[np.ndarray, ...]]:
    """For each dialogue of a batch its log-probabilities, entropies, losses and window means."""
    own = [workload.dialogues[index] for index in batch.indices.tolist()]
    blocks, hidden = _blocks(workload, batch, own, protocol)
    logits = None if protocol.pass_each else _logits(workload, batch, hidden, protocol)
    found = {}
    columns = []
    for measure in (_log_probability, _entropy, _loss):
        # Every measurement that has a pass of its own runs the model anew.
        seen = _logits(workload, batch, None, protocol) if logits is None else logits
        columns.append(measure(seen, batch, own))
    for row, (index, one) in enumerate(zip(batch.indices.tolist(), own, strict=True)):
        means = _means(workload, blocks[row], one, 0 if protocol.everything_to_host else one.prompt_end)
        found[index] = (*(column[row] for column in columns), means)
    return found


def _logits(workload: Workload, batch: Batch, hidden: Tensor | None, protocol: Protocol) -> list[Tensor]:
    """Logits that predict each dialogue's answer; with full logits, cut out of those of all tokens."""
    own = [workload.dialogues[index] for index in batch.indices.tolist()]
    if hidden is None:
        body = decoder_body(workload.model)
        output = body(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
        hidden = output.last_hidden_state
    spans = [slice(one.answer_start - 1, one.answer_stop - 1) for one in own]
    head = unembedding(workload.model)
    if protocol.full_logits:
        logits = head(hidden)
        return [logits[row, span].float() for row, span in enumerate(spans)]
    return list(
        head(torch.cat([hidden[row, span] for row, span in enumerate(spans)]))
        .float()
        .split([one.n_answer for one in own])
    )


def _blocks(workload: Workload, batch: Batch, own: list, protocol: Protocol) -> tuple[list[Tensor], Tensor]:
    """Each dialogue's block outputs (layer, token, d_model) on the host, and the batch's final hidden states."""
    with read_blocks(workload.model, workload.layers) as blocks:
        body = decoder_body(workload.model)
        output = body(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    layers = [blocks[layer] for layer in workload.layers]
    if protocol.everything_to_host:
        whole = torch.stack([layer.float().cpu() for layer in layers], dim=1)
        return list(whole), output.last_hidden_state
    cut = [
        torch.stack([layer[row, one.prompt_end : one.answer_stop] for layer in layers]).float().cpu()
        for row, one in enumerate(own)
    ]
    return cut, output.last_hidden_state


def _means(workload: Workload, block: Tensor, one: object, offset: int) -> np.ndarray:
    """Window means (window, layer, d_model); NaN where a window has no token."""
    preset, means = workload.preset, []
    for window in preset.windows:
        start, stop = window_span(one, window, first_k=preset.answer_first_k)
        part = block[:, start - offset : stop - offset] if stop > start else block[:, :0]
        means.append(part.mean(dim=1))
    return torch.stack(means).numpy()


def _targets(batch: Batch, own: list) -> list[Tensor]:
    return [batch.input_ids[row, one.answer_start : one.answer_stop] for row, one in enumerate(own)]


def _log_probability(logits: list[Tensor], batch: Batch, own: list) -> list[np.ndarray]:
    pairs = zip(logits, _targets(batch, own), strict=True)
    return [torch.log_softmax(one, -1).gather(1, ids[:, None])[:, 0].cpu().numpy() for one, ids in pairs]


def _entropy(logits: list[Tensor], _batch: Batch, _own: list) -> list[np.ndarray]:
    log_p = [torch.log_softmax(one, -1) for one in logits]
    return [one.exp().mul_(one).sum(-1).neg_().cpu().numpy() for one in log_p]


def _loss(logits: list[Tensor], batch: Batch, own: list) -> list[np.ndarray]:
    pairs = zip(logits, _targets(batch, own), strict=True)
    return [nn.functional.cross_entropy(one, ids, reduction="none").cpu().numpy() for one, ids in pairs]
