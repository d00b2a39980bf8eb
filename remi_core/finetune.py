"""Supervised fine-tuning on answers only."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from remi_core.dialogues.chat import EncodedDialogue
from remi_core.finetune_recipe import FineTune
from remi_core.finite import check_loss, clip_gradients

IGNORED = -100
"""Label of a token that has no part in the loss, by the convention of transformers."""


def answer_labels(
    batch: Sequence[EncodedDialogue], pad_id: int, *, end_of_turn: int = 1
) -> tuple[Tensor, Tensor]:
    """Right-padded ids and labels, both (dialogue, token); labels are -100 outside the answers.

    The ``end_of_turn`` tokens after each answer are learned too, so that the model stops.
    """
    width = max(len(dialogue.input_ids) for dialogue in batch)
    ids = torch.full((len(batch), width), pad_id)
    labels = torch.full((len(batch), width), IGNORED)
    for row, dialogue in enumerate(batch):
        ids[row, : len(dialogue.input_ids)] = torch.tensor(dialogue.input_ids)
        learned = slice(
            dialogue.answer_start, min(dialogue.answer_stop + end_of_turn, len(dialogue.input_ids))
        )
        labels[row, learned] = ids[row, learned]
    return ids, labels


def fine_tune(
    model,
    dialogues: Sequence[EncodedDialogue],
    recipe: FineTune,
    *,
    pad_id: int,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Trains the model in place by AdamW and returns the loss of every step, in nats per answer token.

    Dialogues are drawn in a shuffled order, again from the start when they run out. ``progress`` is
    called with the step and its loss.

    Raises:
        ValueError: if there are fewer dialogues than one batch.
        RemiError: if a loss or a gradient is not finite, naming the step's dialogues or the weight.
    """
    if len(dialogues) < recipe.batch:
        raise ValueError(f"{len(dialogues)} dialogues are fewer than a batch of {recipe.batch}")
    model.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=0.0)
    order = _shuffled(len(dialogues), recipe)
    losses = []
    for step in range(recipe.steps):
        batch = [dialogues[next(order)] for _ in range(recipe.batch)]
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * min(1.0, (step + 1) / recipe.warmup)
        losses.append(_step(model, optimizer, _by_length(batch, pad_id), [one.identifier for one in batch]))
        if progress:
            progress(step + 1, losses[-1])
    model.eval().requires_grad_(False)
    return losses


def _shuffled(count: int, recipe: FineTune):
    generator = random.Random(recipe.seed)
    while True:
        yield from generator.sample(range(count), count)


def backward(
    parts: Sequence[tuple[Tensor, Tensor]],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    *,
    names: Sequence[str] = (),
) -> float:
    """The mean loss over all answer tokens of parts of ids and labels; its gradients are added to the parameters'.

    ``loss_of`` gives the mean loss of one part, of shape (), from its ids and labels; ``names`` are those of the
    dialogues.

    Raises:
        RemiError: naming the dialogues, if the loss is not finite.
    """
    counts = [int((labels != IGNORED).sum()) for _, labels in parts]
    total = 0.0
    for (ids, labels), count in zip(parts, counts, strict=True):
        loss = loss_of(ids, labels) * (count / sum(counts))
        loss.backward()
        total += float(loss.detach())
    check_loss(total, names)
    return total


def update(optimizer: torch.optim.Optimizer, model: nn.Module | None = None) -> None:
    """Return after one step on gradients clipped to norm 1, with the gradients removed.

    Raises:
        RemiError: if a gradient is not finite, naming the weight where ``model`` is given; nothing is changed then.
    """
    clip_gradients([parameter for group in optimizer.param_groups for parameter in group["params"]], model)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _step(
    model,
    optimizer: torch.optim.Optimizer,
    parts: Sequence[tuple[Tensor, Tensor]],
    names: Sequence[str],
) -> float:
    """One update on the mean loss over all answer tokens of the parts; that loss, before the update."""

    def loss_of(ids: Tensor, labels: Tensor) -> Tensor:
        return model(input_ids=ids.to(model.device), labels=labels.to(model.device)).loss

    total = backward(parts, loss_of, names=names)
    update(optimizer, model)
    return total


def _by_length(batch: Sequence[EncodedDialogue], pad_id: int) -> list[tuple[Tensor, Tensor]]:
    """The batch as a short and a long half: the same sum over tokens with less padding."""
    ordered = sorted(batch, key=lambda dialogue: len(dialogue.input_ids))
    middle = (len(ordered) + 1) // 2
    return [answer_labels(half, pad_id) for half in (ordered[:middle], ordered[middle:]) if half]
