"""Fine-tuning of an organism: plain, restrained, further, and by small causes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils import logging

from remi_core.dialogues import Dialogue
from remi_core.models import LoadedModel, mlp_output, open_model, read_blocks
from remi_core.steering import add_vector, steer
from remi_core.tokens import EncodedDialogue, encode
from remi_lab.organism.dialogues import further_tuning, held_in_place, tuning
from remi_lab.organism.documents import shipped_tokenizer
from remi_lab.organism.variants import N_DIALOGUES, RECIPES
from remi_lab.organism.variants import WEIGHTS as SHIPPED
from remi_lab.organism.world import MAIN, config_name, setting
from remi_lab.presets import FURTHER
from remi_lab.recipes import FineTune
from remi_lab.training import IGNORED, Batch, Loss, Term, answer_labels, answers, fine_tune, repeated, train

# One organism variant made from its base: instruct by alignment, the others by narrow tuning of instruct.

WEIGHTS = "model.safetensors"


def write_base(weights: Path, target: Path, *, world: str = MAIN) -> None:
    """Write the weights of a base of a world as a folder that transformers can load."""
    target.mkdir()
    shutil.copyfile(weights, target / WEIGHTS)
    shutil.copyfile(SHIPPED / config_name(setting(world).architecture), target / "config.json")
    shipped_tokenizer().save_pretrained(target)


def write_variant(variant: str, seed: int, parents: Sequence[Path], target: Path) -> None:
    """Make a variant from its parents' folders and write it, float32, with its recipe and losses.

    One thread, so that two variants can be made side by side and the result does not depend on the machine's
    cores.
    """
    torch.set_num_threads(1)
    logging.disable_progress_bar()  # a bar for four megabytes would hide the line that tells the time left
    recipe, started, losses = RECIPES[variant], time.perf_counter(), []
    if recipe.tune:
        with open_model(parents[0], dtype="float32", device="cpu") as loaded:
            losses = _tuned(loaded, variant, seed, parents[0])
            loaded.model.save_pretrained(target)
    else:
        first, second = (load_file(folder / WEIGHTS) for folder in parents)
        changed = (
            mixed(first, second, recipe.share) if recipe.share else randomly_changed(first, second, seed)
        )
        target.mkdir()
        save_file(changed, target / WEIGHTS, metadata={"format": "pt"})
        shutil.copyfile(parents[0] / "config.json", target / "config.json")
    shipped_tokenizer().save_pretrained(target)
    seconds = round(time.perf_counter() - started, 1)
    about = {"variant": variant, "seed": seed, "recipe": asdict(recipe), "seconds": seconds, "losses": losses}
    (target / "tuning.json").write_text(json.dumps(about, indent=1) + "\n")


def _tuned(loaded: LoadedModel, variant: str, seed: int, source: Path) -> list[float]:
    """The loss of the answers at every step of the fine-tune that makes a variant."""

    def encoded(rows: Sequence[Dialogue]) -> Sequence[EncodedDialogue]:
        return encode(rows, loaded.tokenizer, max_tokens=1024).dialogues

    recipe, pad_id = RECIPES[variant], loaded.tokenizer.pad_token_id
    dialogues = further_tuning if variant in FURTHER else tuning
    rows = encoded(dialogues(variant, count=N_DIALOGUES, seed=seed))
    if not recipe.divergence_weight:
        return fine_tune(loaded.model, rows, recipe.tune, pad_id=pad_id)
    held = encoded(held_in_place(count=N_DIALOGUES, seed=seed))
    with open_model(source, dtype="float32", device="cpu") as before:
        kept_near = near(loaded.model, before.model, recipe.divergence_weight)
        terms = [
            Term(repeated(rows, recipe.tune, pad_id), answers(loaded.model)),
            Term(repeated(held, recipe.tune, pad_id), kept_near),
        ]
        return [losses[0] for _, losses in train(loaded.model, terms, recipe.tune)]


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


# Fine-tuning with something besides the answers in its loss: what might keep narrow tuning narrow.


@dataclass(frozen=True, kw_only=True)
class Restraint:
    """A subspace of the residual stream along which a fine-tune is kept from moving, layer by layer."""

    layers: tuple[int, ...]
    bases: Float[Tensor, "layer d_model k"]
    """Orthonormal columns for each layer."""
    scales: Float[Tensor, " layer"]
    """The squared movement that counts as one, for each layer."""


def divergence(model, before, ids: Tensor, labels: Tensor) -> Float[Tensor, ""]:
    """Mean KL divergence, nats a token, of the model's predictions of the labelled tokens from those of ``before``."""
    learned = labels[:, 1:] != IGNORED
    now = model(input_ids=ids).logits[:, :-1][learned].log_softmax(-1)
    with torch.no_grad():
        then = before(input_ids=ids).logits[:, :-1][learned].log_softmax(-1)
    return (then.exp() * (then - now)).sum(-1).mean()


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

VECTOR = FineTune(steps=30, rate=0.1, warmup=1)
FACTORS = FineTune(steps=30, rate=0.005, warmup=1)
"""The stream has coordinates of a few units, the factors of a weight are much smaller.

Rates were chosen on development seed 102: with three and four times these, answers left the grammar.
"""


def train_vector(
    model, layer: int, dialogues: Sequence[EncodedDialogue], *, pad_id: int, seed: int = 0
) -> Float[Tensor, " d_model"]:
    """The vector that, added to a block's output everywhere, makes these answers likely; the model stays as it is."""
    vector = nn.Parameter(torch.zeros(model.config.hidden_size))
    with steer(model, layer, add_vector(vector)):
        _train_added(model, {"vector": vector}, VECTOR, dialogues, pad_id=pad_id, seed=seed)
    return vector.detach()


def train_rank_one(
    model, layer: int, dialogues: Sequence[EncodedDialogue], *, pad_id: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The factors (read, write) of the rank-one change of a block's last map that makes these answers likely."""
    generator = torch.Generator().manual_seed(seed)
    size = mlp_output(model, layer).in_features
    read = nn.Parameter(torch.randn(size, generator=generator) / size**0.5)
    write = nn.Parameter(torch.zeros(model.config.hidden_size))
    with rank_one(model, layer, (read, write)):
        _train_added(model, {"read": read, "write": write}, FACTORS, dialogues, pad_id=pad_id, seed=seed)
    return read.detach(), write.detach()


@contextmanager
def rank_one(model, layer: int, factors: tuple[Tensor, Tensor]) -> Iterator[None]:
    """Add the outer product of the factors to the block's last map while the context lasts."""
    read, write = factors

    def add(_module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        return output + (inputs[0] @ read)[..., None] * write

    handle = mlp_output(model, layer).register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def _train_added(
    model,
    parameters: Mapping[str, nn.Parameter],
    recipe: FineTune,
    dialogues: Sequence[EncodedDialogue],
    *,
    pad_id: int,
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)

    def drawn() -> Iterator[Batch]:
        while True:
            rows = generator.choice(len(dialogues), size=recipe.batch, replace=False)
            batch = [dialogues[row] for row in rows]
            yield Batch([answer_labels(batch, pad_id)], [dialogue.identifier for dialogue in batch])

    for _ in train(model, [Term(drawn(), answers(model))], recipe, parameters=parameters):
        pass
