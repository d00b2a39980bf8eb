"""The training of one adapter: exactly repeated, also by a run that was interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate.utils import find_executable_batch_size
from torch import Tensor

from remi_core.dialogues.chat import EncodedDialogue, EncodedSet
from remi_core.errors import RemiError
from remi_core.finetune import IGNORED, answer_labels, backward, update
from remi_core.fingerprint import text_digest
from remi_core.lora.adapter import (
    adapter_config,
    adapter_weights,
    add_adapter,
    answer_loss,
    make_optimizer,
    save_memory,
    trained_parameters,
)
from remi_core.lora.checkpoint import Run
from remi_core.lora.recipe import LoraRecipe, split
from remi_core.models.opening import LoadedModel
from remi_core.progress import Say, clock
from remi_core.storage.archives import is_whole

N_HELD_OUT_LOSSES = 4
"""How often the held-out loss is taken after the start, the end included."""

N_CHECKPOINTS = 20
SECONDS_A_LINE = 10
LARGE = 10**9
"""Parameters from which on activations are computed twice rather than kept in memory."""


@dataclass(frozen=True, eq=False)
class TrainedAdapter:
    """An adapter with what is known of its training."""

    weights: Mapping[str, Tensor]
    config: Mapping[str, object]
    losses: tuple[float, ...]
    """Of every update: nats per answer token of its dialogues, before it."""
    held_out: tuple[tuple[int, float], ...]
    """(updates done, nats per answer token of the dialogues held out)."""
    about: Mapping[str, object]
    """Counts, parameters and the optimiser in words; nothing about time or machine."""
    seconds: float


@dataclass(frozen=True, eq=False)
class _Work:
    """What a training works on, and where it leaves its checkpoints."""

    train: Sequence[EncodedDialogue]
    held_out: Sequence[EncodedDialogue]
    recipe: LoraRecipe
    pad_id: int
    checkpoint: Path | None
    identity: Mapping[str, object]
    say: Say

    @property
    def n_steps(self) -> int:
        return self.recipe.n_steps(len(self.train))


def train_adapter(
    loaded: LoadedModel,
    encoded: EncodedSet,
    recipe: LoraRecipe,
    *,
    start: Path | None = None,
    checkpoint: Path | None = None,
    say: Say = print,
) -> TrainedAdapter:
    """An adapter on the loaded model, trained on the answers of the dialogues, of which part is held out.

    ``start`` is the folder of an adapter whose training goes on. A run whose ``checkpoint`` is there goes on from
    it and ends in the same weights as one that was never interrupted. The model is left with the adapter on it.

    Raises:
        UsageError: if there are fewer than two clusters, or the checkpoint is of another run.
        RemiError: if not even one dialogue at a time fits into memory, or a loss or gradient is not finite.
    """
    chosen, held = split([source.cluster for source in encoded.sources], recipe)
    train, rest = ([encoded.dialogues[index] for index in part] for part in (chosen, held))
    identity = _identity(loaded, encoded, recipe)
    work = _Work(train, rest, recipe, loaded.tokenizer.pad_token_id or 0, checkpoint, identity, say)
    large = loaded.model.num_parameters() >= LARGE
    adapted = add_adapter(loaded.model, recipe, start=start)
    if large:
        save_memory(adapted)
    optimizer, words = make_optimizer(adapted, recipe)
    run = Run(adapted, optimizer)
    if checkpoint is not None and is_whole(checkpoint, say):
        run.load(checkpoint, identity)
        say(f"resuming after step {run.step} of {work.n_steps}")
    _train(run, work)
    about = _about(run, work, encoded) | {"optimizer": words}
    config = adapter_config(adapted, loaded.source)
    losses, held_out = tuple(run.losses), tuple(run.held_out)
    return TrainedAdapter(adapter_weights(adapted), config, losses, held_out, about, run.seconds)


def _identity(loaded: LoadedModel, encoded: EncodedSet, recipe: LoraRecipe) -> dict[str, object]:
    """What two runs must share for one to go on from the other's checkpoint."""
    rows = text_digest(repr([dialogue.input_ids for dialogue in encoded.dialogues]))
    return asdict(recipe) | {"model": loaded.fingerprint, "data": rows}


