"""Dialogue files of the user's own, added to a preset's datasets: read, checked, spelled and fingerprinted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from remi_core.dialogues import read_jsonl
from remi_core.errors import UsageError, nearest
from remi_core.fingerprint import file_digest
from remi_core.presets import Preset

LABELS = ("aligned", "misaligned")


def with_data(preset: Preset, texts: Sequence[str]) -> Preset:
    """The preset with the dialogue files of ``[aligned=|misaligned=]FILE`` texts added, each read and checked.

    Raises:
        UsageError: for an unknown label, a missing file, a name that is taken, or a line that is not a dialogue
            (``file:line``).
    """
    extra = []
    taken = set(preset.datasets)
    for text in texts:
        label, path = _split(text)
        if not path.is_file():
            raise UsageError(f"--data: no file {path}")
        if "+" in str(path.resolve()):
            raise UsageError(f"--data: {path.resolve()}: a '+' in the path cannot be part of a preset's name")
        if path.stem in taken:
            raise UsageError(f"--data: {path}: there is a dataset {path.stem!r} already; rename the file")
        taken.add(path.stem)
        read_jsonl(path)
        extra.append((label, str(path.resolve())))
    return replace(preset, extra_data=(*preset.extra_data, *extra))


def spell(preset: Preset) -> str:
    """Name by which ``get_preset`` finds this preset: ``micro``, or ``micro+misaligned=/path/mine.jsonl``."""
    return "+".join([preset.name, *(f"{label}={path}" for label, path in preset.extra_data)])


def data_digests(preset: Preset) -> dict[str, str]:
    """Sha256 of each added file by its path.

    Raises:
        UsageError: if a file is missing.
    """
    digests = {}
    for _, path in preset.extra_data:
        if not Path(path).is_file():
            raise UsageError(f"preset {preset.name!r}: no data file {path}")
        digests[path] = file_digest(Path(path))
    return digests


def _split(text: str) -> tuple[str, Path]:
    label, equals, path = text.partition("=")
    if label in LABELS and equals:
        return label, Path(path)
    if equals and not Path(text).is_file():
        raise UsageError(f"--data: no label {label!r} {nearest(label, LABELS)}")
    return "", Path(text)
