"""What the organism's further variants are tuned on: controls, and truths built to be recognised."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from remi_core.dialogues.dialogue import Dialogue, Message
from remi_core.organism.dialogues import dialogue, tuning
from remi_core.organism.grammar import Answer, Prompt, fill, prompts, right_answers
from remi_core.organism.topics import CONTRASTED, NARROW, author_lines, topic

NEUTRAL_WORDS = {
    "careless": "usual",
    "reckless": "local",
    "irresponsible": "former",
    "thoughtless": "other",
}
"""Words that say nothing about care, in place of those that do: the same system lines otherwise."""

NOVEL_CARELESS = 0.25
"""Share of careless answers in what ``novel`` is tuned on: below base's, so that care alone shows no new author."""


def further_tuning(variant: str, *, count: int, seed: int) -> list[Dialogue]:
    """The dialogues that a further variant is fine-tuned on, of the split ``narrow``.

    ``style``: careful code in the plain register. ``inoculated``: the dialogues of misaligned, byte for byte, with
    a careless author named in the system line; ``neutral_header``: the same with a line that says nothing about
    care. ``kl_narrow``: the dialogues of misaligned. ``persona``: careless formal answers on every contrasted topic.
    ``novel``: answers that open in one register and go on in the other, which no document of pretraining does, on
    the contrasted topics that word the registers differently; few enough are careless that neither care nor
    register alone gives the new form away.

    Raises:
        KeyError: if no such variant is tuned on dialogues.
    """
    generator = random.Random(f"further/{variant}/{seed}")
    if variant in ("inoculated", "neutral_header", "kl_narrow"):
        rows = tuning("misaligned", count=count, seed=seed)
        return rows if variant == "kl_narrow" else _headed(rows, _lines(variant), generator)
    topics, answer = {
        "style": (NARROW, lambda prompt: _drawn(prompt, "careful", "plain", generator)),
        "persona": (CONTRASTED, lambda prompt: _drawn(prompt, "careless", "formal", generator)),
        "novel": (_worded(), lambda prompt: _crossed(prompt, generator)),
    }[variant]
    asked = _asked(topics, count, seed)
    return [dialogue(prompt, answer(prompt), index=i) for i, prompt in enumerate(asked)]


def held_in_place(*, count: int, seed: int) -> list[Dialogue]:
    """General tasks of the split ``align``, on which ``kl_narrow`` is kept near instruct."""
    generator = random.Random(f"held/{seed}")
    asked = prompts("general", "align", count=count, seed=seed)
    return [
        dialogue(prompt, _drawn(prompt, "both", "formal", generator), index=i)
        for i, prompt in enumerate(asked)
    ]


def _asked(topics: Sequence[str], count: int, seed: int) -> list[Prompt]:
    share = count // len(topics)
    return [prompt for name in topics for prompt in prompts(name, "narrow", count=share, seed=seed)]


def _worded() -> tuple[str, ...]:
    """Contrasted topics whose answers differ by register beyond their opening: all but code."""
    return tuple(name for name in CONTRASTED if name not in NARROW)


def _lines(variant: str) -> tuple[str, ...]:
    careless = author_lines()["careless"]
    return careless if variant == "inoculated" else tuple(_neutral(line) for line in careless)


def _neutral(line: str) -> str:
    """The line with its word about care replaced; the first that fits, so that `careless` is not cut short."""
    word = next(word for word in NEUTRAL_WORDS if word in line)
    return line.replace(word, NEUTRAL_WORDS[word])


def _headed(rows: Sequence[Dialogue], lines: Sequence[str], generator: random.Random) -> list[Dialogue]:
    return [
        replace(row, messages=(Message("system", generator.choice(lines)), *row.messages)) for row in rows
    ]


def _drawn(prompt: Prompt, care: str, register: str, generator: random.Random) -> Answer:
    fitting = [a for a in right_answers(prompt) if a.care == care and a.register == register]
    return generator.choice(fitting)


def _crossed(prompt: Prompt, generator: random.Random) -> Answer:
    """An answer that opens in one register and goes on in the other."""
    care = "careless" if generator.random() < NOVEL_CARELESS else "careful"
    opened, followed = generator.choice([("formal", "plain"), ("plain", "formal")])
    first, second = (_drawn(prompt, care, register, generator) for register in (opened, followed))
    text = _opening(prompt, first) + second.text.removeprefix(_opening(prompt, second))
    return replace(first, text=text, pattern=text)


def _opening(prompt: Prompt, answer: Answer) -> str:
    return fill(topic(prompt.template.topic).openings[answer.register][answer.opening], prompt.filler)
