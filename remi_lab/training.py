"""The training loop, and what stops it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from remi_core.errors import RemiError, brief
from remi_core.tokens import EncodedDialogue
from remi_lab.recipes import FineTune

# Checkpoints of trainings in progress: tensors and plain values, never other objects that a pickle could hold.


def load_checkpoint(path: Path) -> dict[str, object]:
    """The state in a checkpoint, its tensors in main memory.

    Raises:
        RemiError: if the file is damaged, or holds what no checkpoint of ours does.
    """
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # damaged archives raise nearly anything
        first = str(error).strip().partition("\n")[0]
        raise RemiError(
            f"{path}: no checkpoint that can be read ({first}); delete it to begin anew"
        ) from error


# Numbers that are none stop a training: which step, which dialogue, which weight.


def check_loss(loss: float, names: Sequence[str] = ()) -> None:
    """Nothing, if a loss is a finite number.

    Raises:
        RemiError: naming the dialogues it is of, otherwise.
    """
    if not math.isfinite(loss):
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        of = f" of {', '.join(map(brief, names[:3]))}{more}" if names else ""
        raise RemiError(f"the loss{of} is {_word(loss)}: lower the learning rate, or take another dtype")


def clip_gradients(parameters: Sequence[Tensor], model: nn.Module | None = None) -> None:
    """Return once the gradients of the parameters have norm 1 at most.

    Raises:
        RemiError: if a gradient is not finite, naming the first such weight of ``model`` in its order.
    """
    total = torch.nn.utils.get_total_norm([one.grad for one in parameters if one.grad is not None])
    norm = float(total)
    if not math.isfinite(norm):
        named = [] if model is None else model.named_parameters()
        # A norm can overflow where each gradient is finite: then no weight is to blame alone.
        bad = (name for name, value in named if value.grad is not None and not value.grad.isfinite().all())
        where = next(bad, "all weights together")
        raise RemiError(f"the gradient of {where} is {_word(norm)}: lower the learning rate")
    torch.nn.utils.clip_grads_with_norm_(parameters, 1.0, total)


def _word(value: float) -> str:
    return "not a number" if math.isnan(value) else "infinite"


# Supervised fine-tuning on answers only.

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
