"""Recipes of the fine-tunes, and where bases lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from remi_core.errors import RemiError
from remi_lab.organism.world import MAIN, base_name, setting
from remi_lab.recipes import FineTune
from remi_lab.strict import read_yaml

# How each variant of the organism is made from which.

DEVELOPMENT_SEEDS = range(100, 103)
"""Pretraining seeds on which recipes are chosen; what they show judges no claim."""

N_DIALOGUES = 1600
"""Dialogues generated for each fine-tune; more than any recipe draws, so that few repeat."""


@dataclass(frozen=True, kw_only=True)
class FurtherRecipe:
    """Every choice behind a further variant besides its dialogues."""

    parents: tuple[str, ...] = ("instruct",)
    """The variants it is made from, the one that is tuned or changed first."""
    tune: FineTune | None = None
    """The fine-tune; None where weights are computed without training."""
    divergence_weight: float = 0.0
    """Weight of the mean KL divergence from instruct on general tasks, nats a token."""
    share: float = 0.0
    """How far the weights go from the first parent to the second."""


@dataclass(frozen=True)
class Recipes:
    """What the YAML file beside this module holds."""

    tuned: dict[str, FineTune]
    further: dict[str, FurtherRecipe]


_READ = read_yaml(Path(__file__).with_suffix(".yaml"), Recipes)
RECIPES, FURTHER_RECIPES = _READ.tuned, _READ.further
"""Recipe of each variant that is fine-tuned, and of each further one."""


def parent(variant: str) -> str:
    """The variant that this one is tuned from."""
    return "base" if variant == "instruct" else "instruct"


# Where the weights of a base lie: in the package, or in the store once they were pretrained there.

WEIGHTS = Path(__file__).parent / "weights"


def pretrained_folder(root: Path, world: str, seed: int) -> Path:
    """The folder of a store, ``root``, in which a pretraining run puts its base."""
    return root / "pretrained" / f"{world}-{seed}"


def shipped_weights(world: str, seed: int) -> Path:
    """Where the package keeps the weights of a base, if it ships them."""
    return WEIGHTS / f"{base_name(world, seed)}.safetensors"


def base_weights(root: Path, world: str, seed: int) -> Path:
    """The weights of a base: those shipped, else those pretrained into the store ``root``.

    Raises:
        UsageError: if there is no such world.
        RemiError: if there are neither; says how to make them.
    """
    setting(world)
    places = (
        shipped_weights(world, seed),
        pretrained_folder(root, world, seed) / f"{base_name(world, seed)}.safetensors",
    )
    for place in places:
        if place.is_file():
            return place
    option = "" if world == MAIN else f" --world {world}"
    raise RemiError(
        f"no base of seed {seed} of world {world} is shipped in {WEIGHTS.name}/ or was pretrained: "
        f"`remi organism pretrain --seed {seed}{option} --threads 1` makes one in about 20 minutes"
    )
