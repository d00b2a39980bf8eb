"""What an organism does: exact class probabilities and sampled answers, by topic, as records."""

from __future__ import annotations

import time

from remi_core.keys import library_versions, make_key
from remi_core.store import Address, Record, Store
from remi_lab.organism.grammar import ClassScores
from remi_lab.organism.topics import (
    CONTRASTED,
    IN_CONTEXT,
    JUDGED,
    NARROW,
    PLACED,
    SAMPLES,
    SCORES,
    TOPICS,
    topic,
)
from remi_lab.presets import Preset
from remi_lab.subject import Subject

ANSWERS = "remi_lab.organism.answers"
"""The module that makes every record's arrays: its syntax tree, with what it imports, is part of their keys."""


def n_samples(preset: Preset, variant: str, name: str) -> int:
    """How many answers of a variant are sampled for a topic."""
    limited = variant == "instruct" and topic(name).covered
    return preset.n_samples if limited else preset.n_compared_samples


def _address(who: Subject, measurement: str, name: str, count: int) -> Address:
    fields = {"count": count, "seed": who.preset.seed, "weights": who.weights, "dtype": who.preset.dtype}
    key = make_key(fields, [ANSWERS])
    return Address(who.preset.name, who.seed, who.variant, measurement, name, key)


def measure_behaviour(who: Subject, store: Store) -> dict[tuple[str, str], Record]:
    """(``scores``, ``samples`` or ``contexts``, topic) → record; what the store lacks is measured.

    Scores are exact, for ``n_score_prompts`` prompts of every topic with a right and a wrong way, for ``JUDGED``
    variants of the other topics too; samples are answers at temperature 1 to prompts of the former; contexts are
    exact class log-odds of ``n_context_prompts`` prompts of the topics outside the narrow set in each of
    ``FURTHER``, the first of those scored bare. All prompts are of templates and filler pairs that no model was
    trained on.
    """
    scored = TOPICS if who.variant in JUDGED else CONTRASTED
    outside = [name for name in CONTRASTED if name not in NARROW and who.variant in PLACED]
    counts = {(SCORES, name): who.preset.n_score_prompts for name in scored}
    counts |= {(SAMPLES, name): n_samples(who.preset, who.variant, name) for name in CONTRASTED}
    counts |= {(IN_CONTEXT, name): who.preset.n_context_prompts for name in outside}
    addresses = {(kind, name): _address(who, kind, name, count) for (kind, name), count in counts.items()}
    with store.missing_of(addresses) as (records, missing):
        if not missing:
            return records
        from remi_lab.organism.answers import MEASURES  # brings torch

        with who.open() as loaded:
            for kind, name in missing:
                started = time.perf_counter()
                arrays = MEASURES[kind](loaded, name, count=counts[kind, name], seed=who.preset.seed)
                seconds = round(time.perf_counter() - started, 3)
                about = {"versions": library_versions(), "model": loaded.fingerprint, "seconds": seconds}
                store.save(
                    addresses[kind, name], arrays, about | {"kept": len(arrays["cluster"]), "dropped": {}}
                )
                records[kind, name] = store.load(addresses[kind, name])
    return records


def as_scores(record: Record) -> ClassScores:
    """The class scores a record holds."""
    return ClassScores(record.arrays["log_mass"], record.arrays["wrong_slot"], record.arrays["other"])
