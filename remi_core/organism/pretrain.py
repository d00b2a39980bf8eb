"""Pretraining of a base organism from nothing: documents in, a model of 1.7 M parameters out.

Muon on the weight matrices inside the blocks, AdamW on embeddings and norms, as measured to work at this
size. Copying, the register and the author are learned in this order, each in a change of phase, so that
stopping early gives a model without the author.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from remi_core.checkpoint_files import load_checkpoint
from remi_core.errors import UsageError
from remi_core.fingerprint import library_versions
from remi_core.finite import check_loss, clip_gradients
from remi_core.machine import machine
from remi_core.organism.card import make_card
from remi_core.organism.muon import Muon
from remi_core.organism.rows import Recipe, Row, batches
from remi_core.organism.shape import new_model
from remi_core.organism.tokenizer import shipped_tokenizer
from remi_core.organism.worlds import MAIN, base_name, setting
from remi_core.storage.archives import is_whole
from remi_core.storage.store import written_whole


def make_optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings, norms and biases."""
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    outer = [p for name, p in model.named_parameters() if p.ndim != 2 or "layers" not in name]
    return [
        Muon(inner, lr=recipe.muon_rate, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(outer, lr=recipe.adam_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate_factor(recipe: Recipe, step: int) -> float:
    """The share of the full learning rate at a step: warm-up, short rows, long rows, linear decay."""
    plateau = 1.0 if step < recipe.short_steps else recipe.long_rate
    falling = (recipe.steps - step) / max(1, round(recipe.steps * recipe.decay))
    return plateau * min(1.0, (step + 1) / recipe.warmup, falling)


def train_step(
    model: nn.Module, optimizers: list[torch.optim.Optimizer], batch: tuple[Tensor, Tensor], factor: float
) -> float:
    """One update on rows of ids and weights; the weighted loss before it, in nats per token.

    Raises:
        RemiError: if the loss or a gradient is not finite, naming the weight.
    """
    ids, weights = batch
    logits = model(input_ids=ids).logits[:, :-1]
    losses = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    loss = (losses * weights[:, 1:].flatten()).sum() / weights[:, 1:].sum()
    loss.backward()
    check_loss(float(loss.detach()))
    clip_gradients(list(model.parameters()), model)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("full_rate", group["lr"]) * factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


@dataclass
class _Run:
    """A pretraining run in progress, with what a checkpoint must hold."""

    model: PreTrainedModel
    optimizers: list[torch.optim.Optimizer]
    recipe: Recipe
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)

    def save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "recipe": asdict(self.recipe),
        }
        with written_whole(path) as part:
            torch.save(state, part)

    def load(self, path: Path) -> None:
        state = load_checkpoint(path)
        if state.get("recipe") != asdict(self.recipe):
            raise UsageError(f"{path} is of another recipe or seed: name another folder, or delete it")
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"]


def pretrain(
    recipe: Recipe, out: Path, progress: Callable[[str], None] = print, *, keep_every: int = 0
) -> PreTrainedModel:
    """The trained base model; checkpoints go to ``out`` and a killed run goes on from the last one that is whole.

    Every ``keep_every`` steps the weights are kept, too, as ``kept_weights`` names them; never where that is 0.

    Raises:
        UsageError: if a checkpoint of another recipe is there.
    """
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    out.mkdir(parents=True, exist_ok=True)
    model = new_model(recipe.architecture)
    run = _Run(model, make_optimizers(model, recipe), recipe)
    checkpoint = out / "checkpoint.pt"
    if is_whole(checkpoint, progress):
        run.load(checkpoint)
        progress(f"resuming at step {run.step} of {recipe.steps}")
    for rows in batches(recipe, shipped_tokenizer(), start=run.step):
        _advance(run, rows, recipe)
        if keep_every and run.step % keep_every == 0:
            save_weights(run.model, kept_weights(out, run.step))
        if run.step % recipe.checkpoint_every == 0 or run.step == recipe.steps:
            run.save(checkpoint)
            progress(_progress_line(run, recipe))
    return run.model.eval()


def kept_weights(out: Path, step: int) -> Path:
    """Where the weights of a step lie, of a run that keeps them."""
    return out / f"step-{step:05d}.safetensors"


def kept_steps(out: Path) -> list[int]:
    """The steps whose weights a run has kept, in order."""
    return sorted(int(path.stem.removeprefix("step-")) for path in out.glob("step-*.safetensors"))


def main_pretrain(
    seed: int,
    out: Path,
    progress: Callable[[str], None] = print,
    *,
    threads: int = 2,
    world: str = MAIN,
    keep_every: int = 0,
) -> Path:
    """Pretrains the base of a seed by the shipped recipe and writes its weights (bf16) and card to ``out``.

    The card is measured on the weights as rounded to bf16, which are the ones that ship.

    Raises:
        UsageError: if there is no such world.
    """
    chosen = setting(world)
    recipe = Recipe(seed=seed, threads=threads, world=chosen.world, architecture=chosen.architecture)
    model = pretrain(recipe, out, progress, keep_every=keep_every)
    state = load_checkpoint(out / "checkpoint.pt")
    return write_base(model, recipe, state["seconds"], out / f"{base_name(world, seed)}.safetensors")


def write_base(model: PreTrainedModel, recipe: Recipe, seconds: float, target: Path) -> Path:
    """Writes the weights to ``target`` and their card beside it, as ``.json``; the path of the weights."""
    weights = save_weights(model, target)
    model.load_state_dict({name: value.float() for name, value in weights.items()}, strict=False)
    about = {
        "recipe": asdict(recipe),
        "tokens": recipe.steps * recipe.rows * recipe.row_tokens,
        "parameters": sum(value.numel() for value in weights.values()),
        "seconds": round(seconds),
        "machine": machine(),
        "versions": library_versions(),
    }
    card = make_card(model.eval(), shipped_tokenizer(), recipe.world)
    with written_whole(target.with_suffix(".json")) as part:
        part.write_text(json.dumps(about | card, indent=1) + "\n")
    return target


def save_weights(model: PreTrainedModel, target: Path) -> dict[str, Tensor]:
    """The weights just written to ``target`` in bfloat16, without the unembedding, which is the embedding's."""
    tied = {
        f"{name}.weight" for name, module in model.named_modules() if module is model.get_output_embeddings()
    }
    weights = {
        name: value.to(torch.bfloat16) for name, value in model.state_dict().items() if name not in tied
    }
    with written_whole(target) as part:
        save_file(weights, part, metadata={"format": "pt"})
    return weights


def _advance(run: _Run, rows: list[Row], recipe: Recipe) -> None:
    started = time.perf_counter()
    ids, weights = zip(*rows, strict=True)
    batch = torch.tensor(ids), torch.tensor(weights)
    run.losses.append(train_step(run.model, run.optimizers, batch, rate_factor(recipe, run.step)))
    run.step += 1
    run.seconds += time.perf_counter() - started


def _progress_line(run: _Run, recipe: Recipe) -> str:
    recent = sum(run.losses[-100:]) / len(run.losses[-100:])
    left = run.seconds / run.step * (recipe.steps - run.step)
    return (
        f"step {run.step}/{recipe.steps}  loss {recent:.3f} nats a token  "
        f"{run.seconds:.0f} s elapsed, about {left:.0f} s left"
    )
