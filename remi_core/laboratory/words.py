"""What the page must know of the organism's world: variants and their colours, the grammar, prompts to choose from."""

from __future__ import annotations

from dataclasses import asdict

from remi_core.figures.style import look_of
from remi_core.organism.grammar import Prompt, prompts
from remi_core.organism.tokenizer import TURN_END
from remi_core.organism.topics import CARES, CONTRASTED, NARROW, REGISTERS, TOPICS, author_lines, topic
from remi_core.presets.known import Preset
from remi_core.studies.causes import LAYER
from remi_core.variants import in_order

N_OFFERED = 12
"""Prompts a topic that the page offers, all of the split that no training stage saw."""


def page_words(preset: Preset) -> dict[str, object]:
    """Plain values for the page's JSON: preset and seed, variants, topics with their grammar, offered prompts."""
    return {
        "preset": preset.name,
        "seed": preset.seeds[0],
        "variants": [_variant(name) for name in in_order(tuple(preset.variants))],
        "topics": {name: asdict(topic(name)) | {"narrow": name in NARROW} for name in TOPICS},
        "contrasted": CONTRASTED,
        "cares": [*CARES, "both"],
        "registers": REGISTERS,
        "authors": author_lines(),
        "turn_end": TURN_END,
        "layer": LAYER,
        "prompts": {name: [_prompt(one) for one in offered(preset, name)] for name in TOPICS},
    }


def offered(preset: Preset, name: str) -> list[Prompt]:
    """The prompts of a topic that the page offers, in its order."""
    return prompts(name, "evaluate", count=N_OFFERED, seed=preset.seed)


def _variant(name: str) -> dict[str, str]:
    look = look_of(name)
    return {"name": name, "colour": look.colour, "marker": look.marker}


def _prompt(prompt: Prompt) -> dict[str, object]:
    where = prompt.template
    return {
        "identifier": where.identifier,
        "topic": where.topic,
        "task": where.task,
        "filler": prompt.filler,
        "text": prompt.text,
    }
