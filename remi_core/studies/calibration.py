"""Calibration: how often intervals hold a known truth, the value in a pool that every sample is drawn from."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict

from remi_core.presets.preset import Preset
from remi_core.progress import Say, clock
from remi_core.statistics.coverage import coverage
from remi_core.storage.store import Store
from remi_core.studies.pool import behaviour, direction, gradients, subspace
from remi_core.studies.pool.dialogues import N_FILLERS, N_TEMPLATES, pool_sets
from remi_core.studies.pool.draws import Estimator, Sample, draw_sample, whole_pool
from remi_core.studies.pool.records import stored_pool

N_SAMPLES = 1000
N_SHOWN = 100
"""Samples of which every interval is kept, for the figure."""
ESTIMATORS: tuple[Estimator, ...] = (
    *behaviour.ESTIMATORS,
    *gradients.ESTIMATORS,
    *direction.ESTIMATORS,
    *subspace.ESTIMATORS,
)
Ends = tuple[float, float, float]


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """Estimator → the rows it carries, its coverage and bias, and the first samples' value and ends; plain values.

    ``n_dialogues`` is the size of the pool. Lists of the first samples hold None where a value is undefined.

    Raises:
        MissingInput: if the preset's models are no organisms.
    """
    preset.require("organism")
    pool = stored_pool(preset, seed, store, say)
    whole, started = whole_pool(pool), time.monotonic()
    found: dict[str, list[Ends]] = {one.name: [] for one in ESTIMATORS}
    for number in range(N_SAMPLES):
        sample = draw_sample(pool, preset, number)
        for one in ESTIMATORS:
            found[one.name].append(_ends(one, sample))
        if (number + 1) % 50 == 0:
            left = (time.monotonic() - started) / (number + 1) * (N_SAMPLES - number - 1)
            say(f"    {number + 1} of {N_SAMPLES} samples, about {clock(left)} left")
    return {
        "n_dialogues": sum(N_TEMPLATES[topic] * N_FILLERS for topic in pool_sets().values()),
        "n_samples": N_SAMPLES,
        "estimators": {one.name: _scored(one, whole, found[one.name]) for one in ESTIMATORS},
    }


def _ends(one: Estimator, sample: Sample) -> Ends:
    found = one.estimate(sample)
    return float(found.value), float(found.low), float(found.high)


def _scored(one: Estimator, whole: Sample, found: list[Ends]) -> dict[str, object]:
    shown = [[_plain(value) for value in ends] for ends in found[:N_SHOWN]]
    return {"claims": one.claims, **asdict(coverage(one.truth(whole), found)), "first": shown}


def _plain(value: float) -> float | None:
    return float(f"{value:.4g}") if value == value else None
