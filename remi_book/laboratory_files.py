"""Files of the laboratory: weights, words and direction as the browser reads them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from remi_book.figures.style import look_of
from remi_core.models import open_model
from remi_lab.organism.documents import TURN_END
from remi_lab.organism.grammar import Prompt, prompts
from remi_lab.organism.scoring import states
from remi_lab.organism.topics import CARES, CONTRASTED, NARROW, REGISTERS, TOPICS, author_lines, topic
from remi_lab.presets import Preset, in_order
from remi_lab.studies.causes import LAYER

# The alignment direction for the page's slider: how far instruct's mean states lie from base's, by topic and layer.

N_DIRECTION = 20
"""Prompts a topic, of the split that is for fitting directions."""

NAME = "alignment"


def write_direction(preset: Preset, places: Mapping[str, Path], folder: Path) -> None:
    """Write the displacements of ``alignment_displacements`` into ``direction.safetensors``, float32."""
    displacements = torch.from_numpy(alignment_displacements(preset, places)).float().contiguous()
    save_file({NAME: displacements}, folder / "direction.safetensors")


def alignment_displacements(
    preset: Preset, places: Mapping[str, Path]
) -> Float[np.ndarray, "topic place layer d_model"]:
    """Mean block output of instruct minus base's, by topic of ``CONTRASTED``; float64.

    The places are those of ``states``: the last prompt token, and the last token of an answer's opening.
    """
    means = {}
    for variant in ("base", "instruct"):
        with open_model(places[variant], dtype=preset.dtype) as loaded:
            layers = range(loaded.model.config.num_hidden_layers)
            by_topic = []
            for name in CONTRASTED:
                asked = prompts(name, "direction", count=N_DIRECTION, seed=preset.seed)
                by_topic.append(states(loaded.model, asked, loaded.tokenizer, layers).mean(axis=1))
            means[variant] = np.stack(by_topic)
    return means["instruct"] - means["base"]


def shared(
    displacements: Float[np.ndarray, "topic place layer d_model"], target: str
) -> Float[np.ndarray, "place layer d_model"]:
    """The mean over all topics but the target: no direction is tried on prompts like those it was fitted on."""
    return displacements[[topic != target for topic in CONTRASTED]].mean(axis=0)


# Weights for the page: base as it is, and what each fine-tune changed, in whole steps.
#
# A change in 16-bit whole numbers weighs half of what the weights do, and keeps log-probabilities far closer than
# weights rounded to bfloat16: its steps are measured by the largest change, not by the largest weight.

STEP = ".step"
"""Ending of the name of the tensor that says how large one step of a change is."""

MOST_STEPS = 2**15 - 1
FILE = "model.safetensors"


def write_weights(places: Mapping[str, Path], folder: Path) -> None:
    """Write ``VARIANT.safetensors`` of every variant: a copy of base's weights, changes of the others."""
    shutil.copyfile(places["base"] / FILE, folder / "base.safetensors")
    base = load_file(places["base"] / FILE)
    for variant, place in places.items():
        if variant != "base":
            save_file(changes(load_file(place / FILE), base), folder / f"{variant}.safetensors")


def changes(own: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Own weights minus base's: by name int16 steps of the same shape, and by name + ``STEP`` their float32 size."""
    steps = {}
    for name, weight in own.items():
        change = weight.float() - base[name].float()
        step = torch.clamp(change.abs().max() / MOST_STEPS, min=torch.finfo(torch.float32).tiny)
        steps[name] = torch.round(change / step).to(torch.int16)
        steps[name + STEP] = step[None]
    return steps


# What the page must know of the organism's world: variants and their colours, the grammar, prompts to choose from.

N_OFFERED = 12
"""Prompts a topic that the page offers, all of the split that no training stage saw."""


def page_words(preset: Preset) -> dict[str, object]:
    """Plain values for the page's JSON: preset and seed, variants, topics with their grammar, offered prompts."""
    looks = {name: look_of(name) for name in in_order(tuple(preset.variants))}
    return {
        "preset": preset.name,
        "seed": preset.seeds[0],
        "variants": [
            {"name": name, "colour": look.colour, "marker": look.marker} for name, look in looks.items()
        ],
        "topics": {name: asdict(topic(name)) | {"narrow": name in NARROW} for name in TOPICS},
        "contrasted": CONTRASTED,
        "cares": [*CARES, "both"],
        "registers": REGISTERS,
        "authors": author_lines(),
        "turn_end": TURN_END,
        "layer": LAYER,
        "prompts": {
            name: [
                {key: getattr(prompt.template, key) for key in ("identifier", "topic", "task")}
                | {"filler": prompt.filler, "text": prompt.text}
                for prompt in offered(preset, name)
            ]
            for name in TOPICS
        },
    }


def offered(preset: Preset, name: str) -> list[Prompt]:
    """The prompts of a topic that the page offers, in its order."""
    return prompts(name, "evaluate", count=N_OFFERED, seed=preset.seed)
