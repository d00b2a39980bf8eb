"""Activation patching: one model runs on, from a block on, with the residual stream of another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from remi_core.batches import Batch, make_batches
from remi_core.errors import RemiError
from remi_core.models import check_ids, final_norm, final_states, n_layers, read_blocks, unembedding
from remi_core.placement import computing_device, input_device
from remi_core.probes import PassState, require_finite, split_rows
from remi_core.steering import skip_blocks, steer
from remi_core.tokens import EncodedDialogue

QUANTITIES = (
    "loss",
    "choice_log_probability",
    "alternative_log_probability",
    "bare_log_probability",
)
"""What is read of every dialogue, nats: mean loss of its answer tokens; log-probability, where the two answers
part, of its own token, of the other answer's, and of the bare word (the token's text without its leading blank,
which cannot stand there). NaN where a dialogue has no such token."""

ALL_LAYERS_UP_TO = 12
STRIDE = 5

Values = Float64[np.ndarray, "quantity dialogue"]


@dataclass(frozen=True, eq=False)
class PatchSet:
    """Dialogues as token ids, the same for donor and recipient, in the same batches."""

    dialogues: tuple[EncodedDialogue, ...]
    bare: tuple[int | None, ...]
    """Id of the bare word at each dialogue's choice."""
    batch_tokens: int

    def batches(self, model: PreTrainedModel) -> Iterator[tuple[int, Batch]]:
        """Numbered batches on the model's device."""
        check_ids(model, self.dialogues)
        made = make_batches(self.dialogues, batch_tokens=self.batch_tokens, pad_id=0)
        return ((number, batch.to(input_device(model))) for number, batch in enumerate(made))

    def undefined(self) -> Values:
        """Values that are all NaN, to be filled batch by batch."""
        return np.full((len(QUANTITIES), len(self.dialogues)), np.nan)

    def read(
        self,
        model: PreTrainedModel,
        batch: Batch,
        final_hidden: Tensor,
        values: Values,
        layer: int | None = None,
    ) -> None:
        """Fill in the values of a batch's dialogues, from its hidden states after the final norm.

        Raises:
            RemiError: if one is not finite, naming the dialogue and the ``layer`` that was replaced.
        """
        indices = batch.indices.tolist()
        dialogues = tuple(self.dialogues[index] for index in indices)
        state = PassState(model, dialogues, final_hidden)
        rows, positions = state.answer_positions()
        # For each answer token its own id and, at the choice, both others.
        wanted = []
        for index, dialogue in zip(indices, dialogues, strict=True):
            own = [[token] * 3 for token in dialogue.input_ids[dialogue.answer_start : dialogue.answer_stop]]
            if dialogue.choice is not None:
                place, bare = own[dialogue.choice - dialogue.answer_start], self.bare[index]
                place[1:] = dialogue.alternative_token, place[0] if bare is None else bare
            wanted += own
        asked = torch.tensor(wanted, device=rows.device)
        log_probability = torch.empty(asked.shape, dtype=torch.float32, device=rows.device)
        for part, log_p in state.log_probabilities(rows, positions - 1):
            log_probability[part] = log_p.gather(1, asked[part])
        counts = [dialogue.n_answer for dialogue in dialogues]
        answers = split_rows(log_probability.double().cpu().numpy(), counts)
        for index, dialogue, answer in zip(indices, dialogues, answers, strict=True):
            require_finite("patching", answer, dialogue, layer=layer)
            values[0, index] = -answer[:, 0].mean()
            if dialogue.choice is not None:
                values[1:, index] = answer[dialogue.choice - dialogue.answer_start]
            if self.bare[index] is None:
                values[3, index] = np.nan


def patch_layers(n_blocks: int, *, thinned: bool = False) -> tuple[int, ...]:
    """The blocks after which the stream is swapped: all of a small model, else every fifth and the last.

    ``thinned`` keeps every second of them, counted from the last.
    """
    every = range(n_blocks) if n_blocks <= ALL_LAYERS_UP_TO else range(0, n_blocks, STRIDE)
    layers = sorted({*every, n_blocks - 1})
    return tuple(layers[::-1][::2][::-1] if thinned else layers)


