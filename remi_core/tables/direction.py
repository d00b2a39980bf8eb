"""Section 4.3 as tables: projections, erosion and onset layers, by window and layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from remi_core.estimates.direction import erosion, has_window, stacked, stacked_clusters
from remi_core.estimates.measured import present_controls, shared_resamples
from remi_core.presets.known import Preset
from remi_core.results import Results
from remi_core.statistics.erosion import Erosion, onset_layer, random_direction_null
from remi_core.statistics.projection import mean_projection


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Where activations are read: the sets whose answers are forced, and the window."""

    name: str
    datasets: tuple[str, ...]
    window: str


def readings_of(preset: Preset) -> dict[str, Reading]:
    """By name: last prompt token, first tokens after the careful and after the careless reply, and the choice.

    Readings outside the narrow set; those that the preset has no data for are left out.
    """
    careless, careful = preset.role("outside"), preset.roles.outside_aligned
    readings = [Reading(name="prompt end", datasets=careless, window="prompt_end")]
    if careful:
        readings.append(Reading(name="answer, careful", datasets=careful, window="answer_first_k"))
    readings.append(Reading(name="answer, careless", datasets=careless, window="answer_first_k"))
    if not preset.lacks("choice"):
        readings.append(Reading(name="choice, careless", datasets=careless, window="choice"))
    return {reading.name: reading for reading in readings}


def used_table(results: Results, readings: Sequence[Reading]) -> pd.DataFrame:
    """One row a reading: its window, dialogues used and left out for want of a token there, prompt templates."""
    rows = []
    for reading in readings:
        used = has_window(results, reading.datasets, reading.window)
        templates = len(set(stacked_clusters(results, reading.datasets, reading.window)))
        rows.append(
            (
                reading.name,
                reading.window,
                ", ".join(reading.datasets),
                int(used.sum()),
                int((~used).sum()),
                templates,
            )
        )
    return pd.DataFrame(rows, columns=["reading", "window", "sets", "dialogues", "left out", "templates"])


@dataclass(frozen=True, eq=False)
class Projections:
    """Mean projections by layer, with intervals, in units of the residual stream."""

    layers: Int[np.ndarray, " layer"]
    means: dict[str, Float[np.ndarray, " layer"]]
    intervals: dict[str, Float[np.ndarray, "layer 2"]]


def projections(
    results: Results, reading: Reading, variants: Sequence[str], *, seed: int, n_folds: int = 1
) -> Projections:
    """Each variant's mean coordinate on the axis from base to instruct; one fold is in sample, as published."""
    stacks = {
        name: stacked(results, name, seed, reading.datasets, reading.window)
        for name in {"base", "instruct", *variants}
    }
    clusters = stacked_clusters(results, reading.datasets, reading.window)
    ends, resamples = (stacks["base"], stacks["instruct"]), shared_resamples(results.preset)
    found = {
        name: mean_projection(stacks[name], ends, clusters, resamples, n_folds=n_folds) for name in variants
    }
    return Projections(
        np.arange(stacks["base"].shape[1]),
        {name: one.value for name, one in found.items()},
        {name: np.stack([one.low, one.high], axis=1) for name, one in found.items()},
    )


Erosions = dict[tuple[str, str, int], Erosion]
"""(reading, variant, seed) → erosion by layer."""


def erosions(results: Results, readings: Sequence[Reading]) -> Erosions:
    """e, c and r of misaligned and every control, for every reading and seed."""
    return {
        (reading.name, variant, seed): erosion(results, variant, seed, reading.datasets, reading.window)
        for reading in readings
        for variant in ["misaligned", *present_controls(results)]
        for seed in results.preset.seeds
    }


def erosion_table(found: Erosions, *, seed: int) -> pd.DataFrame:
    """Columns window, variant, layer and e, c, r with _low and _high, of one seed; NaN where undefined."""
    parts = []
    for (window, variant, at), one in found.items():
        if at == seed:
            columns = {"window": window, "variant": variant, "layer": np.arange(len(one.defined))}
            for name, estimate in (("e", one.erosion), ("c", one.cosine), ("r", one.residual)):
                columns |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def erosion_by_seed(found: Erosions) -> pd.DataFrame:
    """Columns window, variant, layer, seed, e, c, r of every seed."""
    parts = [
        pd.DataFrame(
            {
                "window": window,
                "variant": variant,
                "layer": np.arange(len(one.defined)),
                "seed": seed,
                "e": one.erosion.value,
                "c": one.cosine.value,
                "r": one.residual.value,
            }
        )
        for (window, variant, seed), one in found.items()
    ]
    return pd.concat(parts, ignore_index=True)


def random_null(results: Results, readings: Sequence[Reading], found: Erosions, *, seed: int) -> pd.DataFrame:
    """Columns window, layer, low, high: e of random displacements as long as misaligned's, a gap where undefined."""
    preset, parts = results.preset, []
    for reading in readings:
        base, instruct, other = (
            stacked(results, name, seed, reading.datasets, reading.window).astype(np.float64)
            for name in ("base", "instruct", "misaligned")
        )
        draws = random_direction_null(
            other - instruct, base - instruct, n_draws=preset.n_permutations, seed=preset.seed
        )
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        defined = found[reading.name, "misaligned", seed].defined
        ends = {"low": np.where(defined, low, np.nan), "high": np.where(defined, high, np.nan)}
        parts.append(pd.DataFrame({"window": reading.name, "layer": np.arange(len(low)), **ends}))
    return pd.concat(parts, ignore_index=True)


def onset_table(found: Erosions) -> pd.DataFrame:
    """One row a window and variant, one column a seed: first layer whose simultaneous band lies above 0.

    "none" where there is no such layer.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for (window, variant, seed), one in found.items():
        layer = onset_layer(one.erosion)
        row = rows.setdefault((window, variant), {"window": window, "variant": variant})
        row[f"seed {seed}"] = "none" if layer is None else str(layer)
    return pd.DataFrame(rows.values())


def undefined_sentence(found: Erosions) -> str:
    """How often the erosion index is undefined, and where."""
    places = [
        f"{window}, seed {seed}, layer {layer}"
        for (window, variant, seed), one in found.items()
        if variant == "misaligned"
        for layer in np.flatnonzero(~one.defined)
    ]
    n_all = sum(len(one.defined) for (_, variant, _), one in found.items() if variant == "misaligned")
    if not places:
        return f"The denominator is above zero at all {n_all} places (windows, seeds and layers): no gap."
    return f"Undefined, and a gap in the figure, at {len(places)} of {n_all} places: {'; '.join(places)}."
