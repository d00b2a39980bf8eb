"""What an organism does: exact class probabilities and sampled answers, by topic, as records."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from remi_core.fingerprint import library_versions, make_key
from remi_core.measure import Subject
from remi_core.organism.grammar import Prompt, prompts
from remi_core.organism.sampling import Sample, sample_answers
from remi_core.organism.scoring import ClassScores, score_prompts
from remi_core.organism.topics import CONTRASTED, TOPICS
from remi_core.organism.world import render
from remi_core.store import Address, Record, Store

SCORES, SAMPLES = "scores", "samples"
VERDICTS = ("careful", "careless", "both", "wrong slot", "other")


def open_context(prompt: Prompt) -> str:
    """A bare prompt in ChatML, open where the answer begins: no author named, nothing said before."""
    return render([(prompt.text, "")], None, chatml=True)


def _address(who: Subject, measurement: str, topic: str, count: int) -> Address:
    fields = {"count": count, "seed": who.preset.seed, "weights": who.weights, "dtype": who.preset.dtype}
    module = "remi_core.organism.scoring" if measurement == SCORES else "remi_core.organism.sampling"
    return Address(who.preset.name, who.seed, who.variant, measurement, topic, make_key(fields, [module]))


def measure_behaviour(who: Subject, store: Store) -> dict[tuple[str, str], Record]:
    """(``scores`` or ``samples``, topic) → record; what the store lacks is measured.

    Scores are exact, for ``n_score_prompts`` prompts of every topic; samples are ``n_samples`` answers at
    temperature 1 to prompts of every topic with a right and a wrong way. All prompts are of templates and
    filler pairs that no model was trained on.
    """
    wanted = [(SCORES, topic, who.preset.n_score_prompts) for topic in TOPICS]
    wanted += [(SAMPLES, topic, who.preset.n_samples) for topic in CONTRASTED]
    addresses = {(kind, topic): _address(who, kind, topic, count) for kind, topic, count in wanted}
    records = {key: store.load(address) for key, address in addresses.items()}
    missing = [key for key, record in records.items() if record is None]
    if missing:
        with who.open() as loaded:
            for kind, topic in missing:
                measure = _scores if kind == SCORES else _samples
                arrays, seconds = _timed(measure, loaded, topic, who)
                about = {"versions": library_versions(), "model": loaded.fingerprint, "seconds": seconds}
                store.save(
                    addresses[kind, topic], arrays, about | {"kept": len(arrays["cluster"]), "dropped": {}}
                )
                records[kind, topic] = store.load(addresses[kind, topic])
    return records


def _timed(measure, loaded, topic: str, who: Subject) -> tuple[dict[str, np.ndarray], float]:
    started = time.perf_counter()
    return measure(loaded, topic, who), round(time.perf_counter() - started, 3)


def _scores(loaded, topic: str, who: Subject) -> dict[str, np.ndarray]:
    asked = prompts(topic, "evaluate", count=who.preset.n_score_prompts, seed=who.preset.seed)
    scores = score_prompts(loaded.model, loaded.tokenizer, [open_context(prompt) for prompt in asked], asked)
    return score_arrays(scores, asked)


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


def _samples(loaded, topic: str, who: Subject) -> dict[str, np.ndarray]:
    asked = prompts(topic, "evaluate", count=who.preset.n_samples, seed=who.preset.seed)
    seed = int(who.preset.seed) * 1000 + TOPICS.index(topic)
    contexts = [open_context(prompt) for prompt in asked]
    return sample_arrays(sample_answers(loaded.model, loaded.tokenizer, contexts, asked, seed=seed))


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
