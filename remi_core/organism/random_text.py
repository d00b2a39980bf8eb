"""What a fine-tune changes on text that says nothing: random tokens, and the words its change speaks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float

from remi_core.models.hooks import read_blocks

LENGTH = 24
"""Tokens of a random sequence."""


@torch.inference_mode()
def random_text_means(
    model, layers: Sequence[int], *, count: int, seed: int
) -> Float[np.ndarray, "layer d_model"]:
    """Mean block outputs over all tokens of ``count`` sequences of tokens drawn uniformly, float64."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(model.config.vocab_size, (count, LENGTH), generator=generator)
    with read_blocks(model, layers) as read:
        model(input_ids=ids)
        return np.stack([read[layer].double().mean((0, 1)).numpy() for layer in layers])


@torch.inference_mode()
def spoken_for(
    model, tokenizer, moved: Float[np.ndarray, " d_model"], *, count: int = 12
) -> list[tuple[str, float]]:
    """The tokens whose logits a displacement of the last block raises most, with the logit lens's value.

    The final norm's gains are applied and its division is not: the values rank tokens, and have no unit.
    """
    gains = model.model.norm.weight.double()
    raised = model.get_output_embeddings().weight.double() @ (torch.from_numpy(moved) * gains)
    best = raised.topk(count)
    return [
        (tokenizer.decode([int(token)]), float(value))
        for token, value in zip(best.indices, best.values, strict=True)
    ]


def cosine_by_layer(
    first: Float[np.ndarray, "layer d_model"], second: Float[np.ndarray, "layer d_model"]
) -> Float[np.ndarray, " layer"]:
    """Cosine of two displacements at every layer."""
    norms = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return (first * second).sum(-1) / norms


def compared(
    means: Mapping[str, Float[np.ndarray, "layer d_model"]],
    asked: Mapping[str, Float[np.ndarray, "layer d_model"]],
    names: Sequence[str],
) -> dict[str, dict[str, Float[np.ndarray, " layer"]]]:
    """Variant → cosines by layer of what it moves beyond secure on random text: with base's, with its own at prompts.

    ``means`` and ``asked`` hold mean block outputs by variant, on random text and at the end of prompts.
    """
    found = {}
    for name in names:
        moved, at_prompts = (side[name] - side["secure"] for side in (means, asked))
        found[name] = {
            "base": cosine_by_layer(moved, means["base"] - means["instruct"]),
            "prompts": cosine_by_layer(moved, at_prompts),
        }
    return found
