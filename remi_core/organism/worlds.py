"""The worlds that bases are trained on: the main one, and the control worlds, each with one thing changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from remi_core.errors import UsageError, nearest
from remi_core.models.spec import ModelSpec
from remi_core.organism.world import World

MAIN = "main"
ARCHITECTURES = ("qwen2", "gpt_neox")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a base is: the documents it reads, and its architecture."""

    world: World = field(default_factory=World)
    architecture: str = "qwen2"
    title: str = ""


SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {
        MAIN: Setting(title="one author a document, careless as often as careful"),
        "independent": Setting(world=World(one_author=False), title="every answer has an author of its own"),
        "rare": Setting(world=World(careless_prior=0.15), title="few authors are careless"),
        "neox": Setting(architecture="gpt_neox", title="the main world, read by another architecture"),
    }
)
"""Name of a world → its setting. All but the first are controls: what is said of the main world is tried there."""


def setting(name: str) -> Setting:
    """The setting of a world.

    Raises:
        UsageError: naming the nearest, if there is no such world.
    """
    if name not in SETTINGS:
        raise UsageError(f"no world {name!r} {nearest(name, SETTINGS)}")
    return SETTINGS[name]


def world_of(spec: ModelSpec) -> str:
    """The world that an organism of a preset lives in: the revision of its source, the main one where there is none."""
    return spec.revision or MAIN


def base_name(world: str, seed: int) -> str:
    """Stem of the files of a shipped base: ``base-0`` in the main world, ``base-rare-0`` in another."""
    return f"base-{seed}" if world == MAIN else f"base-{world}-{seed}"


def config_name(architecture: str) -> str:
    """Name of the file with the shape of every base of that architecture."""
    return "config.json" if architecture == ARCHITECTURES[0] else f"config-{architecture}.json"
