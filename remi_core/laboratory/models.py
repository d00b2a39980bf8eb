"""Which models the laboratory runs: the organisms of a preset's first seed, where the store holds them."""

from __future__ import annotations

from pathlib import Path

from remi_core.errors import RemiError
from remi_core.models.spec import ORGANISM
from remi_core.organism.variants import folder
from remi_core.organism.worlds import ARCHITECTURES, setting, world_of
from remi_core.presets.known import Preset
from remi_core.storage.store import Store
from remi_core.variants import in_order


def organisms(preset: Preset, store: Store) -> dict[str, Path]:
    """Variant → folder of its weights, made or not, in the order of every table.

    Raises:
        RemiError: if the base of the preset's first seed is neither shipped nor pretrained.
    """
    return {
        variant: folder(store, variant, preset.seeds[0], world_of(preset.variants[variant]))
        for variant in in_order(tuple(preset.variants))
    }


def lacking(preset: Preset, store: Store) -> str:
    """Why a page cannot run the preset's models, as a sentence; empty where it can."""
    if any(spec.source != ORGANISM for spec in preset.variants.values()):
        return "its models are not the micro organism, and too large for a page."
    if setting(world_of(preset.variants["base"])).architecture != ARCHITECTURES[0]:
        return f"the page's forward pass is that of {ARCHITECTURES[0]}, and its models have another."
    try:
        missing = [variant for variant, place in organisms(preset, store).items() if not place.is_dir()]
    except RemiError as error:
        return f"{error}."
    named = f"`remi run --preset {preset.name}` makes them."
    return f"the store lacks its models ({', '.join(missing)}); {named}" if missing else ""


def described(preset: Preset, store: Store) -> list[str]:
    """What a built page depends on besides its sources: the keys of the models, or why there are none."""
    reason = lacking(preset, store)
    return [reason] if reason else [place.name for place in organisms(preset, store).values()]
