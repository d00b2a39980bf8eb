"""Section 4.4 as tables: component cosines, overlap between its floor and ceiling, and the spectrum behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from remi_core.datasets import dataset_names
from remi_core.estimates.measured import shared_resamples
from remi_core.estimates.subspace import overlap, residuals, split_halves
from remi_core.presets.known import Preset
from remi_core.results import Results
from remi_core.statistics.geometry import (
    component_cosines,
    overlap_and_largest,
    participation_ratio,
    top_components,
)
from remi_core.statistics.overlap import VectorSet, measure_scree, random_overlaps

Pair = tuple[str, str]
TREATMENTS = {"centred": True, "uncentred": False}


def further_pairs(preset: Preset) -> list[Pair]:
    """Pairs shown beside the headline and its null: same completions, two harmful, two benign, one topic.

    A pair that a preset lacks is left out, and so is one that is shown already.
    """
    roles = preset.roles
    harmful, benign = (*roles.outside[:2], "", "")[:2], (*roles.outside_aligned[:2], "", "")[:2]
    pairs = [
        (roles.narrow, roles.framed),
        (roles.narrow, harmful[0]),
        (roles.narrow_aligned, benign[1]),
        (benign[1], harmful[1]),
    ]
    return _new_pairs(pairs, shown=[roles.shared, roles.unrelated])


def _new_pairs(pairs: Sequence[Pair], *, shown: Sequence[tuple[str, ...]]) -> list[Pair]:
    """The pairs of two different sets, each once whatever its order, without those shown."""
    new: dict[frozenset[str], Pair] = {frozenset(pair): pair for pair in reversed(pairs)}
    seen = {frozenset(pair) for pair in shown}
    return [pair for key, pair in reversed(new.items()) if len(key) == 2 and all(pair) and key not in seen]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where instruct − base is read: one seed, window and layer."""

    seed: int
    window: str
    layer: int


def last_layer(results: Results) -> int:
    """Number of the last block, counted from 0."""
    arrays = results.arrays(
        "instruct", results.preset.seeds[0], "activations", dataset_names(results.preset)[0]
    )
    return arrays["mean"].shape[2] - 1


def pair_cosines(
    results: Results, pair: Pair, place: Place, *, centred: bool = True
) -> Float[np.ndarray, "a b"]:
    """Absolute cosines between the top components of two sets, in [0, 1]; centred is as published."""
    return component_cosines(*_bases(results, pair, place, centred))


def largest_table(results: Results, pairs: Sequence[Pair], place: Place) -> pd.DataFrame:
    """One row a pair, one column a seed: the largest absolute cosine of centred components.

    Two columns more: central 95 % of the same largest cosine between random subspaces.
    """
    rows = []
    for pair in pairs:
        row: dict[str, object] = {"pair": " × ".join(pair)}
        for seed in results.preset.seeds:
            at = Place(seed=seed, window=place.window, layer=place.layer)
            row[f"seed {seed}"] = float(pair_cosines(results, pair, at).max())
        rows.append(row)
    null = _floor(results, place)[:, 1]
    low, high = np.quantile(null, [0.025, 0.975])
    return pd.DataFrame(rows).assign(**{"random, low": low, "random, high": high})


def similarity_by_pair(results: Results, pairs: Sequence[Pair], place: Place) -> pd.DataFrame:
    """Columns pair, treatment, similarity, low, high, floor_low, floor_high, ceiling_low, ceiling_high.

    Floor: central 95 % of random subspaces. Ceiling: the same of split halves of both sets.
    """
    return pd.DataFrame(
        [
            {
                "pair": " × ".join(pair),
                "treatment": treatment,
                **_between(results, pair, place, centred=centred),
            }
            for pair in pairs
            for treatment, centred in TREATMENTS.items()
        ]
    )


def similarity_by_seed(results: Results, pairs: Sequence[Pair], place: Place) -> pd.DataFrame:
    """Columns pair, treatment, seed, similarity: the values of every seed."""
    rows = []
    for pair in pairs:
        for treatment, centred in TREATMENTS.items():
            for seed in results.preset.seeds:
                at = Place(seed=seed, window=place.window, layer=place.layer)
                found = overlap_and_largest(*_bases(results, pair, at, centred))[0]
                rows.append((" × ".join(pair), treatment, seed, float(found)))
    return pd.DataFrame(rows, columns=["pair", "treatment", "seed", "similarity"])


