"""The training loop, its checkpoints, and what stops it."""

from __future__ import annotations

import itertools
import math
import random
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch
from jaxtyping import Float
from torch import Tensor, nn

from remi_core.errors import RemiError, UsageError, brief
from remi_core.files import written_whole
from remi_core.progress import Say, clock
from remi_core.tokens import EncodedDialogue
from remi_lab.recipes import FineTune

# Checkpoints of trainings in progress: tensors and plain values, never other objects that a pickle could hold. They are
# zip archives with a checksum of each part, which torch itself does not compare.


def is_whole(path: Path, say: Say) -> bool:
    """Whether a checkpoint is there and is what was written; a line names one that is not."""
    if not path.is_file():
        return False
    try:
        with ZipFile(path) as archive:
            bad = archive.testzip()
    except (BadZipFile, ValueError, NotImplementedError, RuntimeError, OSError, struct.error) as error:
        bad = str(error)
    if bad is not None:
        say(f"{path}: changed or cut short since it was written ({bad}): starting from the beginning")
    return bad is None


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


def clip_gradients(weights: Mapping[str, nn.Parameter]) -> None:
    """Scale the gradients of the weights down to norm 1, where it is above.

    Raises:
        RemiError: if a gradient is not finite, naming the first such weight.
    """
    learned = {name: weight for name, weight in weights.items() if weight.grad is not None}
    total = torch.nn.utils.get_total_norm([weight.grad for weight in learned.values()])
    if not math.isfinite(float(total)):
        # A norm can overflow where each gradient is finite: then no weight is to blame alone.
        bad = (name for name, weight in learned.items() if not weight.grad.isfinite().all())
        where = next(bad, "all weights together")
        raise RemiError(f"the gradient of {where} is {_word(float(total))}: lower the learning rate")
    torch.nn.utils.clip_grads_with_norm_(learned.values(), 1.0, total)


def _word(value: float) -> str:
    return "not a number" if math.isnan(value) else "infinite"


# A training in progress, whatever is trained: one update after the other, and a checkpoint from which it goes on.


@dataclass(eq=False, kw_only=True)
class Run:
    """What is trained by what, the updates done, the seconds they took and the losses so far."""

    weights: Mapping[str, nn.Parameter]
    optimizers: Sequence[torch.optim.Optimizer]
    n_steps: int
    identity: Mapping[str, object] = field(default_factory=dict)
    """What data, model and recipe a checkpoint belongs to."""
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)
    """(updates done, loss on dialogues held out)."""

    def save(self, path: Path) -> None:
        """Write all of it to ``path``."""
        plain = ("identity", "step", "seconds", "losses", "held_out")
        state = {name: getattr(self, name) for name in plain} | {
            "weights": {name: weight.detach() for name, weight in self.weights.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        with written_whole(path) as part:
            torch.save(state, part)

    def resume(self, path: Path, say: Say) -> None:
        """Take up the state that was saved at ``path``, if it is there and whole.

        Raises:
            UsageError: if it was saved by a run of other data, another model or another recipe.
            RemiError: if it cannot be read.
        """
        if not is_whole(path, say):
            return
        state = load_checkpoint(path)
        for name, value in self.identity.items():
            before = state["identity"].get(name)
            if before != value:
                raise UsageError(
                    f"{path} was made with {name} {before!r}, not {value!r}: give the same, or delete it"
                )
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(state["weights"][name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"]
        self.held_out = [tuple(pair) for pair in state["held_out"]]
        say(f"resuming after step {self.step} of {self.n_steps}")

    def updates(
        self, gradients: Callable[[int], list[float]], rate_at: Callable[[float, int], float]
    ) -> Iterator[list[float]]:
        """Make the updates that are left on gradients clipped to norm 1; after each come its losses, from before it.

        ``gradients`` adds the gradients of update number n, from 0, and gives its losses; ``rate_at`` gives its
        learning rate from the optimiser's.

        Raises:
            RemiError: if a loss or a gradient is not finite, naming the dialogues or the weight.
        """
        while self.step < self.n_steps:
            began = time.perf_counter()
            losses = gradients(self.step)
            clip_gradients(self.weights)
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate_at(group.setdefault("full_rate", group["lr"]), self.step)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            self.step += 1
            self.losses.append(sum(losses))
            self.seconds += time.perf_counter() - began
            yield losses

    def line(self, count: int = 1) -> str:
        """How far it is, the mean loss of the last updates, and how long it will last."""
        left, recent = self.seconds / self.step * (self.n_steps - self.step), self.losses[-count:]
        return (
            f"step {self.step}/{self.n_steps}  loss {sum(recent) / len(recent):.4f} nats a token  "
            f"{clock(self.seconds)} elapsed, about {clock(left)} left"
        )


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
    names: Sequence[str] = ()
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
    model, terms: Sequence[Term], recipe: FineTune, *, parameters: Mapping[str, nn.Parameter] | None = None
) -> Iterator[tuple[int, list[float]]]:
    """Train the model in place by AdamW on the sum of the terms, for as long as the steps are asked for.

    After each update comes its number, from 1, with the loss of each term before it, nats a token. ``parameters``
    are trained in place of the model's own, and the model stays as it is.

    Raises:
        RemiError: if a loss or a gradient is not finite, naming the step's dialogues or the weight.
    """
    if parameters is None:
        model.train().requires_grad_(True)
    weights = parameters or dict(model.named_parameters())
    optimizer = torch.optim.AdamW(weights.values(), lr=recipe.rate, weight_decay=0.0)

    def gradients(_: int) -> list[float]:
        return [backward(next(term.batches), term.loss) for term in terms]

    def rate_at(full: float, step: int) -> float:
        return full * min(1.0, (step + 1) / recipe.warmup)

    run = Run(weights=weights, optimizers=[optimizer], n_steps=recipe.steps)
    yield from enumerate(run.updates(gradients, rate_at), start=1)
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


def backward(batch: Batch, loss_of: Loss) -> float:
    """The mean loss over all answer tokens of a batch; its gradients are added to the parameters'.

    Raises:
        RemiError: naming the dialogues, if the loss is not finite.
    """
    counts = [int((labels != IGNORED).sum()) for _, labels in batch.parts]
    total, names = 0.0, batch.names
    for (ids, labels), count in zip(batch.parts, counts, strict=True):
        loss = loss_of(ids, labels) * (count / sum(counts))
        loss.backward()
        total += float(loss.detach())
    if not math.isfinite(total):
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        of = f" of {', '.join(map(brief, names[:3]))}{more}" if names else ""
        raise RemiError(f"the loss{of} is {_word(total)}: lower the learning rate, or take another dtype")
    return total