def record_outputs(model: PreTrainedModel, material: PatchSet, folder: Path) -> Values:
    """The model's own values, after writing its raw block outputs to ``folder``, one file a batch.

    Raises:
        RemiError: if a value is not finite.
    """
    values = material.undefined()
    layers = patch_layers(n_layers(model))
    for number, batch in material.batches(model):
        copied = read_blocks(model, layers, select=lambda hidden: hidden.to("cpu", copy=True).contiguous())
        with torch.inference_mode(), copied as blocks:
            material.read(model, batch, final_states(model, batch), values)
        recorded = {str(layer): hidden for layer, hidden in blocks.items()}
        save_file(recorded, folder / f"{number}.safetensors")
    return values


def patch(
    model: PreTrainedModel, material: PatchSet, folder: Path, layers: Sequence[int]
) -> Float64[np.ndarray, "layer quantity dialogue"]:
    """Values of the model when each of the ``layers`` in turn puts out what was recorded in ``folder``.

    The blocks below are skipped, since nothing of theirs is used: what runs is the recipient's blocks above,
    its final norm and its unembedding.

    Raises:
        RemiError: if a value is not finite, or the recording is of other dialogues or of a model of another shape.
    """
    values = np.stack([material.undefined() for _ in layers])
    for number, batch in material.batches(model):
        for place, layer in enumerate(layers):
            recorded = _recorded(folder, number, layer, batch, model)
            replaced = steer(model, layer, lambda hidden, recorded=recorded: recorded.to(hidden))
            with torch.inference_mode(), skip_blocks(model, layer + 1), replaced:
                material.read(model, batch, final_states(model, batch), values[place], layer=layer)
    return values


def head_alone(model: PreTrainedModel, material: PatchSet, folder: Path) -> Values:
    """Values of the recipient's final norm and unembedding on the recorded last block output, without any hook."""
    values, last, norm = material.undefined(), n_layers(model) - 1, final_norm(model)
    for number, batch in material.batches(model):
        with torch.inference_mode():
            hidden = _recorded(folder, number, last, batch, model).to(computing_device(norm))
            material.read(model, batch, norm(hidden), values, layer=last)
    return values


def require_equal(
    measured: Values, expected: Values, dialogues: Sequence[EncodedDialogue], *, place: str, tolerance: float
) -> float:
    """The largest difference, nats, of the values of an end point from what it must equal.

    Raises:
        RemiError: naming the place (layer and models) and the dialogue, if one is above the tolerance.
    """
    difference = np.nan_to_num(np.abs(measured - expected), nan=0.0)
    difference[np.isnan(measured) != np.isnan(expected)] = np.inf
    if difference.max() > tolerance:
        worst = np.unravel_index(difference.argmax(), difference.shape)
        raise RemiError(
            f"end point of the patching, {place}: {QUANTITIES[worst[0]]} of dialogue "
            f"{dialogues[worst[1]].identifier!r} is {measured[worst]:.6g}, it must be {expected[worst]:.6g} "
            f"(within {tolerance:g} nats)"
        )
    return float(difference.max())


def tolerance(model: PreTrainedModel) -> float:
    """Largest difference, nats, that another order of summation may make at an end point."""
    return 1e-3 if model.dtype == torch.float32 else 0.1


def _recorded(folder: Path, number: int, layer: int, batch: Batch, model: PreTrainedModel) -> Tensor:
    with safe_open(folder / f"{number}.safetensors", framework="pt") as stored:
        if str(layer) not in stored.keys():
            raise RemiError(
                f"the donor has no output of layer {layer} on record; donor and recipient differ in depth"
            )
        hidden = stored.get_tensor(str(layer))
    wanted = (*batch.input_ids.shape, unembedding(model).weight.shape[1])
    if tuple(hidden.shape) != wanted:
        raise RemiError(
            f"the donor's output at layer {layer} has shape {tuple(hidden.shape)}, needed is {wanted}"
        )
    return hidden
