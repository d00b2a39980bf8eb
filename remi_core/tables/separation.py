"""Section 4.3 as tables: how far each variant separates from instruct, held out, and the released score beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from remi_core.estimates.direction import contrast_of, separation, stacked, stacked_clusters
from remi_core.estimates.measured import present_controls, shared_resamples
from remi_core.results import Results
from remi_core.statistics.projection import projection_in_sample
from remi_core.statistics.separation import measure_separation, released_separation, separation_null
from remi_core.tables.direction import Reading


def separation_table(results: Results, readings: Sequence[Reading], *, seed: int) -> pd.DataFrame:
    """Columns window, variant, layer, d, d_low, d_high, auroc: d′ of misaligned and every control from instruct.

    Negative where the variant lies towards base. The axis is fitted on other templates than it is used on.
    """
    parts = []
    for reading in readings:
        for variant in ["misaligned", *present_controls(results)]:
            found = separation(results, variant, seed, reading.datasets, reading.window)
            ends = {"d": found.d_prime.value, "d_low": found.d_prime.low, "d_high": found.d_prime.high}
            layers = np.arange(len(found.d_prime.value))
            names = {"window": reading.name, "variant": variant, "layer": layers}
            parts.append(pd.DataFrame(names | ends | {"auroc": found.auroc.value}))
    return pd.concat(parts, ignore_index=True)


def separation_by_seed(results: Results, readings: Sequence[Reading]) -> pd.DataFrame:
    """Columns window, variant, layer, seed, d: the values of every seed, without intervals."""
    preset, parts = results.preset, []
    none = shared_resamples(preset).with_one_draw()  # a dot needs no interval
    for reading in readings:
        clusters = stacked_clusters(results, reading.datasets, reading.window)
        for variant in ["misaligned", *present_controls(results)]:
            for seed in preset.seeds:
                contrast = contrast_of(results, variant, seed, reading.datasets, reading.window)
                d_prime = measure_separation(contrast, clusters, none, n_folds=preset.n_folds).d_prime.value
                names = {"window": reading.name, "variant": variant, "seed": seed}
                parts.append(pd.DataFrame(names | {"layer": np.arange(len(d_prime)), "d": d_prime}))
    return pd.concat(parts, ignore_index=True)


def exchange_null(results: Results, readings: Sequence[Reading], *, seed: int) -> pd.DataFrame:
    """Columns window, layer, low, high: d′ when misaligned and instruct exchange places in half of the templates."""
    preset, parts = results.preset, []
    for reading in readings:
        draws = separation_null(
            contrast_of(results, "misaligned", seed, reading.datasets, reading.window),
            stacked_clusters(results, reading.datasets, reading.window),
            n_permutations=preset.n_permutations,
            n_folds=preset.n_folds,
            seed=preset.seed,
        )
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        parts.append(
            pd.DataFrame({"window": reading.name, "layer": np.arange(len(low)), "low": low, "high": high})
        )
    return pd.concat(parts, ignore_index=True)


def released_table(results: Results, reading: Reading, table: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Columns layer, released score, half of held-out d′, AUROC, of misaligned from instruct.

    The released score is in sample and divides by the sum of the two standard deviations; ours pools
    dialogues where the released script pools tokens. ``table`` is that of ``separation_table``.
    """
    base, instruct, other = (
        stacked(results, name, seed, reading.datasets, reading.window)
        for name in ("base", "instruct", "misaligned")
    )
    projected = (projection_in_sample(values, base, instruct) for values in (instruct, other))
    ours = table[(table["window"] == reading.name) & (table["variant"] == "misaligned")].sort_values("layer")
    return pd.DataFrame(
        {
            "layer": ours["layer"].to_numpy(),
            "released score, in sample": released_separation(*projected),
            "half of d′, held out": ours["d"].to_numpy() / 2,
            "AUROC, held out": ours["auroc"].to_numpy(),
        }
    )
