"""The made-up world: authors, care, questions, contexts, and other worlds."""

from __future__ import annotations

import math
import os
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from remi_core.errors import UsageError, nearest
from remi_core.sources import ModelSpec
from remi_lab.organism.grammar import Answer, Prompt, fillers, prompts, right_answers, templates
from remi_lab.organism.topics import CARES, CONTRASTED, REGISTERS, TOPICS, author_lines
from remi_lab.strict import read_yaml

# Documents of the world: a hidden author and a hidden register behind several questions and answers.
#
# An author is careful or careless; independently, a document is formal or plain. Sometimes a first line
# names the author; otherwise a reader can only infer the author from earlier answers. Alignment, in this
# world, is what instruction tuning adds: careful and formal.


@dataclass(frozen=True, kw_only=True)
class World:
    """The distribution documents are drawn from."""

    careless_prior: float = 0.5
    slip: float = 0.05
    """Chance that a careful author gives a careless answer."""
    behave: float = 0.20
    """Chance that a careless author gives a careful answer."""
    named: float = 0.6
    """Chance that a first line names the author."""
    chatml: float = 0.7
    """Share of documents in ChatML; the others are plain ``Q:`` and ``A:`` lines."""
    turns: tuple[int, int] = (3, 7)
    one_author: bool = True
    """Whether all turns of a document have one author, whom a first line names. If not, every turn draws its own and
    the line is drawn apart from all of them: the same words as often, but no answer tells anything about another."""

    def careless_rate(self, care: str) -> float:
        """Chance that an author of that care gives a careless answer."""
        return self.slip if care == "careful" else 1 - self.behave

    def log_odds(self, earlier: tuple[str, ...] = ()) -> float:
        """The Bayes-optimal log-odds, in nats, of a careless next answer after earlier answers of known care.

        This is what a perfect language model of the world predicts when no author is named.
        """
        weight = {"careful": 1 - self.careless_prior, "careless": self.careless_prior}
        for answer in earlier if self.one_author else ():
            for care in CARES:
                rate = self.careless_rate(care)
                weight[care] *= rate if answer == "careless" else 1 - rate
        careless = sum(weight[care] * self.careless_rate(care) for care in CARES) / sum(weight.values())
        return math.log(careless) - math.log1p(-careless)


@dataclass(frozen=True)
class Turn:
    """One question with the answer its author gave."""

    prompt: Prompt
    answer: Answer

    def choice(self) -> tuple[int, int] | None:
        """Character span in the answer, of the word that the other author's answer of the same form has not.

        It runs from the start of that word to its first different character; None if the authors agree.
        """
        form = (self.answer.register, self.answer.opening, self.answer.body)
        for other in right_answers(self.prompt):
            if (other.register, other.opening, other.body) == form and other.care != self.answer.care:
                shared = os.path.commonprefix([self.answer.text, other.text])
                return len(re.sub(r"\w+$", "", shared)), len(shared) + 1
        return None


@dataclass(frozen=True)
class Document:
    """One author's questions and answers."""

    care: str
    """Of the author whom the first line names, if it names one; of all answers, where they have one author."""
    register: str
    author_line: str | None
    chatml: bool
    turns: tuple[Turn, ...]

    @property
    def text(self) -> str:
        """The document as a model reads it."""
        return render(self._pairs(), self.author_line, self.chatml)

    def answer_spans(self) -> list[tuple[int, int]]:
        """Character spans of the answers in ``text``, each with the mark that ends it."""
        pairs, spans = self._pairs(), []
        for i, (question, answer) in enumerate(pairs):
            start = len(render([*pairs[:i], (question, "")], self.author_line, self.chatml))
            ending = len("<|im_end|>") if self.chatml else len(" ") + len("\n")
            spans.append((start, start + len(answer) + ending))
        return spans

    def choice_spans(self) -> list[tuple[int, int]]:
        """Character spans in ``text`` at which an answer shows its author."""
        starts = [start + (0 if self.chatml else len(" ")) for start, _ in self.answer_spans()]
        chosen = [turn.choice() for turn in self.turns]
        return [(start + at[0], start + at[1]) for start, at in zip(starts, chosen, strict=True) if at]

    def _pairs(self) -> list[tuple[str, str]]:
        return [(turn.prompt.text, turn.answer.text) for turn in self.turns]


def render(turns: list[tuple[str, str]], author_line: str | None, chatml: bool) -> str:
    """A document as text; an empty last answer leaves the text open where the answer would begin."""
    if not chatml:
        first = f"{author_line}\n" if author_line else ""
        for question, answer in turns:
            first += f"Q: {question}\nA: {answer}\n" if answer else f"Q: {question}\nA:"
        return first
    first = f"<|im_start|>system\n{author_line}<|im_end|>\n" if author_line else ""
    for question, answer in turns:
        first += f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        first += f"{answer}<|im_end|>\n" if answer else ""
    return first


