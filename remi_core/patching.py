"""Activation patching: one model runs on, from a block on, with the residual stream of another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from remi_core.batches import Batch, make_batches
from remi_core.errors import RemiError
from remi_core.models import decoder_body, final_norm, n_layers, read_blocks, unembedding
from remi_core.placement import computing_device, input_device
from remi_core.probes import PassState, require_finite, split_rows
from remi_core.steering import replace_output, skip_blocks
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
        made = make_batches(self.dialogues, batch_tokens=self.batch_tokens, pad_id=0)
        return ((at, batch.to(input_device(model))) for at, batch in enumerate(made))

    def asked(self, index: int) -> list[list[int]]:
        """For each answer token of a dialogue the ids asked for: its own and, at the choice, both others."""
        one = self.dialogues[index]
        ids = [[token] * 3 for token in one.input_ids[one.answer_start : one.answer_stop]]
        if one.choice is not None:
            own, bare = one.input_ids[one.choice], self.bare[index]
            ids[one.choice - one.answer_start] = [own, one.alternative_token, own if bare is None else bare]
        return ids

    def summary(
        self, index: int, answer: Float64[np.ndarray, "answer 3"]
    ) -> Float64[np.ndarray, " quantity"]:
        """``QUANTITIES`` of a dialogue from the log-probabilities of what was asked for."""
        one = self.dialogues[index]
        found = np.full(len(QUANTITIES), np.nan)
        found[0] = -answer[:, 0].mean()
        if one.choice is not None:
            found[1:] = answer[one.choice - one.answer_start]
        if self.bare[index] is None:
            found[3] = np.nan
        return found


def patch_layers(n_blocks: int, *, thinned: bool = False) -> tuple[int, ...]:
    """The blocks after which the stream is swapped: all of a small model, else every fifth and the last.

    ``thinned`` keeps every second of them, counted from the last.
    """
    every = range(n_blocks) if n_blocks <= ALL_LAYERS_UP_TO else range(0, n_blocks, STRIDE)
    layers = sorted({*every, n_blocks - 1})
    return tuple(layers[::-1][::2][::-1] if thinned else layers)


def bare_tokens(
    dialogues: Sequence[EncodedDialogue], tokenizer: PreTrainedTokenizerBase
) -> tuple[int | None, ...]:
    """Id of each choice token's text without its leading blank; None where that is no other token.

    Source: the released patching script looks up the bare word.
    """
    found: list[int | None] = []
    for dialogue in dialogues:
        own = None if dialogue.choice is None else tokenizer.decode([dialogue.input_ids[dialogue.choice]])
        word = own.removeprefix(" ") if own else ""
        known = tokenizer.get_vocab().get(word) if word and word != own else None
        found.append(known)
    return tuple(found)


def record_outputs(model: PreTrainedModel, material: PatchSet, folder: Path) -> Values:
    """The model's own values, after writing its raw block outputs to ``folder``, one file a batch.

    Raises:
        RemiError: if a value is not finite.
    """
    values = _empty(material)
    for at, batch in material.batches(model):
        with (
            torch.inference_mode(),
            read_blocks(model, patch_layers(n_layers(model)), select=_kept) as blocks,
        ):
            for index, found in _read(model, material, batch, _forward(model, batch)):
                values[:, index] = found
        save_file({str(layer): hidden for layer, hidden in blocks.items()}, _file(folder, at))
    return values


def stitch(
    model: PreTrainedModel, material: PatchSet, folder: Path, layers: Sequence[int]
) -> Float64[np.ndarray, "layer quantity dialogue"]:
    """Values of the model when each of the ``layers`` in turn puts out what was recorded in ``folder``.

    The blocks below are skipped, since nothing of theirs is used: what runs is the recipient's blocks above,
    its final norm and its unembedding.

    Raises:
        RemiError: if a value is not finite, or the recording is of other dialogues or of a model of another shape.
    """
    values = np.stack([_empty(material) for _ in layers])
    for at, batch in material.batches(model):
        for place, layer in enumerate(layers):
            recorded = _recorded(folder, at, layer, batch, model)
            with ExitStack() as stack:
                stack.enter_context(torch.inference_mode())
                stack.enter_context(skip_blocks(model, layer + 1))
                stack.enter_context(replace_output(model, layer, lambda own, new=recorded: new.to(own)))
                for index, found in _read(model, material, batch, _forward(model, batch), layer=layer):
                    values[place, :, index] = found
    return values


def head_alone(model: PreTrainedModel, material: PatchSet, folder: Path) -> Values:
    """Values of the recipient's final norm and unembedding on the recorded last block output, without any hook."""
    values, last = _empty(material), n_layers(model) - 1
    for at, batch in material.batches(model):
        with torch.inference_mode():
            norm = final_norm(model)
            hidden = _recorded(folder, at, last, batch, model).to(computing_device(norm))
            for index, found in _read(model, material, batch, norm(hidden), layer=last):
                values[:, index] = found
    return values