def _about(run: Run, work: _Work, encoded: EncodedSet) -> dict[str, object]:
    count = len(work.train)
    drawn = [index for step in range(run.step) for index in work.recipe.drawn(step, count)]
    return {
        "parameters": sum(value.numel() for value in trained_parameters(run.adapted).values()),
        "dialogues trained on": count,
        "dialogues held out": len(work.held_out),
        "dialogues dropped": {reason: len(names) for reason, names in encoded.dropped.items()},
        "answers cut short": sum(dialogue.truncated for dialogue in encoded.dialogues),
        "tokens seen": sum(len(work.train[index].input_ids) for index in drawn),
        "answer tokens seen": sum(work.train[index].n_answer for index in drawn),
        "steps": run.step,
    }


def _train(run: Run, work: _Work) -> None:
    """Return once all updates are done, and the held-out losses taken."""
    n_steps, spoken = work.n_steps, float("-inf")
    marks = {round(n_steps * mark / N_HELD_OUT_LOSSES) for mark in range(N_HELD_OUT_LOSSES + 1)}
    gradient = _gradient(run, work)
    while True:
        if run.step in marks and run.step not in dict(run.held_out):
            run.held_out.append((run.step, held_out_loss(run.adapted, work)))
            work.say(f"held-out loss after step {run.step}: {run.held_out[-1][1]:.4f} nats a token")
        if run.step == n_steps:
            return
        began = time.perf_counter()
        batch = [work.train[index] for index in work.recipe.drawn(run.step, len(work.train))]
        for group in run.optimizer.param_groups:
            group["lr"] = work.recipe.rate_at(run.step, n_steps)
        run.losses.append(gradient(batch))
        update(run.optimizer, run.adapted)
        run.step += 1
        run.seconds += time.perf_counter() - began
        if work.checkpoint is not None and run.step % max(1, n_steps // N_CHECKPOINTS) == 0:
            run.save(work.checkpoint, work.identity)
        if run.step == n_steps or time.monotonic() - spoken > SECONDS_A_LINE:
            work.say(_line(run, n_steps))
            spoken = time.monotonic()


def _gradient(run: Run, work: _Work) -> Callable[[Sequence[EncodedDialogue]], float]:
    """Function that adds the gradients of a batch and gives its loss, fewer dialogues at a time where memory ends."""

    def loss_of(ids: Tensor, labels: Tensor) -> Tensor:
        return answer_loss(run.adapted, ids, labels)

    @find_executable_batch_size(starting_batch_size=work.recipe.batch)
    def attempt(size: int, batch: Sequence[EncodedDialogue]) -> float:
        run.optimizer.zero_grad(set_to_none=True)  # what an attempt that failed has added
        names = [dialogue.identifier for dialogue in batch]
        return backward(_parts(batch, size, work.pad_id), loss_of, names=names)

    return lambda batch: _fitting(attempt, batch)


def _fitting(attempt: Callable[..., float], *arguments: object) -> float:
    """What the attempt gives with as many dialogues at a time as fit into memory.

    Raises:
        RemiError: if not even one does.
    """
    try:
        return attempt(*arguments)
    except RuntimeError as error:
        if "No executable batch size" not in str(error):
            raise
        raise RemiError("not even one dialogue at a time fits into memory: lower --max-tokens") from error


def _parts(batch: Sequence[EncodedDialogue], size: int, pad_id: int) -> list[tuple[Tensor, Tensor]]:
    """Ids and labels of ``size`` dialogues at a time, those of similar length together."""
    ordered = sorted(batch, key=lambda dialogue: len(dialogue.input_ids))
    return [answer_labels(ordered[at : at + size], pad_id) for at in range(0, len(ordered), size)]


@torch.inference_mode()
def held_out_loss(adapted: torch.nn.Module, work: _Work) -> float:
    """Mean loss of the dialogues held out, nats per answer token; fewer at a time where memory ends."""

    @find_executable_batch_size(starting_batch_size=work.recipe.batch)
    def attempt(size: int) -> float:
        total, count = 0.0, 0
        for ids, labels in _parts(work.held_out, size, work.pad_id):
            n_tokens = int((labels != IGNORED).sum())
            total += float(answer_loss(adapted, ids, labels)) * n_tokens
            count += n_tokens
        return total / count

    return _fitting(attempt)


def _line(run: Run, n_steps: int) -> str:
    left = run.seconds / run.step * (n_steps - run.step)
    return (
        f"step {run.step}/{n_steps}  loss {run.losses[-1]:.4f} nats a token  "
        f"{clock(run.seconds)} elapsed, about {clock(left)} left"
    )
