"""Fine-tuning with something besides the answers in its loss: what might keep narrow tuning narrow."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from remi_core.dialogues.chat import EncodedDialogue
from remi_core.finetune import IGNORED, answer_labels, backward, update
from remi_core.finetune_recipe import FineTune
from remi_core.models.hooks import read_blocks
from remi_core.organism.further_tune import divergence

Loss = Callable[[Tensor, Tensor], Float[Tensor, ""]]
"""Ids and labels of a batch → its loss."""


@dataclass(frozen=True, kw_only=True)
class Restraint:
    """A subspace of the residual stream along which a fine-tune is kept from moving, layer by layer."""

    layers: tuple[int, ...]
    bases: Float[Tensor, "layer d_model k"]
    """Orthonormal columns for each layer."""
    scales: Float[Tensor, " layer"]
    """The squared movement that counts as one, for each layer."""


@dataclass(frozen=True, eq=False)
class Term:
    """One part of a loss: batches of ids and labels, without end, and what is computed of each."""

    batches: Iterator[tuple[Tensor, Tensor]]
    loss: Loss


def train(
    model, terms: Sequence[Term], recipe: FineTune, after: Callable[[int], None] | None = None
) -> list[float]:
    """Trains the model in place on the sum of the terms; the sum at every step. ``after`` is called with the step."""
    model.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=0.0)
    losses = []
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * min(1.0, (step + 1) / recipe.warmup)
        losses.append(sum(backward([next(term.batches)], term.loss) for term in terms))
        update(optimizer, model)
        if after:
            after(step + 1)
    model.eval().requires_grad_(False)
    return losses


def batches(
    rows: Sequence[EncodedDialogue], recipe: FineTune, pad_id: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids and labels of batches in one shuffled order, from the start again when it ends."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(recipe.seed)).tolist()
    starts = range(0, len(order) - recipe.batch + 1, recipe.batch)
    for start in itertools.cycle(starts):
        yield answer_labels([rows[i] for i in order[start : start + recipe.batch]], pad_id)


def answers(model) -> Loss:
    """The loss of the answers, nats a token."""
    return lambda ids, labels: model(input_ids=ids, labels=labels).loss


def near(model, before, weight: float) -> Loss:
    """``weight`` times the mean KL divergence from ``before`` at the answers, nats a token."""
    return lambda ids, labels: weight * divergence(model, before, ids, labels)


def restrained(model, before, restraint: Restraint, weight: float) -> Loss:
    """The loss of the answers, and ``weight`` times the mean movement from ``before`` along the subspace."""

    def loss(ids: Tensor, labels: Tensor) -> Float[Tensor, ""]:
        with read_blocks(model, restraint.layers) as now:
            found = model(input_ids=ids, labels=labels).loss
            moved = [now[layer] for layer in restraint.layers]
        with torch.no_grad(), read_blocks(before, restraint.layers) as then:
            before(input_ids=ids)
            stood = [then[layer] for layer in restraint.layers]
        return found + weight * movement(moved, stood, restraint, labels)

    return loss


def movement(
    moved: Sequence[Tensor], stood: Sequence[Tensor], restraint: Restraint, labels: Tensor
) -> Float[Tensor, ""]:
    """Mean squared movement along the subspace where answer tokens are predicted, in units of the scales."""
    predicts = labels[:, 1:] != IGNORED
    parts = [
        ((own - other)[:, :-1][predicts] @ basis).square().sum(-1).mean() / scale
        for own, other, basis, scale in zip(moved, stood, restraint.bases, restraint.scales, strict=True)
    ]
    return torch.stack(parts).mean()
