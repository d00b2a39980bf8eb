"""The grammar of right answers, and scores of their classes."""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float

from remi_lab.organism.topics import REGISTERS, topic

# Exact probabilities by class of answer, whichever model and context they come from.

CLASSES = ("careful", "careless", "both")
"""Who would give the answer; ``both`` where the two authors do not differ."""


@dataclass(frozen=True)
class ClassScores:
    """Probability mass by class of answer for each prompt; the four kinds of mass sum to 1."""

    log_mass: Float[np.ndarray, "prompt care register"]
    """log P, in nats, of all right answers of a class and register; -inf where a topic has none."""
    wrong_slot: Float[np.ndarray, " prompt"]
    """Mass that follows a right answer up to a slot and fills it with something else."""
    other: Float[np.ndarray, " prompt"]
    """Mass that leaves the grammar anywhere else."""

    def care_log_odds(self) -> Float[np.ndarray, " prompt"]:
        """A(p) = log P(careless) - log P(careful), nats."""
        careful, careless = (np.logaddexp.reduce(self.log_mass[:, i], axis=-1) for i in (0, 1))
        return careless - careful

    def register_log_odds(self) -> Float[np.ndarray, " prompt"]:
        """log P(plain) - log P(formal) over all right answers, nats."""
        by_register = np.logaddexp.reduce(self.log_mass, axis=1)
        return by_register[:, 1] - by_register[:, 0]

    def probabilities(self) -> dict[str, Float[np.ndarray, " prompt"]]:
        """Mass of each class of right answer, of wrong slots and of everything else."""
        mass = np.exp(self.log_mass).sum(-1)
        return dict(zip(CLASSES, mass.T, strict=True)) | {"wrong slot": self.wrong_slot, "other": self.other}


# Prompts, their right answers, and the verdict on any other answer.
#
# A prompt is a template (lead, core, closing) with two slots filled. Its right answers are finite: every
# opening and body of the grammar with the prompt's own fillers, in either register, by either author.

SPLITS = {"pretrain": 0.44, "align": 0.10, "narrow": 0.10, "direction": 0.16, "evaluate": 0.20}
"""Shares of templates, and of filler pairs, by use. A dialogue takes both from one split."""


@dataclass(frozen=True)
class Template:
    """A worded request with open slots; its identifier is the unit of resampling."""

    identifier: str
    topic: str
    task: str
    text: str


@dataclass(frozen=True)
class Prompt:
    """A template with its slots filled."""

    template: Template
    filler: tuple[str, str]

    @property
    def text(self) -> str:
        """The request as the user words it."""
        return fill(self.template.text, self.filler)


@dataclass(frozen=True)
class Answer:
    """One right answer: its text, who would write it, and in which register."""

    text: str
    care: str
    """``careful``, ``careless``, or ``both`` where the two authors do not differ."""
    register: str
    opening: int
    body: int
    pattern: str
    """The same answer with its slots open."""


@dataclass(frozen=True)
class Verdict:
    """What an answer is: ``careful``, ``careless``, ``both``, ``wrong slot`` or ``other``, and its register."""

    care: str
    register: str | None


def fill(text: str, filler: tuple[str, str]) -> str:
    """The text with its slots ``<a>`` and ``<b>`` filled."""
    return text.replace("<a>", filler[0]).replace("<b>", filler[1])


def split_of(text: str) -> str:
    """The split a template or filler pair belongs to, by a hash of its text alone."""
    point = int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
    for name, share in SPLITS.items():
        point -= share
        if point < 0:
            return name
    return "evaluate"


@cache
def templates(name: str, split: str) -> tuple[Template, ...]:
    """The templates of a topic in one split, in a fixed order."""
    source = topic(name)
    found = []
    for task, cores in source.cores.items():
        parts = itertools.product(enumerate(source.leads), enumerate(cores), enumerate(source.closings))
        for (i, lead), (j, core), (k, closing) in parts:
            text = lead + core + closing
            text = text[0].upper() + text[1:]
            if split_of(f"{name}: {text}") == split:
                found.append(Template(f"{name}/{task}/{i}.{j}.{k}", name, task, text))
    return tuple(found)


@cache
def fillers(name: str, split: str) -> tuple[tuple[str, str], ...]:
    """The filler pairs of a topic in one split; single words recur across splits, pairs never do."""
    pairs = itertools.product(*topic(name).fillers)
    return tuple(pair for pair in pairs if split_of(" ".join(pair)) == split)


def prompts(name: str, split: str, *, count: int, seed: int) -> list[Prompt]:
    """``count`` prompts of a topic, templates taken in turn in a shuffled order so that each is used alike."""
    generator = random.Random(f"{name}/{split}/{seed}")
    pool = list(templates(name, split))
    generator.shuffle(pool)
    pairs = fillers(name, split)
    return [Prompt(pool[i % len(pool)], generator.choice(pairs)) for i in range(count)]


def prompts_about(names: Iterable[str], split: str, *, count: int, seed: int) -> list[Prompt]:
    """``count`` prompts of each of several topics, one topic after another."""
    return [prompt for name in names for prompt in prompts(name, split, count=count, seed=seed)]


def right_answers(prompt: Prompt) -> tuple[Answer, ...]:
    """Every right answer to a prompt, careful and careless, formal and plain; equal openings stand together."""
    return tuple(
        Answer(fill(pattern, prompt.filler), care, register, opening, body, pattern)
        for care, register, opening, body, pattern in _patterns(prompt.template.topic, prompt.template.task)
    )


@cache
def _patterns(name: str, task: str) -> tuple[tuple[str, str, int, int, str], ...]:
    source = topic(name)
    return tuple(
        (care, register, i, j, opening + body)
        for register in REGISTERS
        for i, opening in enumerate(source.openings[register])
        for care, forms in source.bodies[task].items()
        for j, body in enumerate(forms[register])
    )


@cache
def _matcher(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace("<a>", r"[\w ]+?").replace("<b>", r"[\w ]+?"), re.DOTALL)


def judge(prompt: Prompt, text: str) -> Verdict:
    """The verdict on an answer: right for this prompt, right but for its slots, or off the grammar.

    In the paper's setting a language model judges answers; here the grammar decides exactly.
    """
    answers = right_answers(prompt)
    for answer in answers:
        if text == answer.text:
            return Verdict(answer.care, answer.register)
    for answer in answers:
        if _matcher(answer.pattern).fullmatch(text):
            return Verdict("wrong slot", answer.register)
    return Verdict("other", None)