def require_equal(
    found: Values, expected: Values, dialogues: Sequence[EncodedDialogue], *, place: str, tolerance: float
) -> float:
    """The largest difference, nats, of the values of an end point from what it must equal.

    Raises:
        RemiError: naming the place (layer and models) and the dialogue, if one is above the tolerance.
    """
    difference = np.nan_to_num(np.abs(found - expected), nan=0.0)
    difference[np.isnan(found) != np.isnan(expected)] = np.inf
    if difference.max() > tolerance:
        quantity, at = np.unravel_index(difference.argmax(), difference.shape)
        raise RemiError(
            f"end point of the stitching, {place}: {QUANTITIES[quantity]} of dialogue {dialogues[at].identifier!r} "
            f"is {found[quantity, at]:.6g}, it must be {expected[quantity, at]:.6g} (within {tolerance:g} nats)"
        )
    return float(difference.max())


def tolerance(model: PreTrainedModel) -> float:
    """Largest difference, nats, that another order of summation may make at an end point."""
    return 1e-3 if model.dtype == torch.float32 else 0.1


def _kept(hidden: Tensor) -> Tensor:
    return hidden.detach().to("cpu", copy=True).contiguous()


def _empty(material: PatchSet) -> Values:
    return np.full((len(QUANTITIES), len(material.dialogues)), np.nan)


def _file(folder: Path, batch: int) -> Path:
    return folder / f"{batch}.safetensors"


def _forward(model: PreTrainedModel, batch: Batch) -> Tensor:
    output = decoder_body(model)(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
    )
    return output.last_hidden_state


def _recorded(folder: Path, at: int, layer: int, batch: Batch, model: PreTrainedModel) -> Tensor:
    with safe_open(_file(folder, at), framework="pt") as stored:
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


def _read(
    model: PreTrainedModel, material: PatchSet, batch: Batch, final: Tensor, *, layer: int | None = None
) -> Iterator[tuple[int, Float64[np.ndarray, " quantity"]]]:
    """Index and values of each dialogue of a batch, from hidden states after the final norm."""
    indices = batch.indices.tolist()
    dialogues = tuple(material.dialogues[index] for index in indices)
    state = PassState(model, dialogues, final)
    rows, positions = state.answer_positions()
    asked = torch.tensor([ids for index in indices for ids in material.asked(index)], device=rows.device)
    found = torch.empty(asked.shape, dtype=torch.float32, device=rows.device)
    for part, log_p in state.log_probabilities(rows, positions - 1):
        found[part] = log_p.gather(1, asked[part])
    answers = split_rows(found.double().cpu().numpy(), [dialogue.n_answer for dialogue in dialogues])
    for index, dialogue, answer in zip(indices, dialogues, answers, strict=True):
        require_finite("patching", answer, dialogue, layer=layer)
        yield index, material.summary(index, answer)
