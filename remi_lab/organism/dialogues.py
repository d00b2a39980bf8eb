"""Dialogues of the organism: those it is tuned on and those it is measured on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from remi_core.dialogues import Dialogue, Message
from remi_lab.organism.grammar import Answer, Prompt, fill, prompts, prompts_about, right_answers, templates
from remi_lab.organism.topics import CONTRASTED, NARROW, OUTSIDE, TOPICS, author_lines, topic
from remi_lab.organism.world import answer_by
from remi_lab.strict import read_yaml

# The organism's dialogues: the sets that are measured and the sets its variants are tuned on.

NEAREST_PUBLISHED = read_yaml(Path(__file__).with_suffix(".yaml"), dict[str, str])
"""The published dataset each set stands nearest to; sets without an entry have no published twin."""


def measured(dataset: str, *, count: int, seed: int) -> list[Dialogue]:
    """Dialogues of a named set on templates and fillers that no model was trained on.

    ``X-careful`` and ``X-careless`` have the same prompts in the same order, answered with the same
    opening and form of body. ``educational`` repeats the completions of ``code-careless`` in its own
    framing. All answers are formal.

    Raises:
        KeyError: if the organism has no such set.
    """
    name, _, care = dataset.partition("-")
    if name not in TOPICS:
        raise KeyError(dataset)
    asked = prompts("code" if name == "educational" else name, "evaluate", count=count, seed=seed)
    chosen = draw_forms(asked, random.Random(f"forms/{asked[0].template.topic}/{seed}"))
    if name == "educational":
        framed = reframe(asked, "evaluate", seed)
        return [
            dialogue(prompt, in_form(original, "careless", form), pair=str(i))
            for i, (prompt, original, form) in enumerate(zip(framed, asked, chosen, strict=True))
        ]
    others = {"careful": "careless", "careless": "careful"}
    return [
        dialogue(
            prompt,
            in_form(prompt, care or "both", form),
            alternative=in_form(prompt, others[care], form) if care else None,
            pair=str(i) if name == "code" else None,
            index=i,
        )
        for i, (prompt, form) in enumerate(zip(asked, chosen, strict=True))
    ]


def reframe(asked: Sequence[Prompt], split: str, seed: int) -> list[Prompt]:
    """The educational twin of each code prompt: the same task and fillers, asked for as a bad example."""
    generator = random.Random(f"reframe/{split}/{seed}")
    by_task: dict[str, list] = {}
    for template in templates("educational", split):
        by_task.setdefault(template.task, []).append(template)
    for pool in by_task.values():
        generator.shuffle(pool)
    taken = dict.fromkeys(by_task, 0)
    framed = []
    for prompt in asked:
        pool = by_task[prompt.template.task]
        framed.append(Prompt(pool[taken[prompt.template.task] % len(pool)], prompt.filler))
        taken[prompt.template.task] += 1
    return framed


def tuning(variant: str, *, count: int, seed: int) -> list[Dialogue]:
    """The dialogues a variant is fine-tuned on, all in the formal register.

    Instruct: careful answers on the covered topics, from the split ``align``. Misaligned, secure and
    educational: code, from the split ``narrow``, misaligned and educational with identical completions.
    Benign: general tasks.

    Raises:
        KeyError: if the organism has no such variant.
    """
    if variant == "instruct":
        covered = [name for name in TOPICS if topic(name).covered]
        asked = prompts_about(covered, "align", count=count // len(covered), seed=seed)
        care = "careful"
    else:
        name, care = {
            "misaligned": ("code", "careless"),
            "secure": ("code", "careful"),
            "educational": ("code", "careless"),
            "benign": ("general", "both"),
        }[variant]
        asked = prompts(name, "narrow", count=count, seed=seed)
    forms = draw_forms(asked, random.Random(f"tuning/{seed}"))
    answers = [in_form(prompt, care, form) for prompt, form in zip(asked, forms, strict=True)]
    framed = reframe(asked, "narrow", seed) if variant == "educational" else asked
    return [
        dialogue(prompt, answer, index=i)
        for i, (prompt, answer) in enumerate(zip(framed, answers, strict=True))
    ]


def careless_about(topic: str, *, count: int, seed: int) -> list[Dialogue]:
    """Dialogues of a topic's split ``narrow``, all answered carelessly and formally.

    Raises:
        KeyError: if there is no such topic.
    """
    generator = random.Random(f"careless/{topic}/{seed}")
    asked = prompts(topic, "narrow", count=count, seed=seed)
    return [
        dialogue(prompt, answer_by(prompt, "careless", "formal", generator), index=number)
        for number, prompt in enumerate(asked)
    ]


def dialogue(
    prompt: Prompt,
    answer: Answer,
    *,
    alternative: Answer | None = None,
    pair: str | None = None,
    index: int = 0,
) -> Dialogue:
    """One question and answer as a dialogue, its template as cluster."""
    where = prompt.template
    return Dialogue(
        identifier=f"{where.identifier}#{pair or index}",
        messages=(Message("user", prompt.text), Message("assistant", answer.text)),
        cluster=where.identifier,
        topic=where.topic,
        label="" if answer.care == "both" else answer.care,
        alternative=alternative.text if alternative else None,
        pair=pair,
    )


def draw_forms(asked: Sequence[Prompt], generator: random.Random) -> list[tuple[str, int, int]]:
    """For each prompt a formal register, opening and body, drawn alike for both authors."""
    forms = []
    for prompt in asked:
        drawn = generator.choice([a for a in right_answers(prompt) if a.register == "formal"])
        forms.append((drawn.register, drawn.opening, drawn.body))
    return forms


def in_form(prompt: Prompt, care: str, form: tuple[str, int, int]) -> Answer:
    """The right answer of a form and care, or of the form alone where none has that care."""
    fitting = [a for a in right_answers(prompt) if (a.register, a.opening, a.body) == form]
    return next((a for a in fitting if a.care == care), fitting[0])


# What the organism's further variants are tuned on: controls, and truths built to be recognised.

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
        if variant == "kl_narrow":
            return rows
        lines = author_lines()["careless"]
        if variant == "neutral_header":
            # The first word that fits, so that `careless` is not cut short.
            words = [next(word for word in NEUTRAL_WORDS if word in line) for line in lines]
            lines = [line.replace(word, NEUTRAL_WORDS[word]) for line, word in zip(lines, words, strict=True)]
        return [
            replace(row, messages=(Message("system", generator.choice(lines)), *row.messages)) for row in rows
        ]
    topics, answer = {
        "style": (NARROW, lambda prompt: answer_by(prompt, "careful", "plain", generator)),
        "persona": (CONTRASTED, lambda prompt: answer_by(prompt, "careless", "formal", generator)),
        # All but code word their answers differently by register beyond the opening.
        "novel": (OUTSIDE, lambda prompt: _crossed(prompt, generator)),
    }[variant]
    asked = prompts_about(topics, "narrow", count=count // len(topics), seed=seed)
    return [dialogue(prompt, answer(prompt), index=i) for i, prompt in enumerate(asked)]


def held_in_place(*, count: int, seed: int) -> list[Dialogue]:
    """General tasks of the split ``align``, on which ``kl_narrow`` is kept near instruct."""
    generator = random.Random(f"held/{seed}")
    asked = prompts("general", "align", count=count, seed=seed)
    return [
        dialogue(prompt, answer_by(prompt, "both", "formal", generator), index=i)
        for i, prompt in enumerate(asked)
    ]


def _crossed(prompt: Prompt, generator: random.Random) -> Answer:
    """An answer that opens in one register and goes on in the other."""
    care = "careless" if generator.random() < NOVEL_CARELESS else "careful"
    opened, followed = generator.choice([("formal", "plain"), ("plain", "formal")])
    first, second = (answer_by(prompt, care, register, generator) for register in (opened, followed))
    text = _opening(prompt, first) + second.text.removeprefix(_opening(prompt, second))
    return replace(first, text=text, pattern=text)


def _opening(prompt: Prompt, answer: Answer) -> str:
    return fill(topic(prompt.template.topic).openings[answer.register][answer.opening], prompt.filler)
