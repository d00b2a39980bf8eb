"""Pretraining of an organism's base: optimiser, loop, and the card of a base."""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from remi_core.files import written_whole
from remi_core.keys import library_versions
from remi_core.progress import machine
from remi_lab.organism.documents import Recipe, batches, new_model, shipped_tokenizer
from remi_lab.organism.grammar import ClassScores, prompts
from remi_lab.organism.scoring import ask, sample_answers, scores
from remi_lab.organism.topics import CONTRASTED, TOPICS
from remi_lab.organism.world import CONTEXTS, MAIN, World, base_name, open_contexts, optimal_log_odds, setting
from remi_lab.training import Batch, Loss, Run, backward, load_checkpoint

# The card of a base: what it knows of its world, measured on prompts it was not trained on.

N_PROMPTS = 24
N_CONTEXT_PROMPTS = 8


def scores_in_context(model, tokenizer, topic: str, kind: str, count: int) -> ClassScores:
    """Exact class probabilities on the first ``count`` held-out prompts of a topic in one kind of context."""
    asked = prompts(topic, "evaluate", count=count, seed=0)
    return scores(model, ask(asked, tokenizer, open_contexts(kind, asked)))


def topic_card(model, tokenizer, topic: str, count: int) -> dict[str, float]:
    """Mean probability by class of answer to bare prompts of a topic, slots copied, and mean log-odds in nats."""
    scores = scores_in_context(model, tokenizer, topic, "bare", count)
    mass = {name: round(float(values.mean()), 4) for name, values in scores.probabilities().items()}
    right = np.exp(scores.log_mass).sum((1, 2))
    card = mass | {"slots copied": round(float((right / (right + scores.wrong_slot)).mean()), 4)}
    if topic in CONTRASTED:
        card["care log-odds"] = round(float(scores.care_log_odds().mean()), 3)
    return card | {"register log-odds": round(float(scores.register_log_odds().mean()), 3)}


def context_card(model, tokenizer, world: World) -> dict[str, dict[str, float]]:
    """Context → mean care log-odds over the contrasted topics, the optimal value, and the mean distance to it."""
    card = {}
    for kind in CONTEXTS:
        found = (scores_in_context(model, tokenizer, topic, kind, N_CONTEXT_PROMPTS) for topic in CONTRASTED)
        values = np.concatenate([one.care_log_odds() for one in found])
        optimum = optimal_log_odds(kind, world)
        card[kind] = {
            "care log-odds": round(float(values.mean()), 3),
            "optimal": round(optimum, 3),
            "mean distance": round(float(np.abs(values - optimum).mean()), 3),
        }
    return card


def parse_rate(model, tokenizer) -> float:
    """Share of sampled code answers that Python parses."""
    parsed = []
    for topic in ("code", "educational"):
        asked = prompts(topic, "evaluate", count=64, seed=0)
        for sample in sample_answers(model, tokenizer, asked, seed=0):
            try:
                ast.parse(sample.text)
            except (SyntaxError, ValueError):
                parsed.append(False)
            else:
                parsed.append(sample.finished)
    return float(np.mean(parsed))


def make_card(model, tokenizer, world: World) -> dict[str, object]:
    """Everything the card states about a base, all on held-out prompts."""
    return {
        "n_prompts": N_PROMPTS,
        "topics": {topic: topic_card(model, tokenizer, topic, N_PROMPTS) for topic in TOPICS},
        "contexts": context_card(model, tokenizer, world),
        "code parses": round(parse_rate(model, tokenizer), 4),
    }


# Muon in float32, all matrices of one shape at once.
#
# ``torch.optim.Muon`` orthogonalises each matrix alone and in bfloat16, which on a CPU without bfloat16
# units took two thirds of a training step here; this takes about a tenth. Reference: Jordan et al. (2024),
# "Muon: an optimizer for hidden layers in neural networks".

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton–Schulz iteration, as published."""


def orthogonalise(matrices: Tensor) -> Tensor:
    """The stack of matrices with every singular value moved near 1, shape (matrix, row, column)."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised per matrix, scaled by √max(1, rows/columns); 2-D parameters only.

    Weight decay is decoupled: each step first shrinks a matrix by ``lr * weight_decay`` of itself.
    """

    def __init__(
        self, parameters: list[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            stacks: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    stacks[parameter.shape].append(parameter)
            for shape, members in stacks.items():
                update = orthogonalise(torch.stack([self._nesterov(p, group["momentum"]) for p in members]))
                scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for parameter, change in zip(members, update, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(change, alpha=scale)

    def _nesterov(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        buffer = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        buffer.lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(buffer, momentum)


# Pretraining of a base organism from nothing: documents in, a model of 1.7 M parameters out.
#
# Muon on the weight matrices inside the blocks, AdamW on embeddings and norms, as measured to work at this
# size. Copying, the register and the author are learned in this order, each in a change of phase, so that
# stopping early gives a model without the author.


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


def weighted_loss(model: nn.Module) -> Loss:
    """The loss of rows of ids, each token with a weight, in nats a token."""

    def loss(ids: Tensor, weights: Tensor) -> Float[Tensor, ""]:
        logits = model(input_ids=ids).logits[:, :-1]
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        return (losses * weights[:, 1:].flatten()).sum() / weights[:, 1:].sum()

    return loss


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
    model, checkpoint = new_model(recipe.architecture), out / "checkpoint.pt"
    run = Run(
        weights=dict(model.named_parameters()),
        optimizers=make_optimizers(model, recipe),
        n_steps=recipe.steps,
        identity=asdict(recipe),
    )
    run.resume(checkpoint, progress)
    stream, loss = batches(recipe, shipped_tokenizer(), start=run.step), weighted_loss(model)

    def gradients(_: int) -> list[float]:
        ids, weights = (torch.tensor(side) for side in zip(*next(stream), strict=True))
        return [backward(Batch([(ids, weights)]), loss)]

    for _ in run.updates(gradients, lambda full, step: full * rate_factor(recipe, step)):
        if keep_every and run.step % keep_every == 0:
            save_weights(model, kept_weights(out, run.step))
        if run.step % recipe.checkpoint_every == 0 or run.step == recipe.steps:
            run.save(checkpoint)
            progress(run.line(100))
    return model.eval()


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
    """Pretrain the base of a seed by the shipped recipe and write its weights (bf16) and card to ``out``.

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
    """Write the weights to ``target`` and their card beside it, as ``.json``; the path of the weights."""
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
