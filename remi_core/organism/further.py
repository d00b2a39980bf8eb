"""The organism's further variants in the store: controls and constructed truths, made on first use.

They are keyed apart from the six variants of the presets, so that adding one makes none of those anew.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from remi_core.errors import UsageError, nearest
from remi_core.fingerprint import make_key
from remi_core.models.spec import ORGANISM, ModelSpec
from remi_core.organism.further_recipes import FURTHER_RECIPES
from remi_core.organism.recipes import N_DIALOGUES
from remi_core.organism.variants import folder, make
from remi_core.organism.worlds import MAIN, world_of
from remi_core.presets.known import Preset
from remi_core.storage.model_folders import made_once
from remi_core.storage.store import Store
from remi_core.variants import FURTHER

TUNE = "remi_core.organism.further_tune"


def further_folder(store: Store, name: str, seed: int) -> Path:
    """Where a further variant's weights lie, or will lie once made.

    Raises:
        UsageError: naming the nearest, if there is no such further variant.
        RemiError: if no base of that seed is shipped.
    """
    if name not in FURTHER_RECIPES:
        raise UsageError(f"no further variant {name!r} {nearest(name, FURTHER_RECIPES)}")
    recipe = FURTHER_RECIPES[name]
    parents = {parent: folder(store, parent, seed).name for parent in ("base", *recipe.parents)}
    fields = {"variant": name, "seed": seed, "recipe": asdict(recipe), "n_dialogues": N_DIALOGUES}
    return store.model_folder(seed, name, make_key(fields | {"parents": parents}, [TUNE]))


def make_further(store: Store, name: str, seed: int) -> Path:
    """The folder of a further variant's weights, float32, made if missing together with what it is made from.

    Raises:
        UsageError: naming the nearest, if there is no such further variant.
        RemiError: if no base of that seed is shipped.
    """
    target, recipe = further_folder(store, name, seed), FURTHER_RECIPES[name]
    with made_once(store, target) as part:
        if part is not None:
            parents = [make(str(store.root), parent, seed) for parent in recipe.parents]
            from remi_core.organism.further_tune import write_further  # brings torch

            write_further(name, seed, parents, part)
    return target


def with_further(preset: Preset, *names: str) -> Preset:
    """The preset with further variants added, all of them if none is named; records are shared with the preset's.

    ``Results(with_further(preset), store)`` makes and measures each when it is first asked for.

    Raises:
        UsageError: if a name is no further variant, or the preset's models live in another world than the main one.
        MissingInput: if they are no organisms.
    """
    preset.require("organism")
    if world_of(preset.variants["base"]) != MAIN:
        raise UsageError(f"preset {preset.name!r}: further variants are made in world {MAIN!r} alone")
    added = {name: ModelSpec(source=ORGANISM) for name in names or FURTHER}
    return replace(preset, variants={**preset.variants, **added})
