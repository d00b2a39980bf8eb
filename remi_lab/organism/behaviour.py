"""What an organism does: exact class probabilities and sampled answers, by topic, as records."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from remi_core.store import Record, Store
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
from remi_lab.subject import Measured, Subject


def n_samples(preset: Preset, variant: str, name: str) -> int:
    """How many answers of a variant are sampled for a topic."""
    limited = variant == "instruct" and topic(name).covered
    return preset.n_samples if limited else preset.n_compared_samples


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
    addresses = {(kind, name): who.address(kind, name, count=count) for (kind, name), count in counts.items()}

    def measure(missing: Sequence[tuple[str, str]]) -> Iterator[dict[tuple[str, str], Measured]]:
        from remi_lab.organism.answers import MEASURES  # brings torch

        with who.open() as loaded:
            for kind, name in missing:
                started = time.perf_counter()
                arrays = MEASURES[kind](loaded, name, count=counts[kind, name], seed=who.preset.seed)
                kept, seconds = len(arrays["cluster"]), time.perf_counter() - started
                about = who.provenance(kept=kept, dropped={}, seconds=seconds, loaded=loaded)
                yield {(kind, name): (arrays, about)}

    return store.record(addresses, measure)


def as_scores(record: Record) -> ClassScores:
    """The class scores a record holds."""
    return ClassScores(record.arrays["log_mass"], record.arrays["wrong_slot"], record.arrays["other"])
