"""Before a long pass, two dialogues: in one batch as one by one, and with hooks as without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from transformers import PreTrainedModel

from remi_core.dialogues.chat import EncodedDialogue
from remi_core.errors import RemiError, brief
from remi_core.measurements import split_rows
from remi_core.measurements.activations import ActivationProbe
from remi_core.measurements.forward import run_probes
from remi_core.measurements.sequence import SequenceProbe
from remi_core.models.opening import n_layers
from remi_core.models.placement import input_device
from remi_core.ranks import rank

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
