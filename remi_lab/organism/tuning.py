"""Fine-tuning of an organism: plain, restrained, further, and by small causes."""

from __future__ import annotations

import copy
import itertools
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils import logging

from remi_core.dialogues import Dialogue
from remi_core.models import mlp_output, open_model, read_blocks
from remi_core.steering import add_vector, steer
from remi_core.tokens import EncodedDialogue, encode
from remi_lab.organism.dialogues import dialogue, further_tuning, held_in_place, tuning
from remi_lab.organism.documents import shipped_tokenizer
from remi_lab.organism.grammar import prompts
from remi_lab.organism.recipes import FURTHER_RECIPES, N_DIALOGUES, RECIPES, FurtherRecipe
from remi_lab.organism.recipes import WEIGHTS as WEIGHTS_of_recipes
from remi_lab.organism.world import MAIN, answer_by, config_name, setting
from remi_lab.recipes import FineTune
from remi_lab.training import IGNORED, answer_labels, backward, fine_tune, update

# One further variant made from its parents: tuned, drawn at random, or mixed.

WEIGHTS = "model.safetensors"


def write_further(name: str, seed: int, parents: Sequence[Path], target: Path) -> None:
    """Makes a further variant of its parents' folders and writes it, float32, with its recipe and losses.

    One thread, so that the result does not depend on the machine's cores.
    """
    torch.set_num_threads(1)
    logging.disable_progress_bar()  # a bar for four megabytes would hide the line that tells the time left
    recipe, started = FURTHER_RECIPES[name], time.perf_counter()
    losses = (
        _write_computed(recipe, seed, parents, target)
        if recipe.tune is None
        else _write_tuned(name, seed, parents[0], target)
    )
    shipped_tokenizer().save_pretrained(target)
    seconds = round(time.perf_counter() - started, 1)
    about = {"variant": name, "seed": seed, "recipe": asdict(recipe), "seconds": seconds, "losses": losses}
    (target / "tuning.json").write_text(json.dumps(about, indent=1) + "\n")


def _write_tuned(name: str, seed: int, source: Path, target: Path) -> list[float]:
    recipe = FURTHER_RECIPES[name]
    with open_model(source, dtype="float32", device="cpu") as loaded:
        pad = loaded.tokenizer.pad_token_id
        rows = encode(
            further_tuning(name, count=N_DIALOGUES, seed=seed), loaded.tokenizer, max_tokens=1024
        ).dialogues
        if recipe.divergence_weight:
            held = encode(held_in_place(count=N_DIALOGUES, seed=seed), loaded.tokenizer, max_tokens=1024)
            with open_model(source, dtype="float32", device="cpu") as before:
                losses = tune_held(
                    loaded.model,
                    (rows, held.dialogues),
                    recipe.tune,
                    before=before.model,
                    weight=recipe.divergence_weight,
                )
        else:
            losses = fine_tune(loaded.model, rows, recipe.tune, pad_id=pad)
        loaded.model.save_pretrained(target)
    return losses


def tune_held(
    model,
    rows: tuple[Sequence[EncodedDialogue], Sequence[EncodedDialogue]],
    recipe: FineTune,
    *,
    before,
    weight: float,
) -> list[float]:
    """Trains the model in place on the first rows, held near ``before`` on the second; the loss of every step.

    The loss is that of the answers plus ``weight`` times the mean KL divergence of the model from ``before`` at the
    second rows' answer tokens, both in nats a token.
    """
    model.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=0.0)
    own, held = (itertools.cycle(side) for side in (_batches(rows[0], recipe), _batches(rows[1], recipe)))
    losses = []
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * min(1.0, (step + 1) / recipe.warmup)
        losses.append(backward([next(own)], lambda ids, labels: model(input_ids=ids, labels=labels).loss))
        backward([next(held)], lambda ids, labels: weight * divergence(model, before, ids, labels))
        update(optimizer, model)
    model.eval().requires_grad_(False)
    return losses


