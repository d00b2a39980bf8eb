"""What an open organism answers, as arrays: scored exactly, in further contexts, and sampled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from remi_core.organism.class_scores import ClassScores
from remi_core.organism.contexts import FURTHER, open_contexts
from remi_core.organism.grammar import Prompt, prompts
from remi_core.organism.questions import IN_CONTEXT, SAMPLES, SCORES, VERDICTS
from remi_core.organism.sampling import Sample, sample_answers
from remi_core.organism.scoring import score_prompts
from remi_core.organism.topics import TOPICS


def _scores(loaded, name: str, *, count: int, seed: int) -> dict[str, np.ndarray]:
    asked = prompts(name, "evaluate", count=count, seed=seed)
    scores = score_prompts(loaded.model, loaded.tokenizer, open_contexts("bare", asked), asked)
    return score_arrays(scores, asked)


def _in_context(loaded, name: str, *, count: int, seed: int) -> dict[str, np.ndarray]:
    asked = prompts(name, "evaluate", count=count, seed=seed)
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


def _samples(loaded, name: str, *, count: int, seed: int) -> dict[str, np.ndarray]:
    asked = prompts(name, "evaluate", count=count, seed=seed)
    own = seed * 1000 + TOPICS.index(name)
    contexts = open_contexts("bare", asked)
    return sample_arrays(sample_answers(loaded.model, loaded.tokenizer, contexts, asked, seed=own))


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
