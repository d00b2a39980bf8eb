"""The laboratory: the files with which a page of the book runs a preset's organisms in the reader's browser.

What brings torch or matplotlib is imported where it is needed, since a book that is up to date needs neither.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from remi_core.errors import RemiError
from remi_core.sources import ORGANISM
from remi_core.store import Store
from remi_lab.organism.grammar import Prompt, prompts
from remi_lab.organism.topics import CARES, CONTRASTED, NARROW, REGISTERS, TOPICS, author_lines, topic
from remi_lab.organism.variants import folder
from remi_lab.organism.world import ARCHITECTURES, setting, world_of
from remi_lab.presets import Preset, in_order

if TYPE_CHECKING:
    from torch import Tensor

# Which models the laboratory runs: the organisms of a preset's first seed, where the store holds them.


def organisms(preset: Preset, store: Store) -> dict[str, Path]:
    """Variant → folder of its weights, made or not, in the order of every table.

    Raises:
        RemiError: if the base of the preset's first seed is neither shipped nor pretrained.
    """
    return {
        variant: folder(store, variant, preset.seeds[0], world_of(preset.variants[variant]))
        for variant in in_order(tuple(preset.variants))
    }


def lacking(preset: Preset, store: Store) -> str:
    """Why a page cannot run the preset's models, as a sentence; empty where it can."""
    if any(spec.source != ORGANISM for spec in preset.variants.values()):
        return "its models are not the micro organism, and too large for a page."
    if setting(world_of(preset.variants["instruct"])).architecture != ARCHITECTURES[0]:
        return f"the page's forward pass is that of {ARCHITECTURES[0]}, and its models have another."
    try:
        missing = [variant for variant, place in organisms(preset, store).items() if not place.is_dir()]
    except RemiError as error:
        return f"{error}."
    named = f"`remi run --preset {preset.name}` makes them."
    return f"the store lacks its models ({', '.join(missing)}); {named}" if missing else ""


def described(preset: Preset, store: Store) -> list[str]:
    """What a built page depends on besides its sources: the keys of the models, or why there are none."""
    reason = lacking(preset, store)
    return [reason] if reason else [place.name for place in organisms(preset, store).values()]


PAGE = "laboratory.md"
DATA = Path("_static") / "laboratory" / "data"
"""Where the page's script looks for models and words, beside itself."""

MOST_BYTES = 40_000_000
"""What all files of the page may weigh together: a reader loads every one of them."""


def add_laboratory(preset: Preset, store: Store, source: Path) -> None:
    """Put the laboratory's files into a book's sources, or a stub in place of its page.

    Raises:
        RemiError: if the files weigh more than ``MOST_BYTES``.
    """
    if not (source / PAGE).is_file():
        return
    reason = lacking(preset, store)
    if not reason:
        export(preset, store, source / DATA)
        return
    # The stub keeps the label that other pages refer to.
    note = f"The laboratory does not run for the preset `{preset.name}`: {reason}"
    text = f"(laboratory)=\n# The laboratory\n\n:::{{note}}\n{note}\n:::\n"
    (source / PAGE).write_text(text, encoding="utf-8")


def export(preset: Preset, store: Store, folder: Path) -> None:
    """Write models, tokenizer, directions and words of the preset's first seed into a folder.

    Raises:
        RemiError: if they weigh more than ``MOST_BYTES``.
    """
    places = organisms(preset, store)
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(places, folder)
    write_directions(preset, places, folder)
    shutil.copyfile(places["instruct"] / "tokenizer.json", folder / "tokenizer.json")
    config = json.loads((places["base"] / "config.json").read_text(encoding="utf-8"))
    text = json.dumps({"config": config, **page_words(preset)}, ensure_ascii=False, indent=1)
    (folder / "laboratory.json").write_text(text + "\n", encoding="utf-8")
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors makes files that a web server of another user could not read
    weight = sum(path.stat().st_size for path in folder.iterdir())
    if weight > MOST_BYTES:
        raise RemiError(f"the laboratory's files weigh {weight:,} bytes; a page may load {MOST_BYTES:,}")


# Directions for the page's slider: how far instruct's mean states lie from base's, and what is tried beside that.

N_DIRECTION = 20
"""Prompts a topic, of the split that is for fitting directions."""

N_RANDOM = 5
"""Random directions that the page offers."""

Directions = dict[str, Float[np.ndarray, "number place layer d_model"]]


def directions(preset: Preset, places: Mapping[str, Path]) -> Directions:
    """Displacements by topic of ``CONTRASTED``, and random unit vectors; float64.

    ``alignment`` is the mean block output of instruct minus base's and ``secure`` that of secure minus instruct's;
    ``random`` has the covariance of instruct's states, as in the chapter on causes. The places are those of
    ``states``: the last prompt token, and the last token of an answer's opening.
    """
    from remi_core.models import open_model
    from remi_lab.organism.scoring import states
    from remi_lab.studies.causes import random_directions

    means, random = {}, []
    for variant in ("base", "instruct", "secure"):
        with open_model(places[variant], dtype=preset.dtype) as loaded:
            layers = range(loaded.model.config.num_hidden_layers)
            by_topic = []
            for name in CONTRASTED:
                asked = prompts(name, "direction", count=N_DIRECTION, seed=preset.seed)
                by_topic.append(states(loaded.model, asked, loaded.tokenizer, layers))
        means[variant] = np.stack([one.mean(axis=1) for one in by_topic])
        if variant == "instruct":
            clouds = np.concatenate(by_topic, axis=1)
            random = [
                random_directions(clouds[:, :, layer], count=N_RANDOM, seed=preset.seed) for layer in layers
            ]
    return {
        "alignment": means["instruct"] - means["base"],
        "secure": means["secure"] - means["instruct"],
        "random": np.stack(random, axis=2),
    }


def shared(
    displacements: Float[np.ndarray, "topic place layer d_model"], target: str
) -> Float[np.ndarray, "place layer d_model"]:
    """The mean over all topics but the target: no direction is tried on prompts like those it was fitted on."""
    return displacements[[topic != target for topic in CONTRASTED]].mean(axis=0)


def write_directions(preset: Preset, places: Mapping[str, Path], folder: Path) -> None:
    """Write what ``directions`` gives into ``directions.safetensors``, float32."""
    from safetensors.numpy import save_file

    found = {name: values.astype(np.float32) for name, values in directions(preset, places).items()}
    save_file(found, folder / "directions.safetensors")


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
    from safetensors.torch import load_file, save_file

    shutil.copyfile(places["base"] / FILE, folder / "base.safetensors")
    base = load_file(places["base"] / FILE)
    for variant, place in places.items():
        if variant != "base":
            save_file(changes(load_file(place / FILE), base), folder / f"{variant}.safetensors")


def changes(own: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Own weights minus base's: by name int16 steps of the same shape, and by name + ``STEP`` their float32 size."""
    import torch

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
    from remi_book.figures.style import look_of
    from remi_lab.organism.documents import TURN_END
    from remi_lab.studies.causes import LAYER

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
        "n_random": N_RANDOM,
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
