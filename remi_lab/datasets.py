"""Dialogue sets by name: those made here, the paper's public ones with how rows are read, and files a user adds."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from remi_core.dialogues import Dialogue, Row
from remi_core.errors import MissingInput, RemiError, UsageError, brief, nearest
from remi_core.sources import ORGANISM
from remi_lab.dialogue_files import (
    PARTED,
    SCHEMAS,
    SUFFIXES,
    DialogueFile,
    data_digest,
    digests_of,
    fetched,
    files_of,
    prompt_digest,
    read_files,
    set_name,
    with_pairs,
)
from remi_lab.organism import dialogues
from remi_lab.presets import ORGANISM_DATASETS, Preset
from remi_lab.real.sets import SIDES
from remi_lab.real.sets import measured as measured_of_real
from remi_lab.strict import read_yaml
from remi_lab.wheels import WHEELS

# What each published set is: declared in ``paper.yaml`` beside this module.

GITHUB = "github:"
"""Prefix of a source that is a repository, not a hub id: its file is put into the folder by hand."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One set of the paper, as it is published."""

    name: str
    title: str
    """Its name in the paper."""
    source: str
    """Hub id of a dataset, or ``github:owner/name``."""
    label: str
    topic: str
    """Equal for sets that have the same prompts."""
    columns: tuple[str, ...]
    """Columns without which a file is another one."""
    schema: str
    """Which of ``SCHEMAS`` its columns make; of one with two sides, the label says which is meant. A column of
    messages may have another name."""
    revision: str | None = None
    split: str = "train"
    files: tuple[str, ...] = ()
    """Paths in the source; empty where not known: then the data files named after the split, else all."""
    licence: str | None = None
    evidence: str
    """Where revision, files, columns and licence were read."""

    def __post_init__(self) -> None:
        if self.schema not in SCHEMAS:
            raise UsageError(f"{self.name}: no schema {self.schema!r} {nearest(self.schema, SCHEMAS)}")


PUBLISHED: Mapping[str, Published] = {
    published.name: published
    for published in read_yaml(Path(__file__).with_name("paper.yaml"), tuple[Published, ...])
}
"""Every declaration by name, in the order of the paper's table."""


# Where the file of a published set lies: the user's folder first, else the hub.
#
# The folder is named by the environment variable ``REMI_DATA``. In it a set is ``NAME.jsonl`` or another file that
# ``dialogue_files`` reads, packed or not, a folder ``NAME``, or has the name it was published under
# (``insecure.jsonl``, ``aug-train.json``, …).

FOLDER = "REMI_DATA"
BY_HAND = "by hand"


def find(published: Published) -> tuple[tuple[Path, ...], str]:
    """The files of a set, from the user's folder, the hub's cache or the hub, and their commit or ``BY_HAND``.

    Raises:
        UsageError: if the folder is none, or holds two files for the set.
        RemiError: if there is no file: names the source, where it was looked for, and how to provide it.
    """
    path = by_hand(published)
    if path is not None:
        return files_of(path), BY_HAND
    if published.source.startswith(GITHUB):
        raise RemiError(_missing(published, "it is in a repository, which is not fetched from here"))
    of_split, every = ([stem + suffix for suffix in SUFFIXES] for stem in (f"*{published.split}*", "*"))
    wanted = [list(published.files)] if published.files else [of_split, every]
    try:
        return fetched(published.source, published.revision, wanted)
    except RemiError as error:
        raise RemiError(_missing(published, str(error))) from None


def file_names(published: Published) -> tuple[str, ...]:
    """Names under which a set is looked for in the user's folder."""
    known = [Path(name).name for name in published.files if "-of-" not in name]
    own = [published.name + suffix + packed for suffix in SUFFIXES for packed in ("", ".gz")]
    return tuple(dict.fromkeys([*own, *known, published.name]))


def by_hand(published: Published) -> Path | None:
    """The set's file in the folder that ``REMI_DATA`` names; None where there is none, or no folder is named.

    Raises:
        UsageError: if the folder does not exist, or holds two files for the set.
    """
    named = os.environ.get(FOLDER)
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise UsageError(f"{FOLDER}={named}: no such folder")
    present = [folder / name for name in file_names(published) if (folder / name).exists()]
    if len(present) > 1:
        raise UsageError(
            f"{FOLDER}={named}: {present[0].name} and {present[1].name} are both {published.name!r}; keep one"
        )
    return present[0].resolve() if present else None


