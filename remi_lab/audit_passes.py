"""The passes of the audit: probes and weights under each condition."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from remi_core.batches import Batch, BatchBudget
from remi_core.dialogues import Dialogue
from remi_core.forward import run_probes
from remi_core.gradients import Factors, gradient_factors, gram_of_factors
from remi_core.keys import library_versions
from remi_core.models import LoadedModel, attention_output, n_layers
from remi_core.placement import describe_placement, input_device
from remi_core.probes import PassState, SequenceProbe, require_finite
from remi_core.tokens import ChatTokenizer, EncodedDialogue, EncodedSet, encode
from remi_lab.audit_conditions import (
    UNTRAINED,
    WINDOWS,
    bare_token,
    marker_ids,
    parts_of,
    role_position,
    tokenizer_for,
    whole,
)
from remi_lab.subject import Subject

# The audit's gradients through open models: factors of Gram matrices, and the entries that 16 bits lose.

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


# What the audit reads of a forward pass besides the token statistics: states in given spans, and the wrong token.

Spans = Mapping[str, tuple[int, int]]
"""Window → token positions [start, stop) of one dialogue."""


class SpanProbe:
    """Mean raw block output in given spans, and the state after the final norm at the last token.

    Arrays: ``mean`` (dialogue, window, layer, d_model) and ``normed_end`` (dialogue, d_model), float32, in units
    of the residual stream and of the normed state; ``count`` (dialogue, window), tokens used. It needs
    dialogues whose blocks are kept at every position (``parts.whole``).
    """

    def __init__(self, layers: Sequence[int], spans: Sequence[Spans], *, name: str = "spans") -> None:
        self.name = name
        self.layers = tuple(layers)
        self._spans = spans
        self._means: dict[int, Tensor] = {}
        self._rows: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def empty(self) -> SpanProbe:
        """A probe of the same settings that has taken nothing."""
        return SpanProbe(self.layers, self._spans, name=self.name)

    def join(self, other: SpanProbe) -> None:
        """Adds the dialogues of another one."""
        self._rows |= other._rows

    def read_block(
        self,
        layer: int,
        kept: Float[Tensor, "kept d_model"],
        batch: Batch,
        dialogues: Sequence[EncodedDialogue],
    ) -> None:
        """Averages one block's output over the spans of the batch."""
        own = kept.float().split([len(one.input_ids) for one in dialogues])
        means = [
            torch.stack([hidden[start:stop].mean(dim=0) for start, stop in self._within(index, len(hidden))])
            for index, hidden in zip(batch.indices.tolist(), own, strict=True)
        ]
        self._means[layer] = torch.stack(means).to(batch.input_ids.device)

    def accumulate(self, batch: Batch, state: PassState) -> None:
        """Takes the spans of one batch."""
        stacked = torch.stack([self._means[layer] for layer in self.layers], dim=2).cpu().numpy()
        self._means = {}
        for row, index in enumerate(batch.indices.tolist()):
            dialogue, means = state.dialogues[row], stacked[row]
            n_tokens = len(dialogue.input_ids)
            end = state.final_hidden[row, n_tokens - 1].float().cpu().numpy()
            for values in (means, end):
                require_finite(self.name, values, dialogue)
            counts = np.array([stop - start for start, stop in self._within(index, n_tokens)])
            self._rows[index] = (means, end, counts)

    def _within(self, index: int, n_tokens: int) -> list[tuple[int, int]]:
        return [(start, min(stop, n_tokens)) for start, stop in self._spans[index].values()]

    def finish(self) -> dict[str, np.ndarray]:
        """The arrays named above."""
        rows = [self._rows[index] for index in sorted(self._rows)]
        self._rows = {}
        mean, end, count = (np.stack(column) for column in zip(*rows, strict=True))
        return {"mean": mean, "normed_end": end, "count": count}


class WrongTokenProbe:
    """Log-probability of the dialogue's token at the choice, and of its word's id without the leading space.

    Arrays (dialogue,), nats, float32, NaN where there is no such pair: ``in_context``, ``bare``.
    """

    layers: tuple[int, ...] = ()

    def __init__(self, bare: Sequence[int | None], *, name: str = "wrong_token") -> None:
        self.name = name
        self._bare = bare
        self._rows: dict[int, np.ndarray] = {}

    def empty(self) -> WrongTokenProbe:
        """A probe of the same settings that has taken nothing."""
        return WrongTokenProbe(self._bare, name=self.name)

    def join(self, other: WrongTokenProbe) -> None:
        """Adds the dialogues of another one."""
        self._rows |= other._rows

    def accumulate(self, batch: Batch, state: PassState) -> None:
        """Takes the pairs of one batch."""
        indices = batch.indices.tolist()
        self._rows |= {index: np.full(2, np.nan, dtype=np.float32) for index in indices}
        used = [row for row, index in enumerate(indices) if self._bare[index] is not None]
        if not used:
            return
        rows = torch.tensor(used, device=batch.input_ids.device)
        choices = torch.tensor([state.dialogues[row].choice for row in used], device=rows.device)
        wrong = torch.tensor([self._bare[indices[row]] for row in used], device=rows.device)
        for part, log_p in state.log_probabilities(rows, choices - 1):
            tokens = torch.stack([batch.input_ids[rows[part], choices[part]], wrong[part]], dim=1)
            values = log_p.gather(1, tokens).float().cpu().numpy()
            for row, pair in zip(used[part], values, strict=True):
                require_finite(self.name, pair, state.dialogues[row])
                self._rows[indices[row]] = pair

    def finish(self) -> dict[str, np.ndarray]:
        """The arrays named above."""
        pairs = np.stack([self._rows[index] for index in sorted(self._rows)])
        self._rows = {}
        return {"in_context": pairs[:, 0], "bare": pairs[:, 1]}


