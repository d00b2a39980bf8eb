"""H2 from the stored study: influence of training dialogues on held-out log-odds, and the real steps that check it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from remi_core.errors import MissingInput
from remi_core.estimates.gradients import mean_gradient_cosine
from remi_core.estimates.matched import STUDY, values_of
from remi_core.estimates.measured import Measured, measured, set_resamples
from remi_core.estimates.opposition_rule import OWN, Interval, Parts, outcome
from remi_core.presets.known import Preset
from remi_core.results import Results
from remi_core.statistics.bootstrap import ClusterResamples, index_clusters
from remi_core.statistics.intervals import Estimate, cluster_estimate, difference, mean_interval
from remi_core.statistics.permutation import against_null
from remi_core.studies.files import read_study

INSECURE = "misaligned"
CONTROLS = ("educational", "secure", "benign")
SETS = (INSECURE, *CONTROLS)


def study_of(preset: Preset, seed: int) -> Mapping[str, object]:
    """What the study holds of one seed.

    Raises:
        MissingInput: if the preset's models are no organisms, or the study is not stored.
    """
    preset.require("organism")
    return read_study(preset, STUDY).seeds[seed]


def resamples_of(found: Mapping[str, object], preset: Preset) -> ClusterResamples:
    """Resamples of training and held-out templates; each topic keeps its number."""
    held: dict[str, list[str]] = {}
    for name in found["held_out"]:
        held.setdefault(name.partition("/")[0], []).append(name)
    return set_resamples(preset, *found["trained"].values(), *held.values())


def influence_of(found: Mapping[str, object], name: str, resamples: ClusterResamples) -> Estimate:
    """Mean influence of a set on the held-out prompts, nats per unit of rate, over both kinds of template."""
    return crossed_mean(
        values_of(found["influence"][name]), found["trained"][name], found["held_out"], resamples
    )


def crossed_mean(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], resamples: ClusterResamples
) -> Estimate:
    """Mean of a matrix whose rows and columns both come in clusters, which are resampled together."""
    names, index = index_clusters([*rows, *columns])
    first, second = index[: len(rows)], index[len(rows) :]

    def mean(weights: np.ndarray) -> np.ndarray:
        row, column = weights[:, first], weights[:, second]
        return ((row @ values) * column).sum(1) / row.sum(1) / column.sum(1)

    return cluster_estimate(mean, names, resamples)


def change_after(found: Mapping[str, object], name: str, steps: int, resamples: ClusterResamples) -> Estimate:
    """Mean change of the held-out log-odds after real steps on a set, nats."""
    return mean_interval(np.array(found["changes"][name][str(steps)]), found["held_out"], resamples)


def steps_of(found: Mapping[str, object]) -> tuple[int, ...]:
    """The numbers of real steps that were made."""
    return tuple(int(steps) for steps in found["changes"][INSECURE])


def quantities(by_set: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """Insecure's own value, and its excess over each control."""
    own = by_set[INSECURE]
    return {OWN: own} | {name: difference(own, by_set[name]) for name in CONTROLS}


def parts(found: Mapping[str, object], cosine: Interval | None, preset: Preset) -> Parts:
    """The intervals that H2's rule reads, of one seed."""
    resamples = resamples_of(found, preset)
    predicted = {name: influence_of(found, name, resamples) for name in SETS}
    made = {
        steps: {name: change_after(found, name, steps, resamples) for name in SETS}
        for steps in steps_of(found)
    }
    return Parts(
        cosine=cosine,
        influence=_intervals(predicted),
        steps={steps: _intervals(by_set) for steps, by_set in made.items()},
    )


def _intervals(by_set: Mapping[str, Estimate]) -> dict[str, Interval]:
    return {name: (float(one.low), float(one.high)) for name, one in quantities(by_set).items()}


def published_part(results: Results, seed: int) -> Measured | None:
    """Part (i), the cosine of mean gradients; None where one of them has no length above 0."""
    framed, narrow = (results.preset.role(role) for role in ("framed", "narrow"))
    try:
        return mean_gradient_cosine(results, seed, framed, narrow)
    except MissingInput:
        return None


def opposition_parts(results: Results, seed: int) -> Parts:
    """Everything that H2's rule reads of one seed.

    Raises:
        MissingInput: if the preset's models are no organisms, or the study is not stored.
    """
    found, cosine = study_of(results.preset, seed), published_part(results, seed)
    return parts(found, None if cosine is None else (cosine.low, cosine.high), results.preset)


def opposition(results: Results, seed: int) -> Measured:
    """H2: the influence of insecure code on held-out log-odds, and what the whole rule says of the claim.

    The null flips the sign of each training template's influence by a fair coin.
    """
    preset, found = results.preset, study_of(results.preset, seed)
    resamples, cosine = resamples_of(found, preset), published_part(results, seed)
    ends = None if cosine is None else (cosine.low, cosine.high)
    by_set = {name: influence_of(found, name, resamples) for name in SETS}
    decided, why = outcome(parts(found, ends, preset))
    companions = {name: float(one.value) for name, one in by_set.items() if name != INSECURE}
    if cosine is not None:
        companions["(i) cosine"] = cosine.value
    own = by_set[INSECURE]
    null = against_null(float(own.value), _flipped(found, preset), kind="signs of templates flipped")
    return Measured(**vars(measured(own, null, companions=companions)) | {"outcome": decided, "why": why})


def _flipped(found: Mapping[str, object], preset: Preset) -> np.ndarray:
    names, index = index_clusters(found["trained"][INSECURE])
    coins = np.random.default_rng(preset.seed).integers(0, 2, (preset.n_permutations, len(names)))
    return (1 - 2 * coins[:, index]) @ values_of(found["influence"][INSECURE]).mean(1) / len(index)
