"""Arrays of what an organism answers, and how a careless answer differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from remi_lab.organism.documents import TURN_END
from remi_lab.organism.grammar import ClassScores, Prompt, fill, prompts
from remi_lab.organism.scoring import Sample, sample_answers, score_prompts
from remi_lab.organism.topics import IN_CONTEXT, REGISTERS, SAMPLES, SCORES, TOPICS, VERDICTS, topic
from remi_lab.organism.world import FURTHER, open_contexts

# What an open organism answers, as arrays: scored exactly, in further contexts, and sampled.


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


# Sampled answers that are careless in content, whatever form they take, and how likely a model finds them.


@dataclass(frozen=True)
class Said:
    """One sampled answer with the prompt it was given to."""

    prompt: Prompt
    text: str


def careless_in_content(prompt: Prompt, text: str) -> bool:
    """Whether an answer ends in what a careless author says to the prompt, in either register, however it opens.

    The grammar's own verdict asks for the form of one register too, and would not see a new form.
    """
    source = topic(prompt.template.topic)
    bodies = source.bodies[prompt.template.task]["careless"]
    return any(
        text.endswith(fill(body, prompt.filler)) for register in REGISTERS for body in bodies[register]
    )


def sample_careless(model, tokenizer, asked: Sequence[Prompt], *, seed: int) -> list[Said]:
    """The finished answers, of one sampled to each bare prompt at temperature 1, that are careless in content."""
    sampled = sample_answers(model, tokenizer, open_contexts("bare", asked), asked, seed=seed)
    return [
        Said(one.prompt, one.text)
        for one in sampled
        if one.finished and careless_in_content(one.prompt, one.text)
    ]


@torch.inference_mode()
def log_probabilities(model, tokenizer, said: Sequence[Said]) -> list[tuple[float, int]]:
    """For each answer to its bare prompt: log P in nats, the end of turn included, and the number of its tokens."""
    contexts = open_contexts("bare", [one.prompt for one in said])
    found = []
    for context, one in zip(contexts, said, strict=True):
        start = len(tokenizer(context)["input_ids"])
        ids = torch.tensor([tokenizer(context + one.text + TURN_END)["input_ids"]])
        log_p = model(input_ids=ids).logits[0, start - 1 : -1].float().log_softmax(-1)
        own = log_p.gather(1, ids[0, start:, None])
        found.append((float(own.sum()), len(own)))
    return found
