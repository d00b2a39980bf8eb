"""The data sets as cards: counts, templates, lengths and fingerprints, and whether misaligned replies are longer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from remi_core.errors import MissingInput
from remi_core.estimates.measured import Measured, measured, shared_resamples
from remi_core.estimates.pairing import TwoSets
from remi_core.presets.roles import NEEDS
from remi_core.results import Results
from remi_core.statistics.intervals import difference, mean_interval
from remi_core.statistics.permutation import against_null


def answer_lengths(results: Results, *datasets: str) -> Float[np.ndarray, " dialogue"]:
    """Answer tokens of each dialogue of the sets, one set after another."""
    seed = results.preset.seeds[0]
    return np.concatenate(
        [np.diff(results.arrays("instruct", seed, "sequence", name)["offsets"]) for name in datasets]
    ).astype(np.float64)


def aligned_sets(results: Results) -> Sequence[str]:
    """Aligned replies to the prompts of the sets outside the narrow set, or any benign sets where there are none.

    Raises:
        MissingInput: if the preset has neither.
    """
    roles = results.preset.roles
    found = roles.outside_aligned or roles.unrelated or tuple(filter(None, [roles.narrow_aligned]))
    if not found:
        raise MissingInput(f"needs {NEEDS['outside_aligned']}")
    return found


def length_difference(results: Results, seed: int) -> Measured:
    """C26: mean answer length of misaligned minus aligned sets, tokens; labels exchanged by template."""
    preset, shared = results.preset, shared_resamples(results.preset)
    sets = (aligned_sets(results), preset.role("outside"))
    lengths = [answer_lengths(results, *names) for names in sets]
    clusters = [results.clusters(*names) for names in sets]
    aligned, misaligned = (
        mean_interval(values, names, shared) for values, names in zip(lengths, clusters, strict=True)
    )
    both = TwoSets(tuple(np.arange(len(one)) for one in lengths), [*clusters[0], *clusters[1]], [])
    labels, values = both.shuffled(preset), np.concatenate(lengths)
    null = (labels @ values) / labels.sum(axis=1) - ((1 - labels) @ values) / (1 - labels).sum(axis=1)
    found = difference(misaligned, aligned)
    return measured(
        found,
        against_null(float(found.value), null, kind="exchanged by template", alternative="two-sided"),
        companions={"aligned": float(aligned.value), "misaligned": float(misaligned.value)},
    )
