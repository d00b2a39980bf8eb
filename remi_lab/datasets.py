"""Dialogue sets by name: the organism's own, those the paper used, and files a user adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from remi_core.dialogues import Dialogue
from remi_core.errors import UsageError, nearest
from remi_core.keys import file_digest
from remi_core.sources import ORGANISM, SMOLLM2
from remi_lab.dialogue_files import read_sets
from remi_lab.organism import dialogues
from remi_lab.paper import PUBLISHED, LoadedSet, load_published
from remi_lab.presets import ORGANISM_DATASETS, PRESETS, Preset
from remi_lab.smollm2 import dialogues as dialogues_module

_MADE: Mapping[str, tuple[tuple[str, ...], Callable[..., list[Dialogue]]]] = MappingProxyType(
    {
        ORGANISM: (ORGANISM_DATASETS, dialogues.measured),
        SMOLLM2: (PRESETS[SMOLLM2].datasets, dialogues_module.measured),
    }
)
"""Source of a preset's base → names of the sets that are made for it, and the function that makes one."""


# Files that a user adds: pairs of an entry and a path in a preset's ``extra_data``. The entry is the user's label, or
# says which part of the file is meant.

PART = "-part"


def entry_name(entry: str, path: str) -> str:
    """Name of the set that an entry stands for: the file's name, with ``-aligned`` or ``-misaligned`` for a part."""
    part = _part(entry)
    return Path(path).stem + (f"-{part}" if part else "")


def _part(entry: str) -> str:
    return entry.removesuffix(PART) if entry.endswith(PART) else ""


@lru_cache(maxsize=32)
def _read_entry(entry: str, path: Path, stamp: tuple[int, int] | None) -> tuple[Dialogue, ...]:
    """Read once as long as the file's time and size stay: every measurement asks for its rows again.

    Raises:
        UsageError: as ``read_sets``, or if the file no longer holds what the entry says.
    """
    part = _part(entry)
    sets = read_sets(path, label="" if part else entry)
    if part not in sets:
        wanted = f"{part} replies" if part else "rows with messages"
        raise UsageError(f"{path}: has no {wanted} any more; give the file with --data again")
    return tuple(sets[part])


def dataset_names(preset: Preset) -> tuple[str, ...]:
    """Names of the preset's sets, those of added files last."""
    return preset.datasets + tuple(entry_name(*entry) for entry in preset.extra_data)


def published_names(preset: Preset) -> tuple[str, ...]:
    """Those of the preset's sets that are the paper's: a preset with sets of our own has all of ours."""
    ours = any(name in ORGANISM_DATASETS and name not in PUBLISHED for name in preset.datasets)
    own = ORGANISM_DATASETS if ours else ()
    return tuple(name for name in preset.datasets if name in PUBLISHED and name not in own)


def load_dataset(preset: Preset, name: str) -> list[Dialogue]:
    """The dialogues of a set, at most ``n_dialogues``, from the front.

    Raises:
        UsageError, RemiError: as ``load_set``.
    """
    return list(load_set(preset, name).dialogues)


def load_set(preset: Preset, name: str) -> LoadedSet:
    """The dialogues of a set, at most ``n_dialogues``, with the rows dropped on the way to them and their source.

    A name that the organism and the paper share (``educational``) is the organism's where other sets are.

    Raises:
        UsageError: if the preset has no such set, or a file line is not a dialogue (``path:line``).
        RemiError: if a published set cannot be had, or is not what was declared.
    """
    for entry in preset.extra_data:
        if entry_name(*entry) == name:
            path = Path(entry[1])
            stamp = path.stat() if path.is_file() else None
            rows = _read_entry(entry[0], path, stamp and (stamp.st_mtime_ns, stamp.st_size))
            about = {"source": "added file", "files": {path.name: file_digest(path)}}
            return LoadedSet(tuple(rows[: preset.n_dialogues]), {}, about)
    if name in preset.datasets:
        if name in published_names(preset):
            return load_published(name, count=preset.n_dialogues)
        # Any other model can be shown the organism's sets.
        names, measured = _MADE.get(preset.variants["base"].source, _MADE[ORGANISM])
        if name in names:
            return _made_set(measured, name, preset.n_dialogues, preset.seed)
    raise UsageError(f"preset {preset.name!r} has no dataset {name!r} {nearest(name, dataset_names(preset))}")


@lru_cache(maxsize=64)
def _made_set(measured: Callable[..., list[Dialogue]], name: str, count: int, seed: int) -> LoadedSet:
    """A set that we make, made once: every look at the store asks for it again, to know what it measures."""
    return LoadedSet(tuple(measured(name, count=count, seed=seed)), {}, {})
