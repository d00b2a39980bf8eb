"""What an organism does: exact class probabilities and sampled answers, by topic, as records."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from remi_core.fingerprint import library_versions, make_key
from remi_core.measure import Subject
from remi_core.organism.contexts import FURTHER, open_contexts
from remi_core.organism.grammar import Prompt, prompts
from remi_core.organism.sampling import Sample, sample_answers
from remi_core.organism.scoring import ClassScores, score_prompts
from remi_core.organism.topics import CONTRASTED, NARROW, TOPICS, topic
from remi_core.presets import Preset
from remi_core.store import Address, Record, Store
from remi_core.variants import TRIPLET

SCORES, SAMPLES, IN_CONTEXT = "scores", "samples", "contexts"
CODE = {
    SCORES: "remi_core.organism.scoring",
    SAMPLES: "remi_core.organism.sampling",
    IN_CONTEXT: "remi_core.organism.scoring",
}
"""Measurement → the module whose syntax tree, with what it imports, is part of its key, beside the contexts'."""
JUDGED = ("base", "instruct")
"""Variants whose competence is held against thresholds."""
PLACED = (*TRIPLET, "secure")
"""Variants whose answers are also scored in other contexts: the paper's three and the closest control."""
VERDICTS = ("careful", "careless", "both", "wrong slot", "other")


def n_samples(preset: Preset, variant: str, name: str) -> int:
    """How many answers of a variant are sampled for a topic."""
    limited = variant == "instruct" and topic(name).covered
    return preset.n_samples if limited else preset.n_compared_samples


def _address(who: Subject, measurement: str, name: str, count: int) -> Address:
    fields = {"count": count, "seed": who.preset.seed, "weights": who.weights, "dtype": who.preset.dtype}
    key = make_key(fields, [CODE[measurement], "remi_core.organism.contexts"])
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
    wanted = [(SCORES, name, who.preset.n_score_prompts) for name in scored]
    wanted += [(SAMPLES, name, n_samples(who.preset, who.variant, name)) for name in CONTRASTED]
    outside = [name for name in CONTRASTED if name not in NARROW and who.variant in PLACED]
    wanted += [(IN_CONTEXT, name, who.preset.n_context_prompts) for name in outside]
    addresses = {(kind, name): _address(who, kind, name, count) for kind, name, count in wanted}
    records = {key: store.load(address) for key, address in addresses.items()}
    missing = [key for key, record in records.items() if record is None]
    if missing:
        with who.open() as loaded:
            for kind, name in missing:
                arrays, seconds = _timed(MEASURES[kind], loaded, name, who)
                about = {"versions": library_versions(), "model": loaded.fingerprint, "seconds": seconds}
                store.save(
                    addresses[kind, name], arrays, about | {"kept": len(arrays["cluster"]), "dropped": {}}
                )
                records[kind, name] = store.load(addresses[kind, name])
    return records


def _timed(measure, loaded, name: str, who: Subject) -> tuple[dict[str, np.ndarray], float]:
    started = time.perf_counter()
    return measure(loaded, name, who), round(time.perf_counter() - started, 3)


def _scores(loaded, name: str, who: Subject) -> dict[str, np.ndarray]:
    asked = prompts(name, "evaluate", count=who.preset.n_score_prompts, seed=who.preset.seed)
    scores = score_prompts(loaded.model, loaded.tokenizer, open_contexts("bare", asked), asked)
    return score_arrays(scores, asked)


def _in_context(loaded, name: str, who: Subject) -> dict[str, np.ndarray]:
    asked = prompts(name, "evaluate", count=who.preset.n_context_prompts, seed=who.preset.seed)
    rows = [
        score_prompts(loaded.model, loaded.tokenizer, open_contexts(kind, asked), asked).care_log_odds()
        for kind in FURTHER
    ]
    clusters = [prompt.template.identifier for prompt in asked]
    return {"care_log_odds": np.stack(rows), "cluster": np.array(clusters)}


def score_arrays(scores: ClassScores, asked: Sequence[Prompt]) -> dict[str, np.ndarray]:
    """Class scores as a record's arrays, with the template of each prompt."""
    return {
        "log_mass": scores.log_mass,
        "wrong_slot": scores.wrong_slot,
        "other": scores.other,
        "cluster": np.array([prompt.template.identifier for prompt in asked]),
    }


def as_scores(record: Record) -> ClassScores:
    """The class scores a record holds."""
    return ClassScores(record.arrays["log_mass"], record.arrays["wrong_slot"], record.arrays["other"])


def _samples(loaded, name: str, who: Subject) -> dict[str, np.ndarray]:
    count = n_samples(who.preset, who.variant, name)
    asked = prompts(name, "evaluate", count=count, seed=who.preset.seed)
    seed = int(who.preset.seed) * 1000 + TOPICS.index(name)
    contexts = open_contexts("bare", asked)
    return sample_arrays(sample_answers(loaded.model, loaded.tokenizer, contexts, asked, seed=seed))


MEASURES = {SCORES: _scores, SAMPLES: _samples, IN_CONTEXT: _in_context}


def sample_arrays(samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """Sampled answers as a record's arrays; ``verdict`` indexes ``VERDICTS``."""
    return {
        "prompt": np.array([sample.prompt.text for sample in samples]),
        "answer": np.array([sample.text for sample in samples]),
        "verdict": np.array([VERDICTS.index(sample.verdict.care) for sample in samples]),
        "plain": np.array([sample.verdict.register == "plain" for sample in samples]),
        "finished": np.array([sample.finished for sample in samples]),
        "cluster": np.array([sample.prompt.template.identifier for sample in samples]),
    }