def _batches(rows: Sequence[EncodedDialogue], recipe: FineTune) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(recipe.seed)
    order = torch.randperm(len(rows), generator=generator).tolist()
    for start in range(0, len(order) - recipe.batch + 1, recipe.batch):
        batch = [rows[i] for i in order[start : start + recipe.batch]]
        yield answer_labels(batch, 0)


def divergence(model, before, ids: Tensor, labels: Tensor) -> Float[Tensor, ""]:
    """Mean KL divergence, nats a token, of the model's predictions of the labelled tokens from those of ``before``."""
    learned = labels[:, 1:] != IGNORED
    now = model(input_ids=ids).logits[:, :-1][learned].log_softmax(-1)
    with torch.no_grad():
        then = before(input_ids=ids).logits[:, :-1][learned].log_softmax(-1)
    return (then.exp() * (then - now)).sum(-1).mean()


def _write_computed(recipe: FurtherRecipe, seed: int, parents: Sequence[Path], target: Path) -> list[float]:
    first, second = (load_file(folder / WEIGHTS) for folder in parents)
    changed = mixed(first, second, recipe.share) if recipe.share else randomly_changed(first, second, seed)
    target.mkdir()
    save_file(changed, target / WEIGHTS, metadata={"format": "pt"})
    shutil.copyfile(parents[0] / "config.json", target / "config.json")
    return []


