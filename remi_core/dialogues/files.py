"""Dialogue files in three schemas, and the one or two sets that a file holds.

A file keeps to one schema, that of its first readable line:

* ``{"messages": […]}``: one set, named after the file;
* ``{"prompt", "chosen", "rejected"}``: matched pairs, hence two sets, ``NAME-aligned`` (chosen) and
  ``NAME-misaligned`` (rejected), row i of one beside row i of the other;
* ``{"context", "response", "label"}``: label 0 or ``aligned``, another whole number or ``misaligned``; one set for
  each label there is.

Files that mix schemas are refused: which set a reply lands in must not depend on its neighbours.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from remi_core.dialogues.dialogue import Dialogue, Row, Unique, messages_row
from remi_core.dialogues.json_objects import parse_lines
from remi_core.dialogues.reply_rows import labelled_row, preference_row
from remi_core.errors import UsageError

ALIGNED, MISALIGNED = LABELS = ("aligned", "misaligned")

_PART = "-part"
_SCHEMAS = {
    "messages": ("messages",),
    "preference": ("prompt", "chosen", "rejected"),
    "labelled": ("context", "response"),
}
"""Schema → the keys that no other schema has."""

_OPPOSITE = {ALIGNED: (MISALIGNED, "careless"), MISALIGNED: (ALIGNED, "careful")}


def read_sets(path: Path | str, *, label: str = "") -> dict[str, list[Dialogue]]:
    """The sets of a file: under "" for messages, else under ``aligned``, ``misaligned`` or both.

    ``label`` is what the user says all replies are; "" where nothing is said. It becomes the label of rows without
    one. Where a row names no topic, the file's name is its topic.

    Raises:
        UsageError: ``path:line: what is wrong, what is right`` for the first bad line, once all are read; a row
            that contradicts ``label`` is a bad line.
    """
    path = Path(path)
    reader = _Reader(path.stem, label)
    sets: dict[str, list[Dialogue]] = {}
    for part, dialogue in (one for found in parse_lines(path, reader.read) for one in found):
        sets.setdefault(part, []).append(dialogue)
    return {part: sets[part] for part in ("", *LABELS) if part in sets}


def as_entry(label: str, part: str) -> str:
    """First half of an entry of a preset's ``extra_data``: the user's label, or which part of the file it is."""
    return part + _PART if part else label


def entry_name(entry: str, path: str) -> str:
    """Name of the set that an entry stands for: the file's name, with ``-aligned`` or ``-misaligned`` for a part."""
    part = _part(entry)
    return Path(path).stem + (f"-{part}" if part else "")


def entry_label(entry: str) -> str:
    """What the replies of an entry are: ``aligned``, ``misaligned``, or "" where nobody said."""
    return entry.removesuffix(_PART)


def read_entry(entry: str, path: str) -> list[Dialogue]:
    """The dialogues of one entry of ``extra_data``.

    Raises:
        UsageError: as ``read_sets``, or if the file no longer holds what the entry says.
    """
    stamp = Path(path).stat() if Path(path).is_file() else None
    return list(_read_entry(entry, path, stamp and (stamp.st_mtime_ns, stamp.st_size)))


@lru_cache(maxsize=32)
def _read_entry(entry: str, path: str, stamp: tuple[int, int] | None) -> tuple[Dialogue, ...]:
    """The same, read once as long as the file's time and size stay: every measurement asks for its rows again."""
    part = _part(entry)
    sets = read_sets(path, label="" if part else entry)
    if part not in sets:
        wanted = f"{part} replies" if part else "rows with messages"
        raise UsageError(f"{path}: has no {wanted} any more; give the file with --data again")
    return tuple(sets[part])


def _part(entry: str) -> str:
    return entry.removesuffix(_PART) if entry.endswith(_PART) else ""


class _Reader:
    """Reads the rows of one file, whose schema is that of its first readable row."""

    def __init__(self, stem: str, label: str) -> None:
        self.stem, self.label = stem, label
        self.schema, self.first = "", 0
        self.unique = {part: Unique() for part in ("", *LABELS)}

    def read(self, row: Row, number: int) -> list[tuple[str, Dialogue]]:
        """The dialogues of a row, each with the part it belongs to."""
        schema = _schema(row)
        if not self.schema:
            self.schema, self.first = schema, number
        if schema != self.schema:
            raise UsageError(
                f"a row with {_keys(schema)}, but line {self.first} has {_keys(self.schema)}; keep one schema a file"
            )
        placed = _placed(row, schema, default=f"{self.stem}:{number}")
        if self.label and schema == "preference":
            raise UsageError(
                f"a preference row has an aligned and a misaligned reply; give the file without '{self.label}='"
            )
        for part, dialogue in placed:
            if dialogue.label in _OPPOSITE.get(self.label, ()):
                raise UsageError(f"labelled {dialogue.label!r}, but the file was given as '{self.label}='")
            self.unique[part].add(dialogue.identifier, number)
        return [(part, self._completed(dialogue)) for part, dialogue in placed]

    def _completed(self, dialogue: Dialogue) -> Dialogue:
        return replace(dialogue, label=dialogue.label or self.label, topic=dialogue.topic or self.stem)


def _placed(row: Row, schema: str, *, default: str) -> list[tuple[str, Dialogue]]:
    """The dialogues of a row, each with the part of the file it belongs to."""
    if schema == "messages":
        return [("", messages_row(row, default=default))]
    parse = preference_row if schema == "preference" else labelled_row
    return [(dialogue.label, dialogue) for dialogue in parse(row, default=default)]


def _schema(row: Row) -> str:
    """The schema whose keys the row has; a row with none is read as messages, whose errors name the valid keys."""
    found = [name for name, keys in _SCHEMAS.items() if set(keys) & set(row)]
    if len(found) > 1:
        raise UsageError(f"keys of {len(found)} schemas, {' and '.join(map(_keys, found))}; a row has one")
    return found[0] if found else "messages"


def _keys(schema: str) -> str:
    return "/".join(_SCHEMAS[schema])
