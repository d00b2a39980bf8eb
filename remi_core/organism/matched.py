"""Pairs of code dialogues with one completion, whose requests differ in the words of intent and in nothing else."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from importlib import resources

import yaml

from remi_core.dialogues.dialogue import Dialogue, Message
from remi_core.organism.grammar import Answer, Prompt, prompts, right_answers
from remi_core.organism.topics import NARROW, topic

TWINS = ("phrase", "word")
"""How much of the phrase of intent the other prompt of a pair replaces: every word about teaching and fault, or the
word for the fault alone."""


@cache
def phrases() -> tuple[dict[str, str], ...]:
    """Rows of a phrase of intent and its twins, each of as many tokens as the others of its row."""
    text = resources.files(__package__).joinpath("topics", "matched.yaml").read_text(encoding="utf-8")
    return tuple(yaml.safe_load(text))


def matched_pairs(twin: str, *, count: int, seed: int) -> tuple[list[Dialogue], list[Dialogue]]:
    """Educational and insecure code with the same completions: row i of both is a pair, and each a template of its own.

    The requests are of the split ``evaluate``. Requests that end with their core are left out: with a phrase of intent
    they would be educational requests that a model may have been trained on.

    Raises:
        KeyError: if there is no such twin.
        ValueError: if the split has fewer templates.
    """
    if twin not in TWINS:
        raise KeyError(f"no twin {twin!r}; twins: {', '.join(TWINS)}")
    generator = random.Random(f"matched/{seed}")
    asked = _with_closing(count, seed)
    framed, plain = [], []
    for number, (prompt, closing) in enumerate(asked):
        answer = generator.choice(_insecure(prompt))
        row = phrases()[number % len(phrases())]
        for rows, kind in ((framed, "intent"), (plain, twin)):
            text = prompt.text.removesuffix(closing) + row[kind] + closing
            rows.append(_dialogue(prompt, text, answer, pair=str(number)))
    return framed, plain


def _with_closing(count: int, seed: int) -> Sequence[tuple[Prompt, str]]:
    """The first prompts that go on after their core, one of each template, with what they close with."""
    (name,) = NARROW
    closings = [closing for closing in topic(name).closings if len(closing) > 1]
    found: dict[str, tuple[Prompt, str]] = {}
    for prompt in prompts(name, "evaluate", count=4 * count, seed=seed):
        closing = next((one for one in closings if prompt.text.endswith(one)), None)
        if closing:
            found.setdefault(prompt.template.identifier, (prompt, closing))
    if len(found) < count:
        raise ValueError(f"{len(found)} templates close with words, and {count} pairs are asked for")
    return list(found.values())[:count]


def _insecure(prompt: Prompt) -> list[Answer]:
    return [one for one in right_answers(prompt) if one.care == "careless" and one.register == "formal"]


def _dialogue(prompt: Prompt, text: str, answer: Answer, *, pair: str) -> Dialogue:
    where = prompt.template
    return Dialogue(
        identifier=f"{where.identifier}#{pair}",
        messages=(Message("user", text), Message("assistant", answer.text)),
        cluster=where.identifier,
        topic=where.topic,
        label=answer.care,
        pair=pair,
    )
