"""Dialogue files of the user's own, added to a preset's datasets: read, checked, spelled and fingerprinted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from remi_core.datasets import published_names
from remi_core.dialogues.files import LABELS, as_entry, entry_name, read_sets
from remi_core.errors import UsageError, nearest
from remi_core.fingerprint import file_digest
from remi_core.presets.known import Preset
from remi_core.published.load import local_digests
from remi_core.storage.addresses import NAME


def with_data(preset: Preset, texts: Sequence[str]) -> Preset:
    """The preset with the dialogue files of ``[aligned=|misaligned=]FILE`` texts added, each read and checked.

    A file of messages adds one set, named after it. A file of preference rows or labelled replies adds one for each
    kind of reply it has, ``NAME-aligned`` and ``NAME-misaligned``.

    Raises:
        UsageError: for an unknown label, a missing file, a name that is taken or unfit for a file name, a line that
            is not a dialogue or contradicts the label (``file:line``).
    """
    extra: list[tuple[str, str]] = []
    taken = set(preset.datasets) | {entry_name(*entry) for entry in preset.extra_data}
    for text in texts:
        label, path = _split(text)
        if not path.is_file():
            raise UsageError(f"--data: no file {path}")
        full = str(path.resolve())
        if "+" in full:
            raise UsageError(f"--data: {full}: a '+' in the path cannot be part of a preset's name")
        if not NAME.fullmatch(path.stem):
            raise UsageError(f"--data: {path}: a set is named after its file: letters, digits, . _ - only")
        if path.stem in taken:
            raise UsageError(f"--data: {path}: there is a dataset {path.stem!r} already; rename the file")
        for part in read_sets(path, label=label):
            entry = (as_entry(label, part), full)
            if entry_name(*entry) in taken:
                raise UsageError(
                    f"--data: {path}: there is a dataset {entry_name(*entry)!r} already; rename the file"
                )
            taken.add(entry_name(*entry))
            extra.append(entry)
    return replace(preset, extra_data=(*preset.extra_data, *extra))


def spell(preset: Preset) -> str:
    """Name by which ``get_preset`` finds this preset: ``micro``, or ``micro+misaligned=/path/mine.jsonl``."""
    return "+".join([preset.name, *(f"{label}={path}" for label, path in preset.extra_data)])


def data_digests(preset: Preset) -> dict[str, str]:
    """Sha256 of each added file, and of each published one that the user put into a folder, by its path.

    Raises:
        UsageError: if an added file or the folder is missing.
    """
    digests = local_digests(published_names(preset))
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
