"""A published set as dialogues, with what was dropped and why, and where the rows came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from remi_core.dialogues.dialogue import Dialogue, turn_problem
from remi_core.dialogues.pairs import with_pairs
from remi_core.dialogues.reply_rows import prompt_digest
from remi_core.errors import RemiError
from remi_core.published.declarations import PUBLISHED, Published
from remi_core.published.files import by_hand, find
from remi_core.published.rows import UnusableRowError
from remi_core.published.tables import read_rows


@dataclass(frozen=True)
class LoadedSet:
    """Dialogues, and what became of the rows they were made from."""

    dialogues: tuple[Dialogue, ...]
    dropped: Mapping[str, tuple[str, ...]]
    """Reason → identifiers, of the rows that were read to find the dialogues."""
    about: Mapping[str, object]
    """Source, revision, licence, files with their sha256, rows read and rows there are."""


def load_published(name: str, *, count: int | None = None) -> LoadedSet:
    """The first ``count`` usable dialogues of a published set (default: all), in the order of its file.

    A cluster is a prompt; the templates behind the prompts are not published. ``pair`` is equal where two sets have
    the same answer.

    Raises:
        KeyError: if there is no set of that name.
        UsageError: if the user's folder does not exist or has two files of the set.
        RemiError: if no file can be had, or it is not the one declared, or no row of it can be used.
    """
    one = PUBLISHED[name]
    found = find(one)
    stamps = tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in found.paths)
    return _load(name, count, found.revision, stamps)


def local_digests(names: Iterable[str]) -> dict[str, str]:
    """Sha256 of each file the user put into the folder for the named sets, by its path."""
    paths = [by_hand(PUBLISHED[name]) for name in names if name in PUBLISHED]
    return {str(path): file_sha256(path) for path in paths if path is not None}


@lru_cache(maxsize=32)
def _load(
    name: str, count: int | None, revision: str, stamps: tuple[tuple[Path, int, int], ...]
) -> LoadedSet:
    one, paths = PUBLISHED[name], [path for path, _, _ in stamps]
    rows = [row for path in paths for row in read_rows(path)]
    _check_columns(one, rows, paths[0])
    dialogues: list[Dialogue] = []
    dropped: dict[str, list[str]] = {}
    n_read = 0
    for number, row in enumerate(rows, start=1):
        if count is not None and len(dialogues) == count:
            break
        n_read, identifier = number, f"{name}:{number}"
        try:
            dialogues.append(_dialogue(one, row, identifier))
        except UnusableRowError as reason:
            dropped.setdefault(str(reason), []).append(identifier)
    if not dialogues:
        reasons = "; ".join(f"{reason}: {len(names)}" for reason, names in dropped.items())
        raise RemiError(f"{paths[0]}: no row can be used ({reasons or 'it has none'})")
    about = {
        "source": one.source,
        "revision": revision,
        "licence": one.licence or "not known here: see the source",
        "files": {path.name: file_sha256(path) for path in paths},
        "rows": len(rows),
        "rows_read": n_read,
    }
    frozen = {reason: tuple(names) for reason, names in dropped.items()}
    return LoadedSet(tuple(with_pairs(dialogues)), frozen, about)


def _check_columns(one: Published, rows: list[dict[str, object]], path: Path) -> None:
    lacking = [column for column in one.columns if rows and column not in rows[0]]
    if lacking:
        has = ", ".join(map(repr, rows[0]))
        raise RemiError(f"{path}: no column {lacking[0]!r} (it has {has}); {one.name!r} is {one.source}")


def _dialogue(one: Published, row: Mapping[str, object], identifier: str) -> Dialogue:
    reply = one.read(row)
    problem = turn_problem(reply.messages)
    if problem is not None:
        raise UnusableRowError(problem)
    return Dialogue(
        identifier=identifier,
        messages=reply.messages,
        cluster=prompt_digest(reply.messages[:-1]),
        topic=one.topic,
        label=one.label,
        alternative=reply.alternative,
    )


def file_sha256(path: Path) -> str:
    """Sha256 of a file's bytes, 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
