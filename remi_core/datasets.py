"""Dialogue sets by name: the organism's own, and files a user adds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from remi_core.dialogues import Dialogue, read_jsonl
from remi_core.errors import UsageError, nearest
from remi_core.organism.dialogues import measured
from remi_core.presets import ORGANISM_DATASETS, Preset


def dataset_names(preset: Preset) -> tuple[str, ...]:
    """Names of the preset's sets, added files last, each named after its file."""
    return preset.datasets + tuple(Path(path).stem for _, path in preset.extra_data)


def load_dataset(preset: Preset, name: str) -> list[Dialogue]:
    """The dialogues of a set, at most ``n_dialogues``, from the front.

    Raises:
        UsageError: if the preset has no such set, or a file line is not a dialogue (``path:line``).
    """
    for label, path in preset.extra_data:
        if Path(path).stem == name:
            rows = read_jsonl(Path(path))[: preset.n_dialogues]
            return [replace(row, label=row.label or label) for row in rows]
    if name not in preset.datasets or name not in ORGANISM_DATASETS:
        raise UsageError(
            f"preset {preset.name!r} has no dataset {name!r} {nearest(name, dataset_names(preset))}"
        )
    return measured(name, count=preset.n_dialogues, seed=preset.seed)
