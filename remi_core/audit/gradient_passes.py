"""The audit's gradients through open models: factors of Gram matrices, and the entries that 16 bits lose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from transformers import PreTrainedModel

from remi_core.dialogues.chat import EncodedDialogue, EncodedSet
from remi_core.measurements import require_finite
from remi_core.measurements.gradients import Factors, gradient_factors, gram_of_factors
from remi_core.models.opening import attention_output
from remi_core.models.placement import input_device
from remi_core.subject import Subject

SMALLEST_NORMAL = float(torch.finfo(torch.float16).smallest_normal)
"""Below this a 16-bit float loses digits; about a thousandth of it is its smallest number above zero."""


def _joined(encoded: Sequence[EncodedSet]) -> list[EncodedDialogue]:
    return [dialogue for part in encoded for dialogue in part.dialogues]


def gram_passes(instruct: Subject, base: Subject, encoded: Sequence[EncodedSet]) -> dict[str, np.ndarray]:
    """Gram matrices by name, and ``lost`` of instruct.

    Only the factors of the gradients are kept between the models: two models are never in memory together.
    """
    dialogues, first = _joined(encoded), list(encoded[0].dialogues)
    with instruct.open() as loaded:
        answer = _factors(instruct, loaded.model, dialogues)
        whole = _factors(instruct, loaded.model, dialogues, whole_sequence=True)
        lost = lost_entries(loaded.model, instruct.preset.gradient_layer, first)
    with base.open() as loaded:
        through_base = _factors(base, loaded.model, first)
    mixed = [*through_base, *answer[len(first) :]]
    grams = {"answer": answer, "whole": whole, "mixed": mixed}
    return {name: gram_of_factors(factors) for name, factors in grams.items()} | {"lost": lost}


def _factors(
    who: Subject,
    model: PreTrainedModel,
    dialogues: Sequence[EncodedDialogue],
    *,
    whole_sequence: bool = False,
) -> Sequence[Factors]:
    preset = who.preset
    return gradient_factors(
        model,
        dialogues,
        weight=preset.gradient_layer,
        batch_tokens=preset.batch_tokens,
        whole_sequence=whole_sequence,
    )[0]


def lost_entries(
    model: PreTrainedModel, layer: int, dialogues: Sequence[EncodedDialogue]
) -> Float[np.ndarray, "dialogue 2"]:
    """Shares of each whole-sequence gradient's entries that are 0, and below the smallest normal 16-bit number.

    The backward pass is torch's own, one dialogue at a time and without loss scaling, as released.
    """
    weight, shares = attention_output(model, layer).weight, []
    weight.requires_grad_(True)
    try:
        for dialogue in dialogues:
            ids = torch.tensor([dialogue.input_ids], device=input_device(model))
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(model(input_ids=ids, labels=ids).loss, weight)
            require_finite("audit_gradients", gradient.float().cpu().numpy(), dialogue, layer=layer)
            size = gradient.float().abs()
            shares.append((float((size == 0).float().mean()), float((size < SMALLEST_NORMAL).float().mean())))
    finally:
        weight.requires_grad_(False)
    return np.array(shares)