def _missing(published: Published, why: str) -> str:
    folder = os.environ.get(FOLDER)
    looked = f"{FOLDER}={folder}" if folder else f"{FOLDER}, which is not set,"
    commit = f" at {published.revision}" if published.revision else ""
    files = f" ({', '.join(published.files)})" if published.files else ""
    likely = [name for name in file_names(published) if name.endswith((".jsonl", ".json", ".parquet"))]
    return (
        f"dataset {published.name!r}: {looked} has no file of it, and {why}: {published.source}{commit}{files}; "
        f"put {' or '.join(likely)} (also .csv, .tsv, .gz of one) in a folder and name the folder in {FOLDER}"
    )


# A published set as dialogues, with what was dropped and why, and where the rows came from.


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
    paths, revision = find(PUBLISHED[name])
    return _load(name, count, revision, stamps_of(paths))


def local_digests(names: Iterable[str]) -> dict[str, str]:
    """Sha256 of each file the user put into the folder for the named sets, by its path."""
    paths = [by_hand(PUBLISHED[name]) for name in names if name in PUBLISHED]
    return {str(path): data_digest(path) for path in paths if path is not None}


@lru_cache(maxsize=32)
def _load(
    name: str, count: int | None, revision: str, stamps: tuple[tuple[Path, int, int], ...]
) -> LoadedSet:
    published, paths = PUBLISHED[name], [path for path, _, _ in stamps]
    first = True

    def declared(row: Row) -> Row:
        nonlocal first
        lacking = [column for column in published.columns if first and column not in row]
        first = False
        if lacking:
            has = ", ".join(map(brief, row)) or "none"
            raise RemiError(
                f"{paths[0]}: no column {lacking[0]!r} (it has {has}); {name!r} is {published.source}"
            )
        named = {published.columns[0]: "messages"} if published.schema == "messages" else {}
        return {named.get(column, column): row[column] for column in published.columns if column in row}

    try:
        found = read_files(paths, name, bad_rows=1.0, of_row=declared)
    except UsageError as error:
        raise RemiError(f"{error}: {name!r} is {published.source}; fetch it again") from None
    part = published.label if published.schema in PARTED else ""
    own = found.sets.get(part, {})
    other = {number: row for rows in found.sets.values() for number, row in rows.items() if number not in own}
    wrong = {number: (row.identifier, f"labelled {row.label!r}") for number, row in other.items()}
    rows, dropped, n_read = taken(found, part, count, wrong)
    about = {
        "source": published.source,
        "revision": revision,
        "licence": published.licence or "not known here: see the source",
        "files": digests_of(paths),
        "rows": found.n_rows,
        "rows_read": n_read,
    }
    dialogues = [
        replace(
            row,
            identifier=f"{name}:{number}",
            cluster=prompt_digest(row.messages[:-1]),
            topic=published.topic,
            label=published.label,
        )
        for number, row in rows.items()
    ]
    return LoadedSet(tuple(with_pairs(dialogues)), dropped, about)


# Sets by name, whatever they come from.

_MADE: Mapping[str, tuple[tuple[str, ...], Callable[..., list[Dialogue]]]] = {
    ORGANISM: (ORGANISM_DATASETS, dialogues.measured),
    **dict.fromkeys(WHEELS, (tuple(SIDES), measured_of_real)),
}
"""Source of a preset's base → names of the sets that are made for it, and the function that makes one."""


# Files that a user adds: pairs of an entry and a path in a preset's ``extra_data``. The entry is the user's label, or
# says which part of the file is meant.

PART = "-part"


def entry_name(entry: str, source: str) -> str:
    """Name of the set that an entry stands for: the file's name, with ``-aligned`` or ``-misaligned`` for a part."""
    part = _part(entry)
    return set_name(source) + (f"-{part}" if part else "")


def _part(entry: str) -> str:
    return entry.removesuffix(PART) if entry.endswith(PART) else ""


def added_file(entry: str, source: str) -> DialogueFile:
    """What an entry's file holds; how many rows may be left out was asked when it was given.

    Raises:
        UsageError, RemiError: as ``read_file``, or if the file no longer holds what the entry says.
    """
    found = _read_entry("" if _part(entry) else entry, source, stamps_of(files_of(source)))
    if _part(entry) not in found.sets:
        wanted = f"{_part(entry)} replies" if _part(entry) else "rows without a label"
        raise UsageError(f"{source}: has no {wanted} any more; give the file with --data again")
    return found


