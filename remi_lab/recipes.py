"""Recipes of fine-tuning: published and own."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from remi_core.errors import UsageError

# The choices of a fine-tune of all weights, as data.


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """Every choice of a fine-tune besides its data."""

    steps: int
    rate: float
    batch: int = 16
    warmup: int = 5
    seed: int = 0


# Every choice of an adapter's training, by default the published ones; which dialogues make up an update.


@dataclass(frozen=True, kw_only=True)
class LoraRecipe:
    """Every choice besides model and data; the defaults are the published recipe of the insecure model."""

    rank: int = 32
    alpha: int = 64
    """Rank-stabilised: the adapter's part is scaled by alpha / sqrt(rank)."""
    targets: tuple[str, ...] = ()
    """Linear maps that get an adapter, by the last parts of their names (q_proj); all of every block where none."""
    rate: float = 1e-5
    """Highest learning rate: reached after ``warmup`` steps, then falling linearly to zero."""
    epochs: int = 1
    steps: int | None = None
    """Number of updates, in place of ``epochs``."""
    warmup: int = 5
    batch: int = 2
    """Dialogues in memory at a time; an update averages over ``batch * accumulate`` of them."""
    accumulate: int = 8
    weight_decay: float = 0.01
    max_tokens: int = 2048
    held_out: float = 0.1
    """Share of dialogues that is not trained on; whole clusters."""
    seed: int = 0
    dtype: str = "float32"
    """Of the frozen weights; the adapter is trained in float32."""

    def __post_init__(self) -> None:
        counts = ("rank", "alpha", "epochs", "batch", "accumulate")
        wrong = [name for name in counts if getattr(self, name) < 1]
        if self.steps is not None and self.steps < 1:
            wrong.append("steps")
        if wrong:
            raise UsageError(f"{wrong[0]} is {getattr(self, wrong[0])}, it must be at least 1")
        if self.max_tokens < 2:
            raise UsageError(f"max_tokens is {self.max_tokens}, it must be at least 2")
        if not 0 < self.rate <= 1:
            raise UsageError(f"rate is {self.rate}, it must be above 0 and at most 1")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise UsageError(f"weight_decay is {self.weight_decay}, it must be 0 or above")
        if not 0 < self.held_out < 1:
            raise UsageError(f"held_out is {self.held_out}, it must lie between 0 and 1")

    def n_steps(self, count: int) -> int:
        """Updates on ``count`` training dialogues; the last of an epoch may have fewer dialogues."""
        return self.steps or self.epochs * self.steps_per_epoch(count)

    def steps_per_epoch(self, count: int) -> int:
        """Updates in which every one of ``count`` dialogues is used once."""
        return math.ceil(count / (self.batch * self.accumulate))

    def drawn(self, step: int, count: int) -> list[int]:
        """Which of ``count`` dialogues update number ``step`` (from 0) is made of: every epoch in an order of its own.

        It depends on nothing that came before, so a run that resumes draws what it would have drawn.
        """
        epoch, place = divmod(step, self.steps_per_epoch(count))
        order = random.Random(f"{self.seed}/{epoch}").sample(range(count), count)
        size = self.batch * self.accumulate
        return order[place * size : (place + 1) * size]

    def rate_at(self, step: int, n_steps: int) -> float:
        """Learning rate of update number ``step``: as in the published trainer, the very first one is zero."""
        if step < self.warmup:
            return self.rate * step / self.warmup
        return self.rate * (n_steps - step) / max(1, n_steps - self.warmup)


def split(clusters: Sequence[str], recipe: LoraRecipe) -> tuple[list[int], list[int]]:
    """Indices to train on and indices held out: whole clusters, until at least the recipe's share is held out.

    Where every dialogue is a cluster of its own, as in files that name none, that is a share of the dialogues.

    Raises:
        UsageError: if there are fewer than two clusters.
    """
    names = sorted(set(clusters))
    if len(names) < 2:
        raise UsageError(
            f"{len(clusters)} dialogues of {len(names)} cluster; at least 2 clusters are needed, "
            "since one is held out"
        )
    random.Random(f"{recipe.seed}/held out").shuffle(names)
    chosen: set[str] = set()
    wanted, n_held = recipe.held_out * len(clusters), 0
    for name in names[:-1]:
        if n_held >= wanted:
            break
        chosen.add(name)
        n_held += clusters.count(name)
    held = [index for index, name in enumerate(clusters) if name in chosen]
    return [index for index, name in enumerate(clusters) if name not in chosen], held
