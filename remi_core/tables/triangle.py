"""Section 4.3 as tables: erosion set by set, the whole triangle of three models, and distances between data sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from remi_core.estimates.direction import erosion
from remi_core.estimates.distances import data_distance
from remi_core.estimates.triangle import triangle_of
from remi_core.presets.known import Preset
from remi_core.results import Results
from remi_core.statistics.erosion import Erosion
from remi_core.statistics.intervals import Estimate
from remi_core.tables.direction import Reading

SIDES, SHARES, ANGLES = "side", "share", "angle"
"""Quantities of the triangle: lengths in units of the residual stream, shares without a unit, degrees."""


def kinds_by_panel(preset: Preset) -> dict[str, dict[str, str]]:
    """Panel → kind of reply → dataset: a panel for each misaligned set with its aligned twin, then benign ones."""
    roles = preset.roles
    pairs = [(name, roles.twin(name)) for name in roles.outside]
    pairs.append((roles.narrow, roles.narrow_aligned))
    panels = {
        careless.removesuffix("-careless"): {"misaligned replies": careless, "aligned replies": careful}
        for careless, careful in pairs
        if careless and careful
    }
    used = {name for panel in panels.values() for name in panel.values()}
    benign = [name for name in roles.unrelated if name not in used]
    return panels | {name: {"aligned replies": name} for name in benign}


def erosion_by_set(results: Results, *, window: str = "answer_first_k") -> pd.DataFrame:
    """Columns panel, kind, layer, seed, e, low, high: erosion of misaligned on each set; NaN where undefined.

    The ends are those of each seed.
    """
    parts = []
    for panel, kinds in kinds_by_panel(results.preset).items():
        for kind, dataset in kinds.items():
            for seed in results.preset.seeds:
                found: Erosion = erosion(results, "misaligned", seed, (dataset,), window)
                names = {"panel": panel, "kind": kind, "seed": seed, "layer": np.arange(len(found.defined))}
                one = found.erosion
                parts.append(pd.DataFrame(names | {"e": one.value, "low": one.low, "high": one.high}))
    return pd.concat(parts, ignore_index=True)


def triangle_table(results: Results, reading: Reading, *, variant: str = "misaligned") -> pd.DataFrame:
    """Columns quantity, name, layer, seed, value, low, high: sides, shares and angles of the triangle by layer."""
    parts = []
    for seed in results.preset.seeds:
        found = triangle_of(results, variant, seed, reading.datasets, reading.window)
        for quantity, group in ((SIDES, found.sides), (SHARES, found.shares), (ANGLES, found.angles)):
            for name, one in group.items():
                parts.append(_by_layer(one).assign(quantity=quantity, name=name, seed=seed))
    return pd.concat(parts, ignore_index=True)


def distance_table(results: Results, pairs: Sequence[tuple[str, str]], *, window: str) -> pd.DataFrame:
    """Columns pair, variant, layer, seed, value, low, high: cosine distance of two sets' mean activations."""
    parts = []
    for pair in pairs:
        for variant in results.variants:
            for seed in results.preset.seeds:
                found = data_distance(results, variant, seed, pair, window)
                parts.append(_by_layer(found).assign(pair=" × ".join(pair), variant=variant, seed=seed))
    return pd.concat(parts, ignore_index=True)


def _by_layer(one: Estimate) -> pd.DataFrame:
    columns = {"layer": np.arange(len(one.value)), "value": one.value, "low": one.low, "high": one.high}
    return pd.DataFrame(columns)