# A model whose chat markers were never trained: their input embeddings drawn anew, everything else kept.


@contextmanager
def untrained_markers(model: PreTrainedModel, ids: Sequence[int], *, seed: int) -> Iterator[None]:
    """While the context lasts, the input embeddings of these tokens are as at initialisation, from a seed.

    The rows are normal with the standard deviation of the model's ``initializer_range``. Where input and output
    embeddings are one matrix they are parted, so that the rows that *predict* the tokens stay trained: only what
    the model reads is changed. Both are as before when the context ends.
    """
    embeddings = model.get_input_embeddings()
    trained = embeddings.weight
    drawn = torch.randn(
        (len(ids), trained.shape[1]), generator=torch.Generator().manual_seed(seed), dtype=torch.float32
    )
    changed = trained.detach().clone()
    changed[list(ids)] = (drawn * model.config.initializer_range).to(changed)
    try:
        # The unembedding holds the old matrix itself, so giving the embeddings another one parts the two.
        embeddings.weight = nn.Parameter(changed, requires_grad=False)
        yield
    finally:
        embeddings.weight = trained


# One pass of the audit: a dialogue set under a condition through an open model, as arrays and provenance.


def audit_pass(
    who: Subject,
    loaded: LoadedModel,
    spelling: ChatTokenizer,
    condition: str,
    rows: Sequence[Dialogue],
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """The arrays of ``audited``, and their provenance."""
    preset, started = who.preset, time.perf_counter()
    tokenizer = tokenizer_for(preset, who.variant, condition, instruct=spelling, own=loaded.tokenizer)
    encoded = encode(rows, tokenizer, max_tokens=preset.max_tokens)
    changed = condition == UNTRAINED
    ids = marker_ids(tokenizer) if changed else []
    with untrained_markers(loaded.model, ids, seed=preset.seed) if changed else nullcontext():
        arrays, ran = _arrays(
            who, loaded, encoded, tokenizer, windows=WINDOWS if condition == "shared" else WINDOWS[:1]
        )
    about = {
        "preset": preset.fingerprint(),
        "model": loaded.fingerprint,
        "dtype": "float16" if condition == "half" else preset.dtype,
        "kept": len(encoded.dialogues),
        "not applicable": preset.n_audit_dialogues - len(rows),
        "dropped": {reason: list(names) for reason, names in encoded.dropped.items()},
        "versions": library_versions(),
        **ran,
        "device": describe_placement(loaded.model),
        "seconds": round(time.perf_counter() - started, 3),
    }
    return arrays, about


def _arrays(
    who: Subject,
    loaded: LoadedModel,
    encoded: EncodedSet,
    tokenizer: ChatTokenizer,
    *,
    windows: Sequence[str],
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The arrays of ``audited``, and what the batches were."""
    parts = [parts_of(*pair, tokenizer) for pair in zip(encoded.sources, encoded.dialogues, strict=True)]
    roles = [role_position(one, tokenizer, part) for one, part in zip(encoded.dialogues, parts, strict=True)]
    spans = [
        {name: span for name, span in _spans(one, role, who.preset.answer_first_k).items() if name in windows}
        for one, role in zip(encoded.dialogues, roles, strict=True)
    ]
    probes = [
        SequenceProbe(),
        SpanProbe(range(n_layers(loaded.model)), spans),
        WrongTokenProbe([bare_token(one, tokenizer) for one in encoded.dialogues]),
    ]
    stretched = [whole(one) for one in encoded.dialogues]
    budget = BatchBudget(who.preset.batch_tokens)
    found = run_probes(loaded.model, stretched, probes, batch_tokens=budget)
    arrays = {name: values for arrays in found.values() for name, values in arrays.items()} | {
        "part": np.concatenate([part[1:] for part in parts]),
        "role_template": np.array(
            [one.answer_start - at for one, at in zip(encoded.dialogues, roles, strict=True)]
        ),
        "identifier": np.array([one.identifier for one in encoded.sources]),
        "cluster": np.array([one.cluster for one in encoded.sources]),
        "pair": np.array([one.pair or "" for one in encoded.sources]),
    }
    return arrays, budget.about()


def _spans(one: EncodedDialogue, role: int, first_k: int) -> dict[str, tuple[int, int]]:
    n_tokens = len(one.input_ids)
    return {
        "prompt_end": (one.prompt_end, one.prompt_end + 1),
        "answer_first_k": (one.answer_start, min(one.answer_start + first_k, one.answer_stop)),
        "role": (role, role + first_k),
        "end": (n_tokens - 1, n_tokens),
    }
