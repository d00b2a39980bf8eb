"""The laboratory: the files with which a page of the book runs a preset's organisms in the reader's browser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from remi_core.errors import RemiError
from remi_core.laboratory.models import lacking, organisms
from remi_core.presets.known import Preset
from remi_core.storage.store import Store

PAGE = "laboratory.md"
DATA = Path("_static") / "laboratory" / "data"
"""Where the page's script looks for models and words, beside itself."""

MOST_BYTES = 40_000_000
"""What all files of the page may weigh together: a reader loads every one of them."""


def add_laboratory(preset: Preset, store: Store, source: Path) -> None:
    """Nothing; puts the laboratory's files into a book's sources, or a stub in place of its page.

    Raises:
        RemiError: if the files weigh more than ``MOST_BYTES``.
    """
    if not (source / PAGE).is_file():
        return
    reason = lacking(preset, store)
    if reason:
        (source / PAGE).write_text(stub_text(preset, reason), encoding="utf-8")
    else:
        export(preset, store, source / DATA)


def stub_text(preset: Preset, reason: str) -> str:
    """Markdown of the page where there is nothing to run, with the label that other pages refer to."""
    note = f"The laboratory does not run for the preset `{preset.name}`: {reason}"
    return f"(laboratory)=\n# The laboratory\n\n:::{{note}}\n{note}\n:::\n"


def export(preset: Preset, store: Store, folder: Path) -> None:
    """Nothing; writes models, tokenizer, direction and words of the preset's first seed into a folder.

    Raises:
        RemiError: if they weigh more than ``MOST_BYTES``.
    """
    from remi_core.laboratory.direction import write_direction  # bring torch
    from remi_core.laboratory.weights import write_weights
    from remi_core.laboratory.words import page_words

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
