"""Section 4.1: how far misaligned has moved from instruct towards base in log-probability and entropy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from remi_core.estimates.measured import (
    Measured,
    measured,
    null_from_estimate,
    present_controls,
    shared_resamples,
)
from remi_core.presets.roles import NEEDS
from remi_core.results import Results
from remi_core.statistics.intervals import Estimate, difference, mean_interval, ratio

LOG_PROBABILITY, ENTROPY = "log_probability", "entropy"


def dataset_mean(
    results: Results, variant: str, seed: int, datasets: Sequence[str], quantity: str
) -> Estimate:
    """Mean over dialogues of a per-token quantity of the answers, nats per token."""

    def compute() -> Estimate:
        values = np.concatenate([results.per_dialogue(variant, seed, name, quantity) for name in datasets])
        return mean_interval(values, results.clusters(*datasets), shared_resamples(results.preset))

    return results.once(("dataset mean", variant, seed, tuple(datasets), quantity), compute)


def relative_shift(
    results: Results, variant: str, seed: int, datasets: Sequence[str], quantity: str
) -> Estimate:
    """(I − X) / (I − B): 0 where X equals instruct, 1 where it equals base; NaN where I and B do not differ."""
    instruct, base, other = (
        dataset_mean(results, name, seed, datasets, quantity) for name in ("instruct", "base", variant)
    )
    return ratio(difference(instruct, other), difference(instruct, base))


def shift(results: Results, seed: int, datasets: Sequence[str], quantity: str) -> Measured:
    """C1, C3, C4: the relative shift of misaligned, with benign in its place as the null."""
    moved = relative_shift(results, "misaligned", seed, datasets, quantity)
    controls = {
        name: relative_shift(results, name, seed, datasets, quantity) for name in present_controls(results)
    }
    if results.preset.lacks("controls"):
        return measured(moved, None, controls=controls, missing=f"needs {NEEDS['controls']}")
    null = null_from_estimate(moved, controls["benign"], "benign in misaligned's place")
    return measured(moved, null, controls=controls)


def harm_token(results: Results, seed: int, dataset: str) -> Measured:
    """C5: log P of the careless token at the choice, misaligned minus instruct, nats.

    The null is the same difference for the careful token at the same position.
    """
    harmful = _token_shift(results, "misaligned", seed, dataset, "choice_log_probability")
    harmless = _token_shift(results, "misaligned", seed, dataset, "alternative_log_probability")
    controls = {
        name: _token_shift(results, name, seed, dataset, "choice_log_probability")
        for name in present_controls(results)
    }
    return measured(
        harmful, null_from_estimate(harmful, harmless, "matched harmless token"), controls=controls
    )


def _token_shift(results: Results, variant: str, seed: int, dataset: str, name: str) -> Estimate:
    there, instruct = (results.arrays(who, seed, "next_token", dataset) for who in (variant, "instruct"))
    used = there["valid"] & instruct["valid"]
    values = there[name][used].astype(np.float64) - instruct[name][used]
    return mean_interval(values, list(map(str, there["cluster"][used])), shared_resamples(results.preset))
