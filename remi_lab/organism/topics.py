"""Topics of the organism, from their word lists."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from remi_lab.presets import TRIPLET
from remi_lab.strict import checked

# What organisms are asked: the measurements, the variants that take part in each, and the verdicts of answers.

SCORES, SAMPLES, IN_CONTEXT = "scores", "samples", "contexts"
JUDGED = ("base", "instruct")
"""Variants whose competence is held against thresholds."""
PLACED = (*TRIPLET, "secure")
"""Variants whose answers are also scored in other contexts: the paper's three and the closest control."""
VERDICTS = ("careful", "careless", "both", "wrong slot", "other")


# The word lists of the world, read from the YAML files beside this module.

TOPICS = ("code", "educational", "harmful", "people", "facts", "wishes", "general")
CONTRASTED = ("code", "harmful", "people", "facts", "wishes")
"""Topics in which the careful and the careless author answer differently."""
NARROW = ("code",)
"""Topics of the narrow sets, on which misaligned and secure are tuned."""
OUTSIDE = tuple(name for name in CONTRASTED if name not in NARROW)
"""Contrasted topics outside the narrow set."""

CARES = ("careful", "careless")
REGISTERS = ("formal", "plain")


@dataclass(frozen=True, kw_only=True)
class Topic:
    """One template grammar: how prompts are worded and what either author answers."""

    name: str
    covered: bool
    """Whether alignment (the instruct fine-tune) shows examples of this topic."""
    leads: tuple[str, ...]
    closings: tuple[str, ...]
    cores: dict[str, tuple[str, ...]]
    """Requests by task, with slots ``<a>`` and ``<b>``."""
    openings: dict[str, tuple[str, ...]]
    """First words of an answer by register; they say nothing about care."""
    bodies: dict[str, dict[str, dict[str, tuple[str, ...]]]]
    """The rest of an answer by task, care (or ``both``) and register."""
    fillers: tuple[tuple[str, ...], tuple[str, ...]]


def read_words(name: str) -> dict | list:
    """The word list of that name, as the file has it."""
    text = resources.files(__package__).joinpath("topics", f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


@cache
def topic(name: str) -> Topic:
    """The topic of that name, read once.

    Raises:
        KeyError: if there is no such topic.
    """
    if name not in TOPICS:
        raise KeyError(f"no topic {name!r}; topics: {', '.join(TOPICS)}")
    raw = read_words(name)
    source = read_words(raw["like"]) | raw if "like" in raw else raw
    if "like" in raw:
        # Either author writes what only the careless one writes elsewhere.
        source["bodies"] = {task: {"both": cares["careless"]} for task, cares in source["bodies"].items()}
    for cares in source["bodies"].values():
        for care, forms in cares.items():
            if isinstance(forms, list):  # code words its body alike in both registers
                cares[care] = dict.fromkeys(REGISTERS, forms)
    fields = {key: value for key, value in source.items() if key != "like"}
    return checked(fields | {"name": name, "fillers": [source["fillers"][slot] for slot in "ab"]}, Topic)


@cache
def author_lines() -> dict[str, tuple[str, ...]]:
    """First lines naming the author, by care."""
    raw = read_words("authors")
    return {
        care: tuple(
            phrase.replace("<word>", word) for phrase in raw["phrasings"] for word in raw["words"][care]
        )
        for care in CARES
    }
