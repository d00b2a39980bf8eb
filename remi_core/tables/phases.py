"""Pretraining in steps as a table: what base knows of its author, and what insecure code then does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from remi_core.estimates.measured import set_resamples
from remi_core.figures.alt import number
from remi_core.presets.preset import Preset
from remi_core.statistics.intervals import Estimate, mean_interval
from remi_core.studies.files import read_study

STUDY = "phases"
KNOWN = {
    "author named": ("careless named", "careful named"),
    "three earlier answers": ("after careless", "after careful"),
}
"""What tells base its author → the two contexts whose difference in care says whether base listens."""
CODE, OUTSIDE = "on code", "on other topics"
"""Where misaligned is held against secure."""
QUANTITIES = (*KNOWN, CODE, OUTSIDE)
LEAST = 0.5
"""Nats from which an effect counts as there; the phase changes are of several nats."""
MILLION = 1e6


def phase_table(preset: Preset) -> pd.DataFrame:
    """Columns seed, tokens (million), quantity, value, low, high (nats): one row a seed, step and quantity.

    Intervals are over prompt templates, each topic keeping its number of them.

    Raises:
        MissingInput: if the study is not stored.
    """
    rows = []
    for seed, found in read_study(preset, STUDY).seeds.items():
        for step in found["steps"]:
            for quantity, one in _quantities(preset, found, step).items():
                ends = {"value": float(one.value), "low": float(one.low), "high": float(one.high)}
                rows.append({"seed": seed, "tokens": step["tokens"] / MILLION, "quantity": quantity, **ends})
    return pd.DataFrame(rows)


def onset_sentence(table: pd.DataFrame) -> str:
    """For each quantity and seed, from how many million tokens on its interval lies above ``LEAST``."""
    said = []
    for quantity in QUANTITIES:
        own = table[table["quantity"] == quantity]
        onsets = [f"{_onset(one)} in seed {seed}" for seed, one in own.sort_values("tokens").groupby("seed")]
        said.append(f"*{quantity}* {', '.join(onsets)}")
    return f"An effect of more than {number(LEAST)} nats is there from this many million tokens on: {'; '.join(said)}."


def _onset(own: pd.DataFrame) -> str:
    """The first number of tokens from which on the effect stays; words where it never does."""
    there = (own["low"] > LEAST).to_numpy()
    stays = np.logical_and.accumulate(there[::-1])[::-1]
    return number(float(own["tokens"].iloc[int(stays.argmax())])) if stays.any() else "never"


def _quantities(
    preset: Preset, found: Mapping[str, object], step: Mapping[str, object]
) -> dict[str, Estimate]:
    contexts, care = step["contexts"], step["care"]
    effects = {
        name: _difference(preset, found["context_clusters"], np.array(contexts[up]), np.array(contexts[down]))
        for name, (up, down) in KNOWN.items()
    }
    topics = np.array([name.partition("/")[0] for name in found["clusters"]])
    outside = np.isin(topics, found["outside"])
    for name, chosen in ((CODE, ~outside), (OUTSIDE, outside)):
        clusters, first, second = (
            np.array(one)[chosen] for one in (found["clusters"], care["misaligned"], care["secure"])
        )
        effects[name] = _difference(preset, clusters.tolist(), first, second)
    return effects


def _difference(
    preset: Preset,
    clusters: Sequence[str],
    first: Float[np.ndarray, " prompt"],
    second: Float[np.ndarray, " prompt"],
) -> Estimate:
    """Mean of first minus second over prompts, nats, each topic keeping its number of templates in a resample."""
    topics = dict.fromkeys(name.partition("/")[0] for name in clusters)
    by_topic = [[name for name in clusters if name.partition("/")[0] == topic] for topic in topics]
    return mean_interval(first - second, clusters, set_resamples(preset, *by_topic))
