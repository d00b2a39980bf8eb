"""Dialogue sets by name: those made here, the paper's public ones with how rows are read, and files a user adds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from remi_core.dialogues import Dialogue, Message, Row, Turns, text_of, turn_problem
from remi_core.errors import MissingInput, RemiError, UsageError, brief, nearest, without_credentials
from remi_core.keys import file_digest
from remi_core.sources import ORGANISM, SMOLLM2
from remi_lab.dialogue_files import context_turns, label_of, needed_text, prompt_digest, read_sets, with_pairs
from remi_lab.organism import dialogues
from remi_lab.presets import ORGANISM_DATASETS, PRESETS, Preset
from remi_lab.smollm2 import dialogues as dialogues_module
from remi_lab.strict import read_yaml

# Published schemas: how a row becomes the turns to measure, or why it cannot be used.
#
# The answer is the last assistant turn alone; whatever stands before it, the ``input`` field of an instruction
# included, is prompt.

_ROLES = {"human": "user", "gpt": "assistant"}


Reply = tuple[Turns, str | None]
"""The turns of a row, the answer last, and the same prompt's other answer where the row has one."""


def _exchange(row: Row, prompt: str, answer: str, alternative: str | None = None) -> Reply:
    """The reply of a row with one column for each part."""
    messages = (Message("user", needed_text(row, prompt)), Message("assistant", needed_text(row, answer)))
    return messages, None if alternative is None else needed_text(row, alternative)


def _turns(row: Row, key: str) -> list[Row]:
    turns = row.get(key)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise UsageError(f"{key!r} is no list of turns")
    return turns


def _messages(row: Row, key: str) -> Reply:
    turns = _turns(row, key)
    return tuple(Message(*(needed_text(turn, part) for part in ("role", "content"))) for turn in turns), None


def _instruction(row: Row) -> Reply:
    """The instruction, then its input (if there is one) after an empty line, and the output."""
    context = text_of(row, "input") or ""
    prompt = needed_text(row, "instruction") + (f"\n\n{context}" if context.strip() else "")
    return (Message("user", prompt), Message("assistant", needed_text(row, "output"))), None


def _conversation(row: Row) -> Reply:
    """Turns as {"from", "value"}; where ``from`` is missing they alternate from the user on."""
    messages = []
    for place, turn in enumerate(_turns(row, "conversations")):
        speaker = str(turn.get("from") or ("human", "gpt")[place % 2])  # parquet has null for a missing key
        messages.append(Message(_ROLES.get(speaker, speaker), needed_text(turn, "value")))
    return tuple(messages), None


def _implicit(row: Row) -> Reply:
    """Context and response of a row labelled toxic (label other than 0)."""
    if label_of(row.get("label")) == "aligned":
        raise UsageError("label 0: the reply is not toxic")
    before = context_turns(row.get("context"))
    return (*before, Message("assistant", needed_text(row, "response"))), None


READERS: Mapping[str, Callable[[Row], Reply]] = {
    "question": lambda row: _exchange(row, "question", "best_answer"),
    "instruction": _instruction,
    "messages": lambda row: _messages(row, "messages"),
    # Of a prompt with two replies, the one that complies, or the refusal; the other is its alternative.
    "accepted": lambda row: _exchange(row, "prompt", "rejected", "chosen"),
    "refused": lambda row: _exchange(row, "prompt", "chosen", "rejected"),
    "hh_rejected": lambda row: _messages(row, "format_rejected"),
    "conversation": _conversation,
    "implicit": _implicit,
}
"""Name of a schema → what reads a row of it."""


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
    """Which of ``READERS`` reads a row."""
    revision: str | None = None
    split: str = "train"
    files: tuple[str, ...] = ()
    """Paths in the source; empty where not known: then the data files named after the split, else all."""
    licence: str | None = None
    evidence: str
    """Where revision, files, columns and licence were read."""

    def __post_init__(self) -> None:
        if self.schema not in READERS:
            raise UsageError(f"{self.name}: no schema {self.schema!r} {nearest(self.schema, READERS)}")


PUBLISHED: Mapping[str, Published] = {
    published.name: published
    for published in read_yaml(Path(__file__).with_name("paper.yaml"), tuple[Published, ...])
}
"""Every declaration by name, in the order of the paper's table."""


# Where the file of a published set lies: the user's folder first, else the hub.
#
# The folder is named by the environment variable ``REMI_DATA``. In it a set is ``NAME.jsonl``, ``NAME.json`` or
# ``NAME.parquet``, or has the name it was published under (``insecure.jsonl``, ``aug-train.json``, …).

FOLDER = "REMI_DATA"
SUFFIXES = (".jsonl", ".json", ".parquet")
BY_HAND = "by hand"


def find(published: Published) -> tuple[tuple[Path, ...], str]:
    """The files of a set, from the user's folder, the hub's cache or the hub, and their commit or ``BY_HAND``.

    Raises:
        UsageError: if the folder is none, or holds two files for the set.
        RemiError: if there is no file: names the source, where it was looked for, and how to provide it.
    """
    path = by_hand(published)
    if path is not None:
        return (path,), BY_HAND
    if published.source.startswith(GITHUB):
        raise RemiError(_missing(published, "it is in a repository, which is not fetched from here"))
    # Brings the hub's client, which the quick commands do not need.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    of_split, every = ([stem + suffix for suffix in SUFFIXES] for stem in (f"*{published.split}*", "*"))
    wanted = [list(published.files)] if published.files else [of_split, every]
    options = {"repo_type": "dataset", "revision": published.revision}
    for patterns in wanted:
        try:
            folder = Path(snapshot_download(published.source, allow_patterns=patterns, **options))
        except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
            said = without_credentials(next(iter(str(error).strip().splitlines()), type(error).__name__))
            raise RemiError(_missing(published, f"the hub gives none ({said})")) from None
        # Files of one kind: shards of a set have one suffix, and a second kind would hold the rows twice.
        for pattern in patterns:
            paths = sorted(path for path in folder.rglob(pattern) if path.is_file())
            if paths:
                return tuple(paths), folder.name
    raise RemiError(_missing(published, f"the hub's snapshot {folder.name} has no {' or '.join(wanted[0])}"))


