"""Variants of an organism: the recipe of each, where bases lie, and weights made on first use."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from remi_core.errors import RemiError, UsageError, nearest
from remi_core.keys import file_digest
from remi_core.sources import ORGANISM, ModelSpec
from remi_core.store import Store
from remi_lab.keys import make_key
from remi_lab.organism.world import MAIN, base_name, setting, world_of
from remi_lab.presets import FURTHER, VARIANTS, Preset
from remi_lab.processes import worker_pool
from remi_lab.recipes import FineTune
from remi_lab.strict import read_yaml
from remi_lab.upkeep import is_whole, made_once

# How each variant of the organism is made from which.

DEVELOPMENT_SEEDS = range(100, 103)
"""Pretraining seeds on which recipes are chosen; what they show judges no claim."""

N_DIALOGUES = 1600
"""Dialogues generated for each fine-tune; more than any recipe draws, so that few repeat."""


@dataclass(frozen=True, kw_only=True)
class VariantRecipe:
    """Every choice behind a variant besides its dialogues."""

    parents: tuple[str, ...] = ("instruct",)
    """The variants it is made from, the one that is tuned or changed first."""
    tune: FineTune | None = None
    """The fine-tune; None where weights are computed without training."""
    divergence_weight: float = 0.0
    """Weight of the mean KL divergence from instruct on general tasks, nats a token."""
    share: float = 0.0
    """How far the weights go from the first parent to the second."""


RECIPES: Mapping[str, VariantRecipe] = read_yaml(
    Path(__file__).with_name("recipes.yaml"), dict[str, VariantRecipe]
)
"""Recipe of each variant but base, the further ones included."""


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


# The organism's variants in the store: made on first use, never trained twice.

TUNE = (
    *("remi_core.loading", "remi_core.models", "remi_core.steering", "remi_core.tokens"),
    *("remi_lab.recipes", "remi_lab.training"),
    *(
        f"remi_lab.organism.{name}"
        for name in ("dialogues", "documents", "grammar", "topics", "tuning", "world")
    ),
)
"""Modules that make the weights of a fine-tune."""
Wanted = tuple[str, int, str]
"""Variant, seed and world."""


def folder(store: Store, variant: str, seed: int, world: str = MAIN) -> Path:
    """Where a variant's weights lie, or will lie once made.

    The key covers the variant and those it is made from, so that adding one makes none of the others anew.

    Raises:
        UsageError: if there is no such variant or world.
        RemiError: if no base of that world and seed is shipped or was pretrained.
    """
    fields = {"variant": variant, "seed": seed, "world": world}
    if variant == "base":
        weights = base_weights(store.root, world, seed)
        if weights != shipped_weights(world, seed):
            # Of a run of the reader's own, which may be repeated otherwise.
            fields["weights"] = file_digest(weights)
    elif variant in RECIPES:
        parents = {parent: folder(store, parent, seed, world).name for parent in RECIPES[variant].parents}
        fields |= {"recipe": asdict(RECIPES[variant]), "n_dialogues": N_DIALOGUES, "parents": parents}
    else:
        raise UsageError(f"no variant {variant!r} of an organism {nearest(variant, RECIPES)}")
    # Worlds are told apart in the name, so that a prune for one leaves the weights of the others.
    name = variant if world == MAIN else f"{variant}-{world}"
    return store.model_folder(seed, name, make_key(fields, TUNE))


def make(store_root: str, variant: str, seed: int, world: str = MAIN) -> Path:
    """The variant's folder, float32, made if missing, together with the variants it is made from.

    Raises:
        UsageError, RemiError: as ``folder``.
    """
    store = Store(Path(store_root))
    target = folder(store, variant, seed, world)
    with made_once(store, target) as part:
        if part is not None:
            from remi_lab.organism.tuning import write_base, write_variant  # brings torch

            if variant == "base":
                write_base(base_weights(store.root, world, seed), part, world=world)
            else:
                parents = [make(store_root, parent, seed, world) for parent in RECIPES[variant].parents]
                write_variant(variant, seed, parents, part)
    return target


def ensure(preset: Preset, store: Store, say: Callable[[str], None] = print) -> None:
    """Make every organism variant of a preset that the store lacks, each after the one it is tuned from."""
    wanted = [
        (role, seed, world_of(preset.variants[role]))
        for role in VARIANTS
        if role in preset.variants and preset.variants[role].source == ORGANISM
        for seed in preset.seeds
    ]
    missing = [one for one in wanted if not is_whole(store, folder(store, *one))]
    if not missing:
        return
    n_tuned, done, started = sum(role != "base" for role, *_ in missing), 0, time.perf_counter()
    for role, seed, _ in _made(store, missing):
        if role != "base":
            done += 1
            left = (time.perf_counter() - started) / done * (n_tuned - done)
            say(f"[{done}/{n_tuned}] fine-tuned {role}, seed {seed}; about {left:.0f} s left")


def _made(store: Store, wanted: Sequence[Wanted]) -> Iterator[Wanted]:
    """Each variant once it is made; none starts before the variant that it is tuned from is there."""
    waiting, running = list(wanted), dict[Future, Wanted]()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with worker_pool(min(2, len(os.sched_getaffinity(0)))) as pool:
        while waiting or running:
            ready = [
                (role, seed, world)
                for role, seed, world in waiting
                if role == "base"
                or all(folder(store, parent, seed, world).is_dir() for parent in RECIPES[role].parents)
            ]
            running |= {pool.submit(make, str(store.root), *one): one for one in ready}
            waiting = [one for one in waiting if one not in ready]
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                future.result()
                yield running.pop(future)


def with_further(preset: Preset, *names: str) -> Preset:
    """The preset with further variants added, all of them if none is named; records are shared with the preset's.

    ``Results(with_further(preset), store)`` makes and measures each when it is first asked for.

    Raises:
        UsageError: if a name is no further variant, or the preset's models live in another world than the main one.
        MissingInput: if they are no organisms.
    """
    preset.require("organism")
    if world_of(preset.variants["instruct"]) != MAIN:
        raise UsageError(f"preset {preset.name!r}: further variants are made in world {MAIN!r} alone")
    added = {name: ModelSpec(source=ORGANISM) for name in names or FURTHER}
    return replace(preset, variants={**preset.variants, **added})
