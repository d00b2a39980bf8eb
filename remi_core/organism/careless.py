"""Sampled answers that are careless in content, whatever form they take, and how likely a model finds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from remi_core.organism.contexts import open_contexts
from remi_core.organism.grammar import Prompt, fill
from remi_core.organism.sampling import sample_answers
from remi_core.organism.tokenizer import TURN_END
from remi_core.organism.topics import REGISTERS, topic


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
