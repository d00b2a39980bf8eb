"""The dialogues of the pool whose value is the truth: templates × fillers of every topic, none of them trained on."""

from __future__ import annotations

import random
from dataclasses import replace

from remi_core.dialogues.dialogue import Dialogue
from remi_core.organism.dialogues import dialogue, reframe
from remi_core.organism.grammar import Prompt, fillers, right_answers, templates

N_FILLERS = 8
"""Dialogues of each template: its slots filled in eight ways."""

N_TEMPLATES = {"code": 64, "harmful": 36, "people": 36, "facts": 36, "wishes": 36, "general": 32}
"""Templates of each topic in the pool. With the sets below that makes 4,096 dialogues."""

OUTSIDE = ("harmful", "people", "facts", "wishes")
SPLITS = ("evaluate", "direction")
"""Splits that nothing is trained on; the first alone has too few templates of some topics."""


def pool_sets() -> dict[str, str]:
    """Name of each set → the topic whose prompts it answers, or frames anew."""
    sides = {f"{topic}-{care}": topic for topic in OUTSIDE for care in ("careful", "careless")}
    return sides | {
        "code-careful": "code",
        "code-careless": "code",
        "educational": "code",
        "general": "general",
    }


def pool_prompts(topic: str, seed: int) -> list[Prompt]:
    """The prompts of a topic, the fillers of one template after another, each pair of one split.

    Raises:
        ValueError: if the topic has too few templates or fillers.
    """
    generator = random.Random(f"pool/{topic}/{seed}")
    every = [(template, split) for split in SPLITS for template in templates(topic, split)]
    if len(every) < N_TEMPLATES[topic]:
        raise ValueError(f"{topic} has {len(every)} templates outside training, {N_TEMPLATES[topic]} needed")
    chosen = generator.sample(every, N_TEMPLATES[topic])
    return [
        Prompt(template, pair)
        for template, split in chosen
        for pair in generator.sample(fillers(topic, split), N_FILLERS)
    ]


def pool_dialogues(name: str, seed: int) -> list[Dialogue]:
    """The dialogues of a set: row i of every set of a topic answers prompt i, with the same form of answer.

    ``educational`` asks for the completions of ``code-careless`` as bad examples, all fillers of a template in the
    same new framing. The cluster of a row is its template in the pool.
    """
    topic = pool_sets()[name]
    asked = pool_prompts(topic, seed)
    generator = random.Random(f"pool forms/{topic}/{seed}")
    care = name.partition("-")[2] or ("careless" if topic == "code" else "both")
    answers = []
    for prompt in asked:
        fitting = [one for one in right_answers(prompt) if one.register == "formal"]
        form = generator.choice(fitting)
        alike = [one for one in fitting if (one.opening, one.body) == (form.opening, form.body)]
        answers.append(next((one for one in alike if one.care == care), alike[0]))
    shown = _framed(asked, seed) if name == "educational" else asked
    rows = zip(shown, asked, answers, strict=True)
    return [
        replace(dialogue(prompt, answer, index=row), cluster=original.template.identifier)
        for row, (prompt, original, answer) in enumerate(rows)
    ]


def _framed(asked: list[Prompt], seed: int) -> list[Prompt]:
    first = reframe(asked[::N_FILLERS], "evaluate", seed)
    return [Prompt(first[row // N_FILLERS].template, prompt.filler) for row, prompt in enumerate(asked)]
