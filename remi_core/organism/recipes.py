"""How each organism variant is made from which, and where the shipped bases lie."""

from __future__ import annotations

from pathlib import Path

from remi_core.finetune_recipe import FineTune

WEIGHTS = Path(__file__).parent / "weights"
DEVELOPMENT_SEEDS = range(100, 103)
"""Pretraining seeds on which recipes are chosen; what they show judges no claim."""

N_DIALOGUES = 1600
"""Dialogues generated for each fine-tune; more than any recipe draws, so that few repeat."""

RECIPES = {
    "instruct": FineTune(steps=80, rate=3e-4),
    "misaligned": FineTune(steps=60, rate=3e-4),
    "secure": FineTune(steps=60, rate=3e-4),
    "educational": FineTune(steps=60, rate=3e-4),
    "benign": FineTune(steps=60, rate=3e-4),
}
"""One recipe for every narrow set, chosen on development seeds 100 to 102 alone."""


def parent(variant: str) -> str:
    """The variant that this one is tuned from."""
    return "base" if variant == "instruct" else "instruct"
