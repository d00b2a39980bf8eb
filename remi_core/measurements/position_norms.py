"""How long the residual stream is at the first position, and how few coordinates carry it elsewhere (section 4.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from remi_core.batches import make_batches
from remi_core.dialogues.chat import EncodedDialogue
from remi_core.errors import UsageError
from remi_core.models.hooks import read_blocks
from remi_core.models.opening import LoadedModel, decoder_body, n_layers
from remi_core.models.placement import input_device


def measure_position_norms(
    loaded: LoadedModel, encoded: Sequence[EncodedDialogue], *, batch_tokens: int
) -> dict[str, np.ndarray]:
    """Lengths of raw block outputs by position, each array (dialogue, layer), float32.

    ``first``: length at position 0, in units of the residual stream; ``others``: median length at the other
    positions of the dialogue; ``largest_share``: the median, over those positions, of the share of the squared
    length that the largest coordinate holds, in [0, 1].

    Raises:
        UsageError: if there is no dialogue.
    """
    if not encoded:
        raise UsageError("no dialogue to measure; at least one is needed")
    model = loaded.model
    layers = range(n_layers(model))
    found = {
        name: np.empty((len(encoded), len(layers)), np.float32)
        for name in ("first", "others", "largest_share")
    }
    for batch in make_batches(encoded, batch_tokens=batch_tokens, pad_id=0):
        batch = batch.to(input_device(model))
        with torch.inference_mode(), read_blocks(model, layers) as blocks:
            decoder_body(model)(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            )
        for row, index in enumerate(batch.indices.tolist()):
            n_tokens = int(batch.attention_mask[row].sum())
            for layer in layers:
                values = _lengths(blocks[layer][row, :n_tokens].float())
                for name, value in zip(found, values, strict=True):
                    found[name][index, layer] = value
    return found


def _lengths(hidden: Tensor) -> tuple[float, float, float]:
    squared = hidden.square()
    length = squared.sum(dim=-1)
    share = squared[1:].amax(dim=-1) / length[1:]
    return float(length[0].sqrt()), float(length[1:].sqrt().median()), float(share.median())
