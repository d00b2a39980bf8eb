"""The passes of the audit: probes and weights under each condition."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from remi_core.batches import Batch, BatchBudget
from remi_core.dialogues import Dialogue
from remi_core.forward import run_probes
from remi_core.gradients import gradient_factors, gram_of_factors
from remi_core.models import LoadedModel, attention_output, n_layers
from remi_core.placement import input_device
from remi_core.probes import ColumnProbe, PassState, TokenLogProbs, require_finite
from remi_core.tokens import ChatTokenizer, EncodedDialogue
from remi_lab.audit import (
    UNTRAINED,
    WINDOWS,
    in_half,
    marker_ids,
    parts_of,
    role_position,
    tokenizer_for,
    whole,
)
from remi_lab.passes import bare_tokens, joined_sets
from remi_lab.turns import encode_for
from remi_lab.variant import Measured, Variant, row_labels

# The audit's gradients through open models: factors of Gram matrices, and the entries that 16 bits lose.

SMALLEST_NORMAL = float(torch.finfo(torch.float16).smallest_normal)
"""Below this a 16-bit float loses digits; about a thousandth of it is its smallest number above zero."""


def gradient_pass(instruct: Variant, base: Variant, sets: Mapping[str, Sequence[Dialogue]]) -> Measured:
    """The arrays of ``audited_gradients``, and their provenance.

    Only the factors of the gradients are kept between the models: two models are never in memory together.
    """
    preset, started, tokenizer = instruct.preset, time.perf_counter(), instruct.tokenizer()
    encoded = {name: encode_for(preset, rows, tokenizer) for name, rows in sets.items()}
    joined, datasets = joined_sets(encoded)
    first = next(iter(encoded.values())).dialogues
    factors_of = partial(gradient_factors, weight=preset.gradient_layer, batch_tokens=preset.batch_tokens)
    with instruct.open() as loaded:
        answer, _ = factors_of(loaded.model, joined.dialogues)
        whole, _ = factors_of(loaded.model, joined.dialogues, whole_sequence=True)
        lost = lost_entries(loaded.model, preset.gradient_layer, first)
    with base.open() as loaded:
        through_base, _ = factors_of(loaded.model, first)
    factors = {"answer": answer, "whole": whole, "mixed": [*through_base, *answer[len(first) :]]}
    arrays = {name: gram_of_factors(own) for name, own in factors.items()} | {"dataset": datasets}
    with in_half(instruct).open() as loaded:
        halved = lost_entries(loaded.model, preset.gradient_layer, first)
    arrays["zero"], arrays["below_normal"] = np.moveaxis(np.stack([lost, halved], axis=1), -1, 0)
    about = instruct.provenance(joined, time.perf_counter() - started)
    return arrays | row_labels(joined.sources), about


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


class SpanProbe(ColumnProbe):
    """Mean raw block output in given spans, and the state after the final norm at the last token.

    Arrays: ``mean`` (dialogue, window, layer, d_model) and ``normed_end`` (dialogue, d_model), float32, in units
    of the residual stream and of the normed state; ``count`` (dialogue, window), tokens used. It needs
    dialogues whose blocks are kept at every position (``whole``).
    """

    def __init__(self, layers: Sequence[int], spans: Sequence[Spans], *, name: str = "spans") -> None:
        super().__init__(name)
        self.layers = tuple(layers)
        self._spans = spans
        self._means: dict[int, Tensor] = {}

    def empty(self) -> SpanProbe:
        """A probe of the same settings that has taken nothing."""
        return SpanProbe(self.layers, self._spans, name=self.name)

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
        means = torch.stack([self._means[layer] for layer in self.layers], dim=2).cpu().numpy()
        self._means = {}
        indices, lengths = batch.indices.tolist(), [len(one.input_ids) for one in state.dialogues]
        last = torch.tensor(lengths, device=state.final_hidden.device) - 1
        ends = state.final_hidden[torch.arange(len(lengths), device=last.device), last].float().cpu().numpy()
        for row, dialogue in enumerate(state.dialogues):
            for values in (means[row], ends[row]):
                require_finite(self.name, values, dialogue)
        counts = [
            [stop - start for start, stop in self._within(*place)]
            for place in zip(indices, lengths, strict=True)
        ]
        self._kept.add(indices, means, ends, np.array(counts))

    def _within(self, index: int, n_tokens: int) -> list[tuple[int, int]]:
        return [(start, min(stop, n_tokens)) for start, stop in self._spans[index].values()]

    def finish(self) -> dict[str, np.ndarray]:
        """The arrays named above."""
        indices, columns = self._kept.finish()
        mean, end, count = (column[np.argsort(indices)] for column in columns)
        return {"mean": mean, "normed_end": end, "count": count}


class WrongTokenProbe(ColumnProbe):
    """Log-probability of the dialogue's token at the choice, and of its word's id without the leading space.

    Arrays (dialogue,), nats, float32, NaN where there is no such pair: ``in_context``, ``bare``.
    """

    def __init__(self, bare: Sequence[int | None], *, name: str = "wrong_token") -> None:
        super().__init__(name)
        self._bare = bare

    def empty(self) -> WrongTokenProbe:
        """A probe of the same settings that has taken nothing."""
        return WrongTokenProbe(self._bare, name=self.name)

    def accumulate(self, batch: Batch, state: PassState) -> None:
        """Takes the pairs of one batch."""
        indices, device = batch.indices.tolist(), batch.input_ids.device
        pairs = np.full((len(indices), 2), np.nan, dtype=np.float32)
        used = [row for row, index in enumerate(indices) if self._bare[index] is not None]
        rows = torch.tensor(used, dtype=torch.long, device=device)
        choices = torch.tensor([state.dialogues[row].choice for row in used], dtype=torch.long, device=device)
        wrong = torch.tensor([self._bare[indices[row]] for row in used], dtype=torch.long, device=device)
        for part, log_p in state.log_probabilities(rows, choices - 1):
            tokens = torch.stack([batch.input_ids[rows[part], choices[part]], wrong[part]], dim=1)
            pairs[used[part]] = log_p.gather(1, tokens).float().cpu().numpy()
        for row in used:
            require_finite(self.name, pairs[row], state.dialogues[row])
        self._kept.add(indices, pairs)

    def finish(self) -> dict[str, np.ndarray]:
        """The arrays named above."""
        indices, (pairs,) = self._kept.finish()
        pairs = pairs[np.argsort(indices)]
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
    variant: Variant,
    loaded: LoadedModel,
    instruct: ChatTokenizer,
    condition: str,
    rows: Sequence[Dialogue],
) -> Measured:
    """The arrays of ``audited``, and their provenance; ``instruct`` is the tokenizer that serves every variant."""
    preset, started, budget = variant.preset, time.perf_counter(), BatchBudget(variant.preset.batch_tokens)
    tokenizer = tokenizer_for(preset, variant.name, condition, instruct=instruct, own=loaded.tokenizer)
    encoded = encode_for(preset, rows, tokenizer)
    windows = WINDOWS if condition == "shared" else WINDOWS[:1]
    parts = [parts_of(*pair, tokenizer) for pair in zip(encoded.sources, encoded.dialogues, strict=True)]
    roles = [role_position(one, tokenizer, part) for one, part in zip(encoded.dialogues, parts, strict=True)]
    spans = []
    for one, role in zip(encoded.dialogues, roles, strict=True):
        n_tokens, first_k = len(one.input_ids), preset.answer_first_k
        every = {
            "prompt_end": (one.prompt_end, one.prompt_end + 1),
            "answer_first_k": (one.answer_start, min(one.answer_start + first_k, one.answer_stop)),
            "role": (role, role + first_k),
            "end": (n_tokens - 1, n_tokens),
        }
        spans.append({name: every[name] for name in every if name in windows})
    probes = [
        TokenLogProbs(),
        SpanProbe(range(n_layers(loaded.model)), spans),
        WrongTokenProbe(bare_tokens(encoded.dialogues, tokenizer)),
    ]
    unread = marker_ids(tokenizer) if condition == UNTRAINED else []
    with untrained_markers(loaded.model, unread, seed=preset.seed) if unread else nullcontext():
        measured = run_probes(
            loaded.model, [whole(one) for one in encoded.dialogues], probes, batch_tokens=budget
        )
    arrays = {name: values for own in measured.values() for name, values in own.items()}
    arrays["part"] = np.concatenate([part[1:] for part in parts])
    arrays["role_template"] = np.array(
        [one.answer_start - role for one, role in zip(encoded.dialogues, roles, strict=True)]
    )
    about = variant.provenance(
        encoded,
        time.perf_counter() - started,
        loaded=loaded,
        dtype="float16" if condition == "half" else preset.dtype,
        not_applicable=preset.n_audit_dialogues - len(rows),
        **budget.about(),
    )
    return arrays | row_labels(encoded.sources), about