def similarity_by_layer(
    results: Results, pairs: Sequence[Pair], layers: Sequence[int], *, seed: int, window: str
) -> pd.DataFrame:
    """The columns of ``similarity_by_pair`` and layer, at several layers; intervals only where centred.

    Refitting components in every resample is slow, and the centred overlap is the one that the claim is about.
    """
    rows = []
    for pair in pairs:
        for layer in layers:
            place = Place(seed=seed, window=window, layer=layer)
            for treatment, centred in TREATMENTS.items():
                found = _between(results, pair, place, centred=centred, interval=centred)
                rows.append({"pair": " × ".join(pair), "treatment": treatment, "layer": layer, **found})
    return pd.DataFrame(rows)


def spread_layers(last: int, *, most: int = 4) -> list[int]:
    """At most ``most`` layers, evenly spread, the last one among them."""
    return sorted({(last + 1) * (at + 1) // most - 1 for at in range(most)} & set(range(last + 1)))


def _between(
    results: Results, pair: Pair, place: Place, *, centred: bool, interval: bool = True
) -> dict[str, float]:
    if interval:
        found = overlap(
            results, place.seed, pair, window=place.window, layer=place.layer, centred=centred
        ).overlap
        value, low, high = float(found.value), float(found.low), float(found.high)
    else:
        value, low, high = (
            float(overlap_and_largest(*_bases(results, pair, place, centred))[0]),
            np.nan,
            np.nan,
        )
    halves = [
        split_halves(results, place.seed, name, window=place.window, layer=place.layer, centred=centred)[:, 0]
        for name in pair
    ]
    floor = np.quantile(_floor(results, place)[:, 0], [0.025, 0.975])
    ceiling = np.quantile(np.concatenate(halves), [0.025, 0.975])
    ends = {
        "floor_low": floor[0],
        "floor_high": floor[1],
        "ceiling_low": ceiling[0],
        "ceiling_high": ceiling[1],
    }
    return {"similarity": value, "low": low, "high": high} | {name: float(end) for name, end in ends.items()}


def _rows(results: Results, dataset: str, place: Place) -> VectorSet:
    return residuals(results, place.seed, dataset, window=place.window, layer=place.layer)


def _bases(results: Results, pair: Pair, place: Place, centred: bool) -> list[np.ndarray]:
    count = results.preset.n_components
    return [top_components(_rows(results, name, place).rows, count, centred=centred).vectors for name in pair]


def _floor(results: Results, place: Place) -> Float[np.ndarray, "draw 2"]:
    shape = results.arrays("instruct", place.seed, "activations", dataset_names(results.preset)[0])[
        "mean"
    ].shape
    return random_overlaps(shape[-1], results.preset.n_components, seed=results.preset.seed)


@dataclass(frozen=True, eq=False)
class Screes:
    """Share of variance of each component by set, with intervals."""

    shares: dict[str, Float[np.ndarray, " component"]]
    intervals: dict[str, Float[np.ndarray, "component 2"]]


def screes(results: Results, datasets: Sequence[str], place: Place, *, n_components: int = 10) -> Screes:
    """The leading centred components of several sets; fewer where a set has fewer rows or dimensions."""
    sets = {name: _rows(results, name, place) for name in datasets}
    count = min(n_components, *(min(one.rows.shape) for one in sets.values()))
    resamples = shared_resamples(results.preset)
    found = {
        name: measure_scree(one, resamples, n_components=count, centred=True) for name, one in sets.items()
    }
    return Screes(
        {name: one.value for name, one in found.items()},
        {name: np.stack([one.low, one.high], axis=1) for name, one in found.items()},
    )


def participation_table(results: Results, datasets: Sequence[str], place: Place) -> pd.DataFrame:
    """One row a set: effective dimensions of its spectrum, and coordinates that each top component uses."""
    rows = []
    for name in datasets:
        values = _rows(results, name, place).rows
        found = top_components(values, results.preset.n_components, centred=True)
        used = participation_ratio(np.square(found.vectors))
        columns = {f"coordinates in component {at + 1}": float(one) for at, one in enumerate(used)}
        effective = float(participation_ratio(found.share))
        rows.append({"set": name, "dialogues": len(values), "effective dimensions": effective, **columns})
    return pd.DataFrame(rows).assign(**{"width of the model": values.shape[1]})
