"""X1 as tables: what misaligned moves beyond secure, at prompts and on random text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from remi_core.estimates.measured import present_controls
from remi_core.estimates.novelty import YARDSTICK, matched_cosines, split_beyond
from remi_core.estimates.reversion import STUDY
from remi_core.presets.known import Preset
from remi_core.results import Results
from remi_core.studies.files import read_study
from remi_core.tables.direction import Reading


def beyond_table(results: Results, readings: Sequence[Reading]) -> pd.DataFrame:
    """Columns window, variant, layer, seed, value, low, high: c of what each moves beyond secure, with base's shift."""
    parts = []
    names = ["misaligned", *(name for name in present_controls(results) if name != YARDSTICK)]
    for reading in readings:
        for name in names:
            for seed in results.preset.seeds:
                one = split_beyond(results, name, seed, reading.datasets, reading.window).cosine
                columns = {"window": reading.name, "variant": name, "layer": np.arange(len(one.value))}
                columns |= {"seed": seed, "value": one.value, "low": one.low, "high": one.high}
                parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def matched_null(results: Results, readings: Sequence[Reading], *, seed: int) -> pd.DataFrame:
    """Columns window, layer, low, high: central 95 % of c of random displacements of the states' covariance."""
    parts = []
    for reading in readings:
        draws = matched_cosines(results, seed, reading.datasets, reading.window)
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        columns = {"window": reading.name, "layer": np.arange(len(low)), "low": low, "high": high}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def random_text_table(preset: Preset, seed: int) -> pd.DataFrame:
    """One row a variant and comparison, one column a layer: cosines on random text of what is moved beyond secure."""
    found = read_study(preset, STUDY).seeds[seed]["random_text"]["cosines"]
    kinds = {"base": "with base's shift on random text", "prompts": "with its own shift at prompts"}
    rows = [
        {"variant": name, "cosine": kinds[kind]} | {f"layer {i}": float(v) for i, v in enumerate(values)}
        for name, one in found.items()
        for kind, values in one.items()
    ]
    return pd.DataFrame(rows)


def random_text_tokens(preset: Preset) -> pd.DataFrame:
    """One row a seed: the tokens whose logits misaligned's shift beyond secure raises most on random text."""
    seeds = read_study(preset, STUDY).seeds
    rows = [
        {
            "seed": seed,
            "tokens raised most": " ".join(repr(token) for token, _ in one["random_text"]["tokens"]),
        }
        for seed, one in seeds.items()
    ]
    return pd.DataFrame(rows)
