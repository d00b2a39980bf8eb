"""The training loop, and what stops it."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
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


# A loss or gradient that is not finite stops a training: which dialogue, which weight.


def check_loss(loss: float, names: Sequence[str] = ()) -> None:
    """Check that a loss is finite.

    Raises:
        RemiError: naming the dialogues it is of, otherwise.
    """
    if not math.isfinite(loss):
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        of = f" of {', '.join(map(brief, names[:3]))}{more}" if names else ""
        raise RemiError(f"the loss{of} is {_word(loss)}: lower the learning rate, or take another dtype")


def clip_gradients(parameters: Sequence[Tensor], model: nn.Module | None = None) -> None:
    """Scale the gradients of the parameters down to norm 1, where it is above.

    Raises:
        RemiError: if a gradient is not finite, naming the first such weight of ``model`` in its order.
    """
    total = torch.nn.utils.get_total_norm([weight.grad for weight in parameters if weight.grad is not None])
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


@dataclass(frozen=True, eq=False)
class Batch:
    """The dialogues of one update, in parts of right-padded ids and labels, both (dialogue, token)."""

    parts: Sequence[tuple[Tensor, Tensor]]
    names: Sequence[str]
    """Identifiers of the dialogues."""


Loss = Callable[[Tensor, Tensor], Float[Tensor, ""]]
"""Ids and labels of a part of a batch → its mean loss."""


@dataclass(frozen=True, eq=False)
class Term:
    """One part of a loss: batches without end, and what is computed of each."""

    batches: Iterator[Batch]
    loss: Loss


def answers(model) -> Loss:
    """The loss of the answers, nats a token."""
    return lambda ids, labels: model(input_ids=ids.to(model.device), labels=labels.to(model.device)).loss


def reshuffled(dialogues: Sequence[EncodedDialogue], recipe: FineTune, pad_id: int) -> Iterator[Batch]:
    """Batches of dialogues in a shuffled order, which is drawn anew whenever they run out.

    Raises:
        ValueError: if there are fewer dialogues than one batch.
    """
    if len(dialogues) < recipe.batch:
        raise ValueError(f"{len(dialogues)} dialogues are fewer than a batch of {recipe.batch}")
    generator = random.Random(recipe.seed)
    every = range(len(dialogues))
    order = itertools.chain.from_iterable(generator.sample(every, len(every)) for _ in itertools.count())
    while True:
        batch = [dialogues[row] for row in itertools.islice(order, recipe.batch)]
        # A short and a long half: the same sum over tokens with less padding.
        ordered = sorted(batch, key=lambda dialogue: len(dialogue.input_ids))
        middle = (len(ordered) + 1) // 2
        halves = [answer_labels(half, pad_id) for half in (ordered[:middle], ordered[middle:]) if half]
        yield Batch(halves, [dialogue.identifier for dialogue in batch])


def repeated(dialogues: Sequence[EncodedDialogue], recipe: FineTune, pad_id: int) -> Iterator[Batch]:
    """Whole batches of dialogues in one shuffled order, from the start again when it ends."""
    generator = torch.Generator().manual_seed(recipe.seed)
    order = torch.randperm(len(dialogues), generator=generator).tolist()
    for start in itertools.cycle(range(0, len(order) - recipe.batch + 1, recipe.batch)):
        batch = [dialogues[row] for row in order[start : start + recipe.batch]]
        yield Batch([answer_labels(batch, pad_id)], [dialogue.identifier for dialogue in batch])


def train(
    model, terms: Sequence[Term], recipe: FineTune, *, parameters: Sequence[nn.Parameter] | None = None
) -> Iterator[tuple[int, list[float]]]:
    """Train the model in place by AdamW on the sum of the terms, for as long as the steps are asked for.

    After each update comes its number, from 1, with the loss of each term before it, nats a token. ``parameters``
    are trained in place of the model's own, and the model stays as it is.

    Raises:
        RemiError: if a loss or a gradient is not finite, naming the step's dialogues or the weight.
    """
    if parameters is None:
        model.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters or model.parameters(), lr=recipe.rate, weight_decay=0.0)
    for step in range(1, recipe.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * min(1.0, step / recipe.warmup)
        losses = []
        for term in terms:
            batch = next(term.batches)
            losses.append(backward(batch.parts, term.loss, names=batch.names))
        update(optimizer, model)
        yield step, losses
    if parameters is None:
        model.eval().requires_grad_(False)


def fine_tune(model, dialogues: Sequence[EncodedDialogue], recipe: FineTune, *, pad_id: int) -> list[float]:
    """The loss of every step, in nats per answer token, of training the model in place on the dialogues.

    Raises:
        ValueError: if there are fewer dialogues than one batch.
        RemiError: if a loss or a gradient is not finite, naming the step's dialogues or the weight.
    """
    term = Term(reshuffled(dialogues, recipe, pad_id), answers(model))
    return [loss for _, (loss,) in train(model, [term], recipe)]


def backward(
    parts: Sequence[tuple[Tensor, Tensor]],
    loss_of: Loss,
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
    """Take one step on gradients clipped to norm 1, and remove the gradients.

    Raises:
        RemiError: if a gradient is not finite, naming the weight where ``model`` is given; nothing is changed then.
    """
    clip_gradients([parameter for group in optimizer.param_groups for parameter in group["params"]], model)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
