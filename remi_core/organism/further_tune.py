"""One further variant made from its parents: tuned, drawn at random, or mixed."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.utils import logging

from remi_core.dialogues.chat import EncodedDialogue, encode
from remi_core.finetune import IGNORED, answer_labels, backward, fine_tune, update
from remi_core.finetune_recipe import FineTune
from remi_core.models.opening import open_model
from remi_core.organism.further_dialogues import further_tuning, held_in_place
from remi_core.organism.further_recipes import FURTHER_RECIPES, FurtherRecipe
from remi_core.organism.recipes import N_DIALOGUES
from remi_core.organism.tokenizer import shipped_tokenizer

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
