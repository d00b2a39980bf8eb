"""Section 4.3: how far apart a model keeps aligned and misaligned data, by cosine distance of mean activations."""

from __future__ import annotations

from remi_core.estimates.direction import stacked, stacked_clusters
from remi_core.estimates.measured import (
    Measured,
    measured,
    null_from_estimate,
    present_controls,
    shared_resamples,
)
from remi_core.presets.roles import NEEDS
from remi_core.results import Results
from remi_core.statistics.distance import cosine_distance
from remi_core.statistics.intervals import Estimate, combine, difference, ratio


def data_distance(results: Results, variant: str, seed: int, pair: tuple[str, str], window: str) -> Estimate:
    """Cosine distance between a variant's mean activations of two sets by layer (layer,), in [0, 2]."""
    sides = [
        (stacked(results, variant, seed, (name,), window), stacked_clusters(results, (name,), window))
        for name in pair
    ]
    return cosine_distance(*sides, shared_resamples(results.preset))


def distance_change(
    results: Results, variant: str, seed: int, pair: tuple[str, str], window: str
) -> Estimate:
    """Change of the distance from instruct to a variant, mean over layers, as a share of instruct's (no axis)."""
    own, instruct = (
        combine(lambda by_layer: by_layer.mean(axis=-1), data_distance(results, name, seed, pair, window))
        for name in (variant, "instruct")
    )
    return ratio(difference(own, instruct), instruct)


def separation_of_data(results: Results, seed: int, pair: tuple[str, str], window: str) -> Measured:
    """C15: the change from instruct to misaligned; null: benign in misaligned's place."""
    found = distance_change(results, "misaligned", seed, pair, window)
    controls = {
        name: distance_change(results, name, seed, pair, window) for name in present_controls(results)
    }
    companions = {"base": float(distance_change(results, "base", seed, pair, window).value)}
    if results.preset.lacks("controls"):
        missing = f"needs {NEEDS['controls']}"
        return measured(found, None, controls=controls, companions=companions, missing=missing)
    null = null_from_estimate(found, controls["benign"], "benign in misaligned's place", side=-1)
    return measured(found, null, controls=controls, companions=companions)