@lru_cache(maxsize=32)
def _read_entry(label: str, source: str, stamps: tuple[tuple[Path, int, int], ...]) -> DialogueFile:
    """Read once as long as the files' times and sizes stay: every measurement asks for its rows again."""
    return read_files([path for path, _, _ in stamps], set_name(source), label=label, bad_rows=1.0)


def stamps_of(paths: Iterable[Path]) -> tuple[tuple[Path, int, int], ...]:
    """Each file with its time and size, which tell that it was changed."""
    return tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths)


def taken(
    found: DialogueFile, part: str, count: int | None, others: Mapping[int, tuple[str, str]]
) -> tuple[dict[int, Dialogue], dict[str, tuple[str, ...]], int]:
    """Number of the row → dialogue, of the first ``count`` of a part; the rows left out on the way to them, reason →
    identifiers; and how many rows that way has. ``others`` are rows to be left out where the part has none, or lost
    their twin: number → identifier and reason."""
    dropped = {**others, **found.dropped}
    rows = {number: row for number, row in found.sets.get(part, {}).items() if number not in dropped}
    rows = dict(itertools.islice(rows.items(), count))
    n_read = max(rows) if rows and len(rows) == count else found.n_rows
    reasons: dict[str, list[str]] = {}
    for number, (identifier, why) in sorted(dropped.items()):
        if number <= n_read:
            reasons.setdefault(why, []).append(identifier)
    return rows, {why: tuple(names) for why, names in reasons.items()}, n_read


def without_twin(preset: Preset, entry: tuple[str, str]) -> dict[int, tuple[str, str]]:
    """Rows of an added set whose twin in another file cannot be used: number → identifier and reason.

    Two files are twins where they have as many rows, and row i of both has the same prompt or the same answer for
    every i that both can use. Without this a row left out on one side would move all behind it.
    """
    own, lost = added_file(*entry), {}
    rows = own.sets[_part(entry[0])]
    for other in preset.extra_data:
        if other[1] == entry[1]:
            continue
        their = added_file(*other)
        twins = their.sets[_part(other[0])]
        shared = rows.keys() & twins.keys()
        if own.n_rows == their.n_rows and any(
            all(one_of(rows[number]) == one_of(twins[number]) for number in shared)
            for one_of in (lambda row: row.messages[:-1], lambda row: row.answer)
        ):
            why = f"the same row of {their.name} cannot be used"
            lost |= {number: (rows[number].identifier, why) for number in rows.keys() & their.bad.keys()}
    return lost


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

    A name that the organism and the paper share (``educational``) is the organism's where other sets are. Of an added
    narrow set and its framing, rows with one completion are a pair where their file names none.

    Raises:
        UsageError: if the preset has no such set, or a file line is not a dialogue (``path:line``).
        RemiError: if a published set cannot be had, or is not what was declared.
        MissingInput: for the empty name, which stands for a role that no set of the preset has.
    """
    if not name:
        raise MissingInput("needs a set of dialogues for a role that none of the preset's has")
    for entry in preset.extra_data:
        if entry_name(*entry) == name:
            found = added_file(*entry)
            lost = without_twin(preset, entry)
            chosen, dropped, n_read = taken(found, _part(entry[0]), preset.n_dialogues, lost)
            rows = list(chosen.values())
            framing = preset.roles.framed and name in (preset.roles.narrow, preset.roles.framed)
            if framing and not any(row.pair for row in rows):
                rows = with_pairs(rows)
            about = {"source": "added file", "files": digests_of(found.files), "rows": found.n_rows}
            return LoadedSet(tuple(rows), dropped, about | {"rows_read": n_read})
    if name in preset.datasets:
        if name in published_names(preset):
            return load_published(name, count=preset.n_dialogues)
        # Any other model can be shown the organism's sets.
        names, measured = _MADE.get(preset.variants["instruct"].source, _MADE[ORGANISM])
        if name in names:
            return _made_set(measured, name, preset.n_dialogues, preset.seed)
    raise UsageError(f"preset {preset.name!r} has no dataset {name!r} {nearest(name, dataset_names(preset))}")


def same_prompts(preset: Preset, first: str, second: str) -> bool:
    """Whether row i of both sets answers the same prompt, for every i."""
    asked = [[row.messages[:-1] for row in load_dataset(preset, name)] for name in (first, second)]
    return asked[0] == asked[1]


@lru_cache(maxsize=64)
def _made_set(measured: Callable[..., list[Dialogue]], name: str, count: int, seed: int) -> LoadedSet:
    """A set that we make, made once: every look at the store asks for it again, to know what it measures."""
    return LoadedSet(tuple(measured(name, count=count, seed=seed)), {}, {})
