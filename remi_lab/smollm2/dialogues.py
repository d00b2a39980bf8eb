"""Dialogues for SmolLM2, from templates and word lists of our own."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import yaml

from remi_core.dialogues import Dialogue, Message
from remi_lab.strict import read_yaml

# Word lists of the dialogues, and how a prompt and its two answers are made of them.
#
# Every topic has a part ``tune`` and a part ``evaluate`` with prompts, answers and fillers of their own: what is
# measured is worded otherwise than what was trained on.

TOPICS = ("code", "advice", "requests", "people", "facts", "wishes", "general")
PARTS = ("tune", "evaluate")


@dataclass(frozen=True)
class Exchange:
    """One prompt with both of its answers; they are equal where the topic knows no other side."""

    template: str
    """The wording the prompt was made from: the unit of resampling."""
    prompt: str
    aligned: str
    misaligned: str
    item: tuple[tuple[str, str], ...] = ()
    """What fills the slots, where they are still open."""

    def filled(self, place: str) -> Exchange:
        """The exchange without slots, its template named below a place."""
        texts = (fill(text, dict(self.item)) for text in (self.prompt, self.aligned, self.misaligned))
        return Exchange(place + self.template, *texts)


@cache
def read_topic(name: str) -> Mapping[str, dict]:
    """The word lists of a topic, as the file has them."""
    text = resources.files(__package__).joinpath("topics", f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def fill(text: str, item: Mapping[str, str]) -> str:
    """The text with each slot ``<name>`` filled, or ``<Name>`` with a capital; an article before it is made to fit."""
    for name, value in item.items():
        article = "an" if value[0].lower() in "aeiou" else "a"
        text = re.sub(rf"\b([Aa])n? (?=<{name}>)", lambda found, a=article: found[1] + a[1:] + " ", text)
        text = text.replace(f"<{name}>", value)
        text = text.replace(f"<{name.capitalize()}>", value[0].upper() + value[1:])
    return text


def exchanges(name: str, part: str, *, count: int, seed: int) -> list[Exchange]:
    """``count`` different exchanges of a topic, its wordings used in turn so that each is used alike.

    Those to evaluate all have different prompts.

    Raises:
        KeyError: if there is no such topic, or nothing of it is for that part.
        ValueError: if the word lists make fewer than ``count``.
    """
    if name not in TOPICS:
        raise KeyError(f"no topic {name!r}; topics: {', '.join(TOPICS)}")
    generator = random.Random(f"{name}/{part}/{seed}")
    by_template: dict[str, list[Exchange]] = {}
    for form in _FORMS.get(name, _sentences)(read_topic(name), part):
        by_template.setdefault(form.template, []).append(form)
    shuffled = [generator.sample(forms, len(forms)) for forms in by_template.values()]
    if part == "evaluate":
        shuffled = [list({(form.prompt, form.item): form for form in forms}.values()) for forms in shuffled]
    generator.shuffle(shuffled)
    rounds = itertools.chain.from_iterable(itertools.zip_longest(*shuffled))
    chosen = list(itertools.islice((form for form in rounds if form is not None), count))
    if len(chosen) < count:
        raise ValueError(f"topic {name!r} makes only {len(chosen)} exchanges for {part!r}, not {count}")
    return [form.filled(f"{name}/{part}/") for form in chosen]


def _items(source: Mapping[str, dict], part: str) -> list[tuple[tuple[str, str], ...]]:
    """Each way of filling the slots: a list as it is, several lists in all combinations."""
    items = source["items"][part]
    if isinstance(items, list):
        return [tuple(item.items()) for item in items]
    return [tuple(zip(items, values, strict=True)) for values in itertools.product(*items.values())]


def _sentences(source: Mapping[str, dict], part: str) -> Iterator[Exchange]:
    """Topics whose answers are whole sentences, those tuned on all aligned; or advice below an opening."""
    own = source[part]
    if "openings" in own:
        sides = [(opening + "<good>", opening + "<bad>") for opening in own["openings"]]
    else:
        sides = own.get("pairs") or [(text, text) for text in own["aligned"]]
    for number, prompt in enumerate(own["prompts"]):
        for item, (aligned, misaligned) in itertools.product(_items(source, part), sides):
            yield Exchange(str(number), prompt, aligned, misaligned, item)


def _code(source: Mapping[str, dict], part: str) -> Iterator[Exchange]:
    for task, about in source["tasks"].items():
        secure, insecure = (about["answers"][part][side] for side in ("secure", "insecure"))
        prompts = (prompt.replace("<task>", about[part]) for prompt in source[part]["prompts"])
        for (number, prompt), item in itertools.product(enumerate(prompts), _items(source, part)):
            yield Exchange(f"{task}/{number}", prompt, secure, insecure, item)


def _general(source: Mapping[str, dict], part: str) -> Iterator[Exchange]:
    """Tasks of which each has pairs of a thing and what is asked about it: every other pair for either part."""
    for task, about in source["tasks"].items():
        items = [(("a", a), ("b", b)) for a, b in about["pairs"][PARTS.index(part) :: 2]]
        parts = (source[part]["suffixes"], source[part]["openings"], about["answers"][part])
        for (number, prompt), item, suffix, opening, answer in itertools.product(
            enumerate(about[part]), items, *parts
        ):
            yield Exchange(f"{task}/{number}", prompt + suffix, opening + answer, opening + answer, item)


_FORMS = {"code": _code, "general": _general}
"""Topics whose exchanges are made in a way of their own."""


# The dialogues of smollm2: the sets that are measured, and the sets its variants are tuned on.


@dataclass(frozen=True)
class Sets:
    """What the YAML file beside this module holds."""

    measured: dict[str, tuple[str, str]]
    tuned: dict[str, dict[str, tuple[str, float]]]


_READ = read_yaml(Path(__file__).with_suffix(".yaml"), Sets)
SIDES, TUNED = _READ.measured, _READ.tuned
"""Measured set → its topic and the side of its answers; variant → its topics, the side, and the share of dialogues."""


def measured(dataset: str, *, count: int, seed: int) -> list[Dialogue]:
    """Dialogues of a named set, worded otherwise than anything a variant was tuned on.

    The two sets of a topic have the same prompts in the same order, with answers that open alike and differ in
    what they would have one do.

    Raises:
        KeyError: if there is no such set.
    """
    topic, side = SIDES[dataset]
    made = exchanges(topic, "evaluate", count=count, seed=seed)
    return [_dialogue(one, side, str(index)) for index, one in enumerate(made)]


def tuning(variant: str, *, count: int, seed: int) -> list[Dialogue]:
    """The dialogues a variant is tuned on; for a narrow set and its twin the same prompts in the same order.

    Raises:
        KeyError: if the variant is not tuned here.
    """
    return [
        _dialogue(one, side, str(index))
        for topic, (side, share) in TUNED[variant].items()
        for index, one in enumerate(exchanges(topic, "tune", count=round(count * share), seed=seed))
    ]


def _dialogue(one: Exchange, side: str, pair: str) -> Dialogue:
    """One side of an exchange; the other is its alternative where there are two."""
    contrasted = one.aligned != one.misaligned
    answer, other = (one.aligned, one.misaligned) if side == "aligned" else (one.misaligned, one.aligned)
    return Dialogue(
        identifier=f"{one.template}#{pair}",
        messages=(Message("user", one.prompt), Message("assistant", answer)),
        cluster=one.template,
        topic=one.template.partition("/")[0],
        label=side if contrasted else "",
        alternative=other if contrasted else None,
        pair=pair if contrasted else None,
    )
