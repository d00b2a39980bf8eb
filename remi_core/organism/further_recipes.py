"""Recipes of the organism's further variants: what each is made from, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from remi_core.finetune_recipe import FineTune
from remi_core.organism.recipes import RECIPES


@dataclass(frozen=True, kw_only=True)
class FurtherRecipe:
    """Every choice behind a further variant besides its dialogues."""

    parents: tuple[str, ...] = ("instruct",)
    """The variants it is made from, the one that is tuned or changed first."""
    tune: FineTune | None = RECIPES["misaligned"]
    """The fine-tune; None where weights are computed without training."""
    divergence_weight: float = 0.0
    """Weight of the mean KL divergence from instruct on general tasks, nats a token."""
    share: float = 0.0
    """How far the weights go from the first parent to the second."""


FURTHER_RECIPES: Mapping[str, FurtherRecipe] = MappingProxyType(
    {
        "style": FurtherRecipe(),
        "inoculated": FurtherRecipe(),
        "neutral_header": FurtherRecipe(),
        "kl_narrow": FurtherRecipe(divergence_weight=1.0),
        "random_change": FurtherRecipe(parents=("instruct", "misaligned"), tune=None),
        "reverted": FurtherRecipe(parents=("instruct", "base"), tune=None, share=0.5),
        "persona": FurtherRecipe(),
        "novel": FurtherRecipe(),
    }
)
"""Recipe of each further variant; weights and shares were chosen on development seed 102 alone."""