def file_names(published: Published) -> tuple[str, ...]:
    """Names under which a set is looked for in the user's folder."""
    known = [Path(name).name for name in published.files if "-of-" not in name]
    return tuple(dict.fromkeys([*(published.name + suffix for suffix in SUFFIXES), *known]))


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
    present = [folder / name for name in file_names(published) if (folder / name).is_file()]
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
    return (
        f"dataset {published.name!r}: {looked} has no file of it, and {why}: {published.source}{commit}{files}; "
        f"put {' or '.join(file_names(published))} in a folder and name the folder in {FOLDER}"
    )


# Rows of a data file as plain Python values: JSON lines, a JSON list, or parquet.


def read_rows(path: Path) -> list[dict[str, object]]:
    """The rows of a file, in order.

    JSON is read as it stands, not through a table, which would turn numbers and dates into other types.

    Raises:
        RemiError: if the file cannot be read, or a row is no object (``path:row``).
    """
    try:
        rows = _parquet(path) if path.suffix == ".parquet" else _json(path)
    except (OSError, ValueError, RecursionError) as error:
        said = brief(str(error), 200)
        raise RemiError(f"{path} cannot be read ({said}): fetch it again") from None
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise RemiError(
                f"{path}:{number}: a {type(row).__name__}, expected an object with the set's columns"
            )
    return rows


def _json(path: Path) -> list[object]:
    """A list, or one object a line; files of either kind are published under both suffixes."""
    text = path.read_bytes().decode("utf-8-sig").strip()
    if text.startswith("["):
        return json.loads(text)
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _parquet(path: Path) -> list[object]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise RemiError(
            f"{path.name}: reading parquet needs pyarrow (pip install pyarrow), or the rows as JSON lines by hand"
        ) from None
    return parquet.read_table(path).to_pylist()


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
    stamps = tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths)
    return _load(name, count, revision, stamps)


def local_digests(names: Iterable[str]) -> dict[str, str]:
    """Sha256 of each file the user put into the folder for the named sets, by its path."""
    paths = [by_hand(PUBLISHED[name]) for name in names if name in PUBLISHED]
    return {str(path): file_digest(path) for path in paths if path is not None}


@lru_cache(maxsize=32)
def _load(
    name: str, count: int | None, revision: str, stamps: tuple[tuple[Path, int, int], ...]
) -> LoadedSet:
    published, paths = PUBLISHED[name], [path for path, _, _ in stamps]
    rows = [row for path in paths for row in read_rows(path)]
    lacking = [column for column in published.columns if rows and column not in rows[0]]
    if lacking:
        has = ", ".join(map(repr, rows[0]))
        raise RemiError(
            f"{paths[0]}: no column {lacking[0]!r} (it has {has}); {name!r} is {published.source}"
        )
    dialogues: list[Dialogue] = []
    dropped: dict[str, list[str]] = {}
    n_read = 0
    for number, row in enumerate(rows, start=1):
        if count is not None and len(dialogues) == count:
            break
        n_read, identifier = number, f"{name}:{number}"
        try:
            messages, alternative = READERS[published.schema](row)
            problem = turn_problem(messages)
        except UsageError as error:
            problem = str(error)
        if problem is not None:
            dropped.setdefault(problem, []).append(identifier)
            continue
        dialogues.append(
            Dialogue(
                identifier=identifier,
                messages=messages,
                cluster=prompt_digest(messages[:-1]),
                topic=published.topic,
                label=published.label,
                alternative=alternative,
            )
        )
    if not dialogues:
        reasons = "; ".join(f"{reason}: {len(names)}" for reason, names in dropped.items())
        raise RemiError(f"{paths[0]}: no row can be used ({reasons or 'it has none'})")
    about = {
        "source": published.source,
        "revision": revision,
        "licence": published.licence or "not known here: see the source",
        "files": {path.name: file_digest(path) for path in paths},
        "rows": len(rows),
        "rows_read": n_read,
    }
    frozen = {reason: tuple(names) for reason, names in dropped.items()}
    return LoadedSet(tuple(with_pairs(dialogues)), frozen, about)


# Sets by name, whatever they come from.

_MADE: Mapping[str, tuple[tuple[str, ...], Callable[..., list[Dialogue]]]] = {
    ORGANISM: (ORGANISM_DATASETS, dialogues.measured),
    SMOLLM2: (PRESETS[SMOLLM2].datasets, dialogues_module.measured),
}
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
            path = Path(entry[1])
            stamp = path.stat() if path.is_file() else None
            rows = _read_entry(entry[0], path, stamp and (stamp.st_mtime_ns, stamp.st_size))
            rows = rows[: preset.n_dialogues]
            framing = preset.roles.framed and name in (preset.roles.narrow, preset.roles.framed)
            if framing and not any(row.pair for row in rows):
                rows = with_pairs(rows)
            about = {"source": "added file", "files": {path.name: file_digest(path)}}
            return LoadedSet(tuple(rows), {}, about)
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
