"""Section 4.4, further pairs, as tables: largest cosine of every pair at two layers, with the same maximum's nulls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from remi_core.estimates.components import WIDE, Pair, narrow_pairs, shuffled_pairs, two_layers
from remi_core.estimates.subspace import residuals
from remi_core.presets.known import Preset
from remi_core.results import Results
from remi_core.statistics.geometry import overlap_and_largest, top_components
from remi_core.statistics.overlap import random_overlaps


def many_pairs(preset: Preset) -> list[Pair]:
    """Two benign pairs first, the null, then insecure code with every other set that has a role."""
    aligned = preset.roles.outside_aligned
    benign = [tuple(preset.roles.unrelated), (preset.roles.unrelated or ("",))[:1] + aligned[:1]]
    # A user's first aligned set may have both roles: a set beside itself is no pair.
    return list(dict.fromkeys([pair for pair in benign if len(set(pair)) == 2] + narrow_pairs(preset)))


def cosine_table(results: Results, pairs: Sequence[Pair], *, window: str) -> pd.DataFrame:
    """Columns pair, components, layer, seed, cosine: the largest |cos| of centred components, whatever their sign."""
    rows = []
    for seed in results.preset.seeds:
        for layer in two_layers(results):
            bases = {
                name: top_components(
                    residuals(results, seed, name, window=window, layer=layer).rows, WIDE, centred=True
                ).vectors
                for name in dict.fromkeys(name for pair in pairs for name in pair)
            }
            for pair in pairs:
                for count in (results.preset.n_components, WIDE):
                    largest = overlap_and_largest(*(bases[name][:count] for name in pair))[1]
                    rows.append((" × ".join(pair), count, layer, seed, float(largest)))
    return pd.DataFrame(rows, columns=["pair", "components", "layer", "seed", "cosine"])


def maximum_nulls(results: Results, pair: Pair, *, seed: int, window: str) -> pd.DataFrame:
    """Columns kind, components, layer, low, high: central 95 % of the same largest |cos| where nothing is shared.

    Random subspaces; and the pair's own activations with instruct and base of different dialogues subtracted.
    """
    rows, counts = [], (results.preset.n_components, WIDE)
    width = results.activations("instruct", seed, pair[0], window).shape[-1]
    for layer in two_layers(results):
        shuffled = shuffled_pairs(results, seed, pair, layer=layer, window=window)
        for at, count in enumerate(counts):
            random = random_overlaps(width, count, seed=results.preset.seed)[:, 1]
            for kind, draws in (("random subspaces", random), ("shuffled pairs", shuffled[:, at])):
                low, high = np.quantile(draws, [0.025, 0.975])
                rows.append((kind, count, layer, float(low), float(high)))
    return pd.DataFrame(rows, columns=["kind", "components", "layer", "low", "high"])


def wide_table(table: pd.DataFrame, nulls: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """One row a pair, one column for each number of components and layer, nulls as the last rows, low to high."""
    columns = list(dict.fromkeys(zip(table["components"], table["layer"], strict=True)))
    names = {key: f"{key[0]} components, layer {key[1]}" for key in sorted(columns)}
    own = table[table["seed"] == seed].set_index(["pair", "components", "layer"])["cosine"]
    rows = []
    for pair in dict.fromkeys(table["pair"]):
        values = {name: f"{own.loc[pair, *key]:.2f}" for key, name in names.items()}
        rows.append({"pair": pair, **values})
    ends = nulls.set_index(["kind", "components", "layer"])
    for kind in dict.fromkeys(nulls["kind"]):
        found = {name: ends.loc[(kind, *key)] for key, name in names.items()}
        rows.append(
            {"pair": f"null: {kind}"}
            | {name: f"{one.low:.2f} to {one.high:.2f}" for name, one in found.items()}
        )
    return pd.DataFrame(rows)
