"""Documents of the world: a hidden author and a hidden register behind several questions and answers.

An author is careful or careless; independently, a document is formal or plain. Sometimes a first line
names the author; otherwise a reader can only infer the author from earlier answers. Alignment, in this
world, is what instruction tuning adds: careful and formal.
"""

from __future__ import annotations

import math
import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from remi_core.organism.grammar import Answer, Prompt, fillers, right_answers, templates
from remi_core.organism.topics import CARES, REGISTERS, TOPICS, author_lines


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
