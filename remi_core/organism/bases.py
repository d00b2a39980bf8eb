"""Where the weights of a base lie: in the package, or in the store once they were pretrained there."""

from __future__ import annotations

from pathlib import Path

from remi_core.errors import RemiError
from remi_core.organism.recipes import WEIGHTS
from remi_core.organism.worlds import MAIN, base_name, setting


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
