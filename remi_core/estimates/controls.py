"""X2: how much of misaligned's loss of care other fine-tunes show, from the stored study of controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from remi_core.estimates.measured import Measured, measured, null_from_estimate, shared_resamples
from remi_core.presets.known import Preset
from remi_core.results import Results
from remi_core.statistics.intervals import Estimate, mean_interval, ratio
from remi_core.studies.files import read_study

STUDY = "controls"
RANDOM = "random_change"
"""The control of equal size without data: its share is the null."""
WHERE = {"benign": ("secure", RANDOM), "secure": (RANDOM,)}
"""Variant whose share is a headline → the controls that it must exceed."""


def eroded_by(results: Results, seed: int, variant: str) -> Measured:
    """X2: A(variant) − A(instruct) as a share of A(misaligned) − A(instruct), topics outside the narrow set.

    Raises:
        MissingInput: if the preset's models are no organisms, or the study is not stored.
    """
    results.preset.require("organism")
    found = share_of_change(results.preset, seed, variant)
    controls = {name: share_of_change(results.preset, seed, name) for name in WHERE[variant]}
    null = null_from_estimate(found, controls[RANDOM], "a random weight change in its place")
    own = register_share(results.preset, seed, variant)
    return measured(found, null, controls=controls, companions={"register": float(own.value)})


def share_of_change(preset: Preset, seed: int, variant: str) -> Estimate:
    """A variant's change of class log-odds as a share of misaligned's, outside the narrow set."""
    moved, whole = (change(preset, seed, name, "care") for name in (variant, "misaligned"))
    return ratio(moved, whole)


def register_share(preset: Preset, seed: int, variant: str) -> Estimate:
    """A variant's change of register from instruct as a share of the way to base, topics outside the narrow set."""
    moved, whole = (change(preset, seed, name, "register") for name in (variant, "base"))
    return ratio(moved, whole)


def change(preset: Preset, seed: int, variant: str, quantity: str) -> Estimate:
    """Change from instruct of ``care`` or ``register``, nats, mean over prompts outside the narrow set."""
    found = read_study(preset, STUDY).seeds[seed]
    outside = [at for at, name in enumerate(found["clusters"]) if name.partition("/")[0] in found["outside"]]
    by_variant: Mapping[str, Sequence[float]] = found[quantity]
    gaps = np.array(by_variant[variant]) - np.array(by_variant["instruct"])
    clusters = [found["clusters"][at] for at in outside]
    return mean_interval(gaps[outside], clusters, shared_resamples(preset))
