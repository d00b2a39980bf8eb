"""X6 from the stored study: the primary effect in the main world, and in worlds with one thing changed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from remi_core.errors import MissingInput
from remi_core.estimates.measured import Measured, measured, null_from_estimate, set_resamples
from remi_core.organism.worlds import MAIN
from remi_core.presets.known import Preset
from remi_core.results import Results
from remi_core.statistics.intervals import Estimate, difference, mean_interval
from remi_core.studies.files import read_study

STUDY = "worlds"
INDEPENDENT, RARE = "independent", "rare"
NULL = "benign in misaligned's place"

Measurements = Mapping[str, object]


def world_of_study(preset: Preset, seed: int, world: str) -> Measurements:
    """What the stored study holds of a world and seed.

    Raises:
        MissingInput: if the study is not stored, or does not hold that world.
    """
    worlds = read_study(preset, STUDY).seeds[seed]["worlds"]
    if world not in worlds:
        raise MissingInput(f"needs world {world!r} in the stored study (worlds: {', '.join(worlds)})")
    return worlds[world]


def gap(
    preset: Preset,
    seed: int,
    world: str,
    *,
    between: tuple[str, str],
    topic: str = "",
    quantity: str = "care",
) -> Estimate:
    """A(first) − A(second), nats, mean over prompts of one topic, or of all outside the narrow set.

    The prompts, and so the resamples, are the same in every world.
    """
    own = world_of_study(preset, seed, world)
    outside = read_study(preset, STUDY).seeds[seed]["outside"]
    chosen = (topic,) if topic else tuple(outside)
    rows = [at for at, name in enumerate(own["clusters"]) if name.partition("/")[0] in chosen]
    first, second = (np.array(own[quantity][name])[rows] for name in between)
    by_topic = [
        [name for name in own["clusters"] if name.partition("/")[0] == one]
        for one in dict.fromkeys(name.partition("/")[0] for name in own["clusters"])
    ]
    clusters = [own["clusters"][at] for at in rows]
    return mean_interval(first - second, clusters, set_resamples(preset, *by_topic))


def depends_on_the_author(results: Results, seed: int) -> Measured:
    """X6: the primary effect of the main world minus that of the world in which every answer has its own author."""
    results.preset.require("organism")
    preset = results.preset
    own, other, null, other_null = (
        gap(preset, seed, world, between=(variant, "secure"))
        for variant in ("misaligned", "benign")
        for world in (MAIN, INDEPENDENT)
    )
    found = difference(own, other)
    companions = {MAIN: float(own.value), INDEPENDENT: float(other.value)}
    return measured(
        found, null_from_estimate(found, difference(null, other_null), NULL), companions=companions
    )


def effect_in(results: Results, seed: int, world: str) -> Measured:
    """X6.WORLD: A(misaligned) − A(secure) on topics outside the narrow set in that world."""
    return _against_benign(results, seed, world, "secure")


def passes_base(results: Results, seed: int) -> Measured:
    """X6.passes: A(misaligned) − A(base), nats, where few authors are careless."""
    return _against_benign(results, seed, RARE, "base")


def _against_benign(results: Results, seed: int, world: str, reference: str) -> Measured:
    results.preset.require("organism")
    found, null = (
        gap(results.preset, seed, world, between=(variant, reference)) for variant in ("misaligned", "benign")
    )
    return measured(found, null_from_estimate(found, null, NULL))