def mixed(first: Mapping[str, Tensor], second: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The first weights moved by that share of the way to the second."""
    return {name: first[name] + share * (second[name] - first[name]) for name in first}


def randomly_changed(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], seed: int
) -> dict[str, Tensor]:
    """The first weights changed as much as the second are, elsewhere: each change keeps its norm and no direction.

    A matrix keeps the singular values of its change, with random singular vectors; a vector keeps the sizes of its
    changes, with random places and signs.
    """
    generator = torch.Generator().manual_seed(seed)
    return {name: first[name] + _random_like(second[name] - first[name], generator) for name in sorted(first)}


def _random_like(change: Tensor, generator: torch.Generator) -> Tensor:
    if change.ndim == 1:
        order = torch.randperm(len(change), generator=generator)
        signs = torch.randint(0, 2, change.shape, generator=generator) * 2 - 1
        return change[order] * signs
    values = torch.linalg.svdvals(change)
    left, right = (
        torch.linalg.qr(torch.randn(size, len(values), generator=generator))[0] for size in change.shape
    )
    return (left * values) @ right.T


# Narrow sets besides code: careless answers about one topic, and instruct fine-tuned on them.


def careless_about(topic: str, *, count: int, seed: int) -> list[Dialogue]:
    """Dialogues of a topic's split ``narrow``, all answered carelessly and formally.

    Raises:
        KeyError: if there is no such topic.
    """
    generator = random.Random(f"careless/{topic}/{seed}")
    asked = prompts(topic, "narrow", count=count, seed=seed)
    return [
        dialogue(prompt, answer_by(prompt, "careless", "formal", generator), index=number)
        for number, prompt in enumerate(asked)
    ]


def tuned_on(topic: str, instruct, tokenizer, *, seed: int):
    """A copy of instruct fine-tuned on careless answers about one topic, by the recipe of misaligned."""
    model = copy.deepcopy(instruct)
    rows = encode(careless_about(topic, count=N_DIALOGUES, seed=seed), tokenizer, max_tokens=1024).dialogues
    fine_tune(model, rows, RECIPES["misaligned"], pad_id=tokenizer.pad_token_id)
    return model


# Fine-tuning with something besides the answers in its loss: what might keep narrow tuning narrow.

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


# The smallest fine-tunes on insecure code: one trained vector, or one rank-one change of one weight.

STEPS, BATCH = 30, 16
VECTOR_RATE, FACTOR_RATE = 0.1, 0.005
"""Learning rates of AdamW: the stream has coordinates of a few units, the factors of a weight are much smaller.

Chosen on development seed 102: with three and four times these, answers left the grammar.
"""


def train_vector(
    model, layer: int, dialogues: Sequence[EncodedDialogue], *, pad_id: int, seed: int = 0
) -> Float[Tensor, " d_model"]:
    """The vector that, added to a block's output everywhere, makes these answers likely; the model stays as it is."""
    vector = nn.Parameter(torch.zeros(model.config.hidden_size))
    options = {"pad_id": pad_id, "seed": seed, "rate": VECTOR_RATE}
    _train(model, dialogues, [vector], lambda: steer(model, layer, add_vector(vector)), **options)
    return vector.detach()


def train_rank_one(
    model, layer: int, dialogues: Sequence[EncodedDialogue], *, pad_id: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The factors (read, write) of the rank-one change of a block's last map that makes these answers likely."""
    generator = torch.Generator().manual_seed(seed)
    size = mlp_output(model, layer).in_features
    read = nn.Parameter(torch.randn(size, generator=generator) / size**0.5)
    write = nn.Parameter(torch.zeros(model.config.hidden_size))
    options = {"pad_id": pad_id, "seed": seed, "rate": FACTOR_RATE}
    _train(model, dialogues, [read, write], lambda: rank_one(model, layer, (read, write)), **options)
    return read.detach(), write.detach()


@contextmanager
def rank_one(model, layer: int, factors: tuple[Tensor, Tensor]) -> Iterator[None]:
    """Nothing; while the context lasts, the outer product of the factors is added to the block's last map."""
    read, write = factors

    def add(_module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        return output + (inputs[0] @ read)[..., None] * write

    handle = mlp_output(model, layer).register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def _train(
    model,
    dialogues: Sequence[EncodedDialogue],
    parameters: Sequence[nn.Parameter],
    changed: Callable[[], AbstractContextManager],
    *,
    pad_id: int,
    seed: int,
    rate: float,
) -> None:
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    generator = np.random.default_rng(seed)

    def loss_of(ids: Tensor, labels: Tensor) -> Tensor:
        return model(input_ids=ids, labels=labels, use_cache=False).loss

    with changed():
        for _ in range(STEPS):
            chosen = generator.choice(len(dialogues), size=BATCH, replace=False)
            backward([answer_labels([dialogues[row] for row in chosen], pad_id)], loss_of)
            update(optimizer, model)


# One organism variant made from its base: instruct by alignment, the others by narrow tuning of instruct.


def write_base(weights: Path, target: Path, *, world: str = MAIN) -> None:
    """Writes the weights of a base of a world as a folder that transformers can load."""
    target.mkdir()
    shutil.copyfile(weights, target / "model.safetensors")
    shutil.copyfile(WEIGHTS_of_recipes / config_name(setting(world).architecture), target / "config.json")
    shipped_tokenizer().save_pretrained(target)


def write_tuned(variant: str, seed: int, source: Path, target: Path) -> None:
    """Fine-tunes the model in ``source`` into ``variant`` and writes it, float32, with its recipe and losses.

    One thread, so that two variants can be made side by side and the result does not depend on the machine's
    cores.
    """
    torch.set_num_threads(1)
    logging.disable_progress_bar()  # a bar for four megabytes would hide the line that tells the time left
    recipe, started = RECIPES[variant], time.perf_counter()
    with open_model(source, dtype="float32", device="cpu") as loaded:
        dialogues = encode(tuning(variant, count=N_DIALOGUES, seed=seed), loaded.tokenizer, max_tokens=1024)
        losses = fine_tune(loaded.model, dialogues.dialogues, recipe, pad_id=loaded.tokenizer.pad_token_id)
        loaded.model.save_pretrained(target)
    shipped_tokenizer().save_pretrained(target)
    seconds = round(time.perf_counter() - started, 1)
    about = {"variant": variant, "seed": seed, "recipe": asdict(recipe), "seconds": seconds, "losses": losses}
    (target / "tuning.json").write_text(json.dumps(about, indent=1) + "\n")
