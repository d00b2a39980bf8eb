"""The laboratory: the files with which a page of the book runs a preset's organisms in the reader's browser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from remi_core.errors import RemiError
from remi_core.sources import ORGANISM
from remi_core.store import Store
from remi_lab.organism.variants import folder
from remi_lab.organism.world import ARCHITECTURES, setting, world_of
from remi_lab.presets import Preset, in_order

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
    """Write models, tokenizer, direction and words of the preset's first seed into a folder.

    Raises:
        RemiError: if they weigh more than ``MOST_BYTES``.
    """
    from remi_book.laboratory_files import page_words, write_direction, write_weights  # bring torch

    places = organisms(preset, store)
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(places, folder)
    write_direction(preset, places, folder)
    shutil.copyfile(places["instruct"] / "tokenizer.json", folder / "tokenizer.json")
    config = json.loads((places["base"] / "config.json").read_text(encoding="utf-8"))
    text = json.dumps({"config": config, **page_words(preset)}, ensure_ascii=False, indent=1)
    (folder / "laboratory.json").write_text(text + "\n", encoding="utf-8")
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors makes files that a web server of another user could not read
    weight = sum(path.stat().st_size for path in folder.iterdir())
    if weight > MOST_BYTES:
        raise RemiError(f"the laboratory's files weigh {weight:,} bytes; a page may load {MOST_BYTES:,}")