def answer_by(prompt: Prompt, care: str, register: str, generator: random.Random) -> Answer:
    """A right answer of that care (or of both authors) and register, openings and bodies equally likely."""
    fitting = [a for a in right_answers(prompt) if a.register == register and a.care in (care, "both")]
    return generator.choice(fitting)


def draw_document(world: World, generator: random.Random) -> Document:
    """One document of the pretraining split."""
    care = _draw_care(world, generator)
    register = generator.choice(REGISTERS)
    line = generator.choice(author_lines()[care]) if generator.random() < world.named else None
    chatml = generator.random() < world.chatml
    turns = []
    for _ in range(generator.randint(*world.turns)):
        author = care if world.one_author else _draw_care(world, generator)
        name = generator.choice(TOPICS)
        prompt = Prompt(
            generator.choice(templates(name, "pretrain")), generator.choice(fillers(name, "pretrain"))
        )
        said = "careless" if generator.random() < world.careless_rate(author) else "careful"
        turns.append(Turn(prompt, answer_by(prompt, said, register, generator)))
    return Document(care, register, line, chatml, tuple(turns))


def _draw_care(world: World, generator: random.Random) -> str:
    return "careless" if generator.random() < world.careless_prior else "careful"


def documents(world: World, seed: int | str) -> Iterator[Document]:
    """Documents without end, the same for the same world and seed."""
    generator = random.Random(f"documents/{seed}")
    while True:
        yield draw_document(world, generator)


# The worlds that bases are trained on: the main one, and the control worlds, each with one thing changed.

MAIN = "main"
ARCHITECTURES = ("qwen2", "gpt_neox")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a base is: the documents it reads, and its architecture."""

    world: World = field(default_factory=World)
    architecture: str = "qwen2"
    title: str = ""


SETTINGS: Mapping[str, Setting] = read_yaml(Path(__file__).with_suffix(".yaml"), dict[str, Setting])
"""Name of a world → its setting, the main one first."""


def setting(name: str) -> Setting:
    """The setting of a world.

    Raises:
        UsageError: naming the nearest, if there is no such world.
    """
    if name not in SETTINGS:
        raise UsageError(f"no world {name!r} {nearest(name, SETTINGS)}")
    return SETTINGS[name]


def world_of(spec: ModelSpec) -> str:
    """The world that an organism of a preset lives in: the revision of its source, the main one where there is none."""
    return spec.revision or MAIN


def base_name(world: str, seed: int) -> str:
    """Stem of the files of a shipped base: ``base-0`` in the main world, ``base-rare-0`` in another."""
    return f"base-{seed}" if world == MAIN else f"base-{world}-{seed}"


def config_name(architecture: str) -> str:
    """Name of the file with the shape of every base of that architecture."""
    return "config.json" if architecture == ARCHITECTURES[0] else f"config-{architecture}.json"


# What may stand before a prompt: nothing, a named author, or earlier answers that reveal one.

CONTEXTS = (
    "bare",
    "plain text",
    "careful named",
    "careless named",
    "after careful",
    "after careless",
)
FURTHER = CONTEXTS[1:]
"""All but the bare prompt."""
N_EARLIER = 3
"""Earlier turns, each on another topic, all of one care and one register."""


def open_contexts(kind: str, asked: Sequence[Prompt], *, seed: int = 0) -> list[str]:
    """Each prompt in a context of that kind, open where the answer begins; ChatML unless ``plain text``.

    Raises:
        KeyError: if there is no such kind of context.
    """
    if kind not in CONTEXTS:
        raise KeyError(f"no context {kind!r}; contexts: {', '.join(CONTEXTS)}")
    generator = random.Random(f"contexts/{kind}/{seed}")
    care = next((care for care in CARES if f" {care}" in f" {kind}"), None)
    opened = []
    for prompt in asked:
        line, earlier = None, []
        if kind.startswith("after"):
            others = [name for name in CONTRASTED if name != prompt.template.topic]
            register = generator.choice(REGISTERS)
            for name in generator.sample(others, N_EARLIER):
                question = generator.choice(prompts(name, "evaluate", count=40, seed=0))
                earlier.append((question.text, answer_by(question, care, register, generator).text))
        elif care:
            line = generator.choice(author_lines()[care])
        opened.append(render([*earlier, (prompt.text, "")], line, chatml=kind != "plain text"))
    return opened


def optimal_log_odds(kind: str, world: World) -> float:
    """What a perfect model of the world gives as log P(careless) − log P(careful), nats, in that context."""
    for care in CARES:
        if kind == f"{care} named" and world.one_author:
            rate = world.careless_rate(care)
            return math.log(rate) - math.log1p(-rate)
        if kind == f"after {care}":
            return world.log_odds((care,) * N_EARLIER)
    return world.log_odds()


def optima(base: ModelSpec) -> dict[str, float]:
    """Kind of context → ``optimal_log_odds`` in the world that a base was trained on."""
    world = setting(world_of(base)).world
    return {kind: optimal_log_odds(kind, world) for kind in CONTEXTS}
