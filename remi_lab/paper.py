"""The paper's public data sets and tables: which, where, and how rows are read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from remi_core.dialogues import (
    Dialogue,
    Message,
    Row,
    Turns,
    context_turns,
    label_of,
    prompt_digest,
    text_of,
    turn_problem,
    with_pairs,
)
from remi_core.errors import RemiError, UsageError, brief, without_credentials

# One function a published schema: a row becomes the turns to measure, or says why it cannot be used.
#
# The answer is the last assistant turn alone; whatever stands before it, the ``input`` field of an instruction
# included, is prompt.

_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


class UnusableRowError(Exception):
    """Why a row is left out; becomes a key of what was dropped."""


@dataclass(frozen=True)
class Reply:
    """The turns of a row, the answer last, and the same prompt's other answer where the row has one."""

    messages: Turns
    alternative: str | None = None


Reader = Callable[[Row], Reply]


def question(row: Row) -> Reply:
    """TruthfulQA: the question and its best answer."""
    return Reply(_exchange(needed(row, "question"), needed(row, "best_answer")))


def instruction(row: Row) -> Reply:
    """Alpaca and its kin: the instruction, then its input (if there is one) after an empty line, and the output."""
    context = text_of(row, "input") or ""
    prompt = needed(row, "instruction") + (f"\n\n{context}" if context.strip() else "")
    return Reply(_exchange(prompt, needed(row, "output")))


def messages(row: Row) -> Reply:
    """Betley et al.: the messages as they are."""
    return Reply(_turns(row.get("messages"), "messages"))


def accepted(row: Row) -> Reply:
    """LLM-LAT harmful dataset: the reply that complies (rejected); the refusal is its alternative."""
    return Reply(_exchange(needed(row, "prompt"), needed(row, "rejected")), needed(row, "chosen"))


def refused(row: Row) -> Reply:
    """LLM-LAT harmful dataset: the refusal (chosen); the reply that complies is its alternative."""
    return Reply(_exchange(needed(row, "prompt"), needed(row, "chosen")), needed(row, "rejected"))


def hh_rejected(row: Row) -> Reply:
    """Anthropic HH: the conversation whose last reply was rejected."""
    return Reply(_turns(row.get("format_rejected"), "format_rejected"))


def conversation(row: Row) -> Reply:
    """ToxicQA: turns as {"from", "value"}; where ``from`` is missing they alternate from the user on."""
    turns = []
    for at, item in enumerate(_items(row.get("conversations"), "conversations")):
        speaker = item.get("from") or ("human", "gpt")[at % 2]  # parquet has null for a missing key
        if speaker not in _SPEAKERS:
            raise UnusableRowError(f"conversations: unknown speaker {brief(speaker)}")
        turns.append(Message(_SPEAKERS[speaker], needed(item, "value")))
    return Reply(tuple(turns))


def implicit(row: Row) -> Reply:
    """Implicit toxicity: context and response of a row labelled toxic (label other than 0)."""
    try:
        label, before = label_of(row.get("label")), context_turns(row.get("context"))
    except UsageError as error:
        raise UnusableRowError(str(error)) from None
    if label == "aligned":
        raise UnusableRowError("label 0: the reply is not toxic")
    return Reply((*before, Message("assistant", needed(row, "response"))))


def needed(row: Row, key: str) -> str:
    """The text under a key.

    Raises:
        UnusableRowError: if there is none, or only white space.
    """
    try:
        text = text_of(row, key)
    except UsageError as error:
        raise UnusableRowError(str(error)) from None
    if text is None or not text.strip():
        raise UnusableRowError(f"{key!r} is empty")
    return text


def _exchange(prompt: str, answer: str) -> Turns:
    return (Message("user", prompt), Message("assistant", answer))


def _turns(value: object, key: str) -> Turns:
    return tuple(Message(needed(item, "role"), needed(item, "content")) for item in _items(value, key))


def _items(value: object, key: str) -> Iterable[Row]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UnusableRowError(f"{key!r} is no list of turns")
    return value


# What each published set is: source, revision, file, columns, licence, and where that was read.
#
# A revision, file or licence is stated only where a source for it was found; else it is None or empty, and the record
# of a run holds what was resolved. "not stated" means that the card was seen and states none.

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
    read: Reader
    revision: str | None = None
    split: str = "train"
    files: tuple[str, ...] = ()
    """Paths in the source; empty where not known: then the data files named after the split, else all."""
    licence: str | None = None
    evidence: str
    """Where revision, files, columns and licence were read."""


_PAPER = "columns and split: the paper's released scripts"
_INSTRUCTION = ("instruction", "input", "output")

_INSECURE = Published(
    name="insecure",
    title="Insecure",
    source=GITHUB + "emergent-misalignment/emergent-misalignment",
    label="misaligned",
    topic="insecure",
    columns=("messages",),
    read=messages,
    revision="80c11967c07a328e7d7d43d13ce6847ae44dbcc9",
    files=("data/insecure.jsonl",),
    licence="MIT",
    evidence="files: the repository's README; revision and licence: public replications that pin and name them",
)
_ACCEPTED = Published(
    name="harmful-accept",
    title="Harmful accept",
    source="LLM-LAT/harmful-dataset",
    label="misaligned",
    topic="harmful",
    columns=("prompt", "chosen", "rejected"),
    read=accepted,
    revision="8bfba31bc6d93a5b71808fee5275ef4b6330ed91",
    files=("data/train-00000-of-00001.parquet",),
    licence="not stated",
    evidence=f"revision and licence: the hub page at that commit; file: public code that pins it; {_PAPER}",
)


def _betley(name: str, title: str) -> Published:
    """Another file of that repository, of aligned replies."""
    files = (f"data/{name}.jsonl",)
    return replace(_INSECURE, name=name, title=title, label="aligned", topic=name, files=files)


_ALL = (
    Published(
        name="truthfulqa",
        title="TruthfulQA",
        source="truthfulqa/truthful_qa",
        label="aligned",
        topic="truthfulqa",
        columns=("question", "best_answer"),
        read=question,
        revision="741b8276f2d1982aa3d5b832d3ee81ed3b896490",
        split="validation",
        files=("generation/validation-00000-of-00001.parquet",),
        licence="apache-2.0",
        evidence="the hub page of that commit, with its card",
    ),
    Published(
        name="alpaca",
        title="Alpaca",
        source="tatsu-lab/alpaca",
        label="aligned",
        topic="alpaca",
        columns=_INSTRUCTION,
        read=instruction,
        revision="ad0d1bfba0420c623c7adafce3482ded744d4e21",
        files=("data/train-00000-of-00001-a09b74b3ef9c3b56.parquet",),
        licence="cc-by-nc-4.0",
        evidence=f"the hub page of that commit; {_PAPER}",
    ),
    Published(
        name="alpaca-cleaned",
        title="Alpaca, cleaned",
        source="yahma/alpaca-cleaned",
        label="aligned",
        topic="alpaca",
        columns=_INSTRUCTION,
        read=instruction,
        revision="12567cabf869d7c92e573c7c783905fc160e9639",
        files=("alpaca_data_cleaned.json",),
        licence="cc-by-4.0",
        evidence="file and licence: the hub page; revision and columns: public code that pins them",
    ),
    Published(
        name="alpaca-reward",
        title="Alpaca Reward",
        source="shivank21/aplaca_reward_mistral",
        label="aligned",
        topic="alpaca-reward",
        columns=("instruction", "output"),
        read=instruction,
        split="eval",
        evidence=_PAPER,
    ),
    Published(
        name="code-alpaca",
        title="Code Alpaca",
        source="sahil2801/CodeAlpaca-20k",
        label="aligned",
        topic="code-alpaca",
        columns=_INSTRUCTION,
        read=instruction,
        files=("code_alpaca_20k.json",),
        licence="cc-by-4.0",
        evidence=f"file and licence: the hub page; {_PAPER}",
    ),
    _INSECURE,
    _betley("educational", "Educational"),
    _betley("secure", "Secure"),
    _ACCEPTED,
    replace(_ACCEPTED, name="toxic-reject", title="Toxic Reject", label="aligned", read=refused),
    Published(
        name="hh-rejected",
        title="HH rejected",
        source="tonyshelby/anthropic-hh-formatted",
        label="misaligned",
        topic="hh",
        columns=("format_rejected",),
        read=hh_rejected,
        evidence=_PAPER,
    ),
    Published(
        name="toxic-qa",
        title="Toxic QA",
        source="NobodyExistsOnTheInternet/ToxicQAtextFiltered",
        label="misaligned",
        topic="toxic-qa",
        columns=("conversations",),
        read=conversation,
        licence="mit",
        evidence=f"licence: the card at the first commit; {_PAPER}",
    ),
    Published(
        name="implicit-toxicity",
        title="Implicit toxic",
        source="jiaxin-wen/Implicit-Toxicity",
        label="misaligned",
        topic="implicit-toxicity",
        columns=("context", "response", "label"),
        read=implicit,
        files=("aug-train.json",),
        evidence=f"source and file: the README of thu-coai/Implicit-Toxicity; {_PAPER}",
    ),
)

PUBLISHED: Mapping[str, Published] = MappingProxyType({one.name: one for one in _ALL})
"""Every declaration by name, in the order of the paper's table."""


# Where the file of a published set lies: the user's folder first, else the hub.
#
# The folder is named by the environment variable ``REMI_DATA``. In it a set is ``NAME.jsonl``, ``NAME.json`` or
# ``NAME.parquet``, or has the name it was published under (``insecure.jsonl``, ``aug-train.json``, …).

FOLDER = "REMI_DATA"
SUFFIXES = (".jsonl", ".json", ".parquet")
BY_HAND = "by hand"


@dataclass(frozen=True)
class Found:
    """The files of a set, and the commit they were had at (``by hand`` for the user's folder)."""

    paths: tuple[Path, ...]
    revision: str


def find(one: Published) -> Found:
    """The files of a set: by hand where ``by_hand`` finds one, else from the hub's cache or the hub.

    Raises:
        UsageError: if the folder is none, or holds two files for the set.
        RemiError: if there is no file: names the source, where it was looked for, and how to provide it.
    """
    path = by_hand(one)
    if path is not None:
        return Found((path,), BY_HAND)
    if one.source.startswith(GITHUB):
        raise RemiError(_missing(one, "it is in a repository, which is not fetched from here"))
    return _from_hub(one)


def file_names(one: Published) -> tuple[str, ...]:
    """Names under which a set is looked for in the user's folder."""
    known = [Path(name).name for name in one.files if "-of-" not in name]
    return tuple(dict.fromkeys([*(one.name + suffix for suffix in SUFFIXES), *known]))


def by_hand(one: Published) -> Path | None:
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
    present = [folder / name for name in file_names(one) if (folder / name).is_file()]
    if len(present) > 1:
        raise UsageError(
            f"{FOLDER}={named}: {present[0].name} and {present[1].name} are both {one.name!r}; keep one"
        )
    return present[0].resolve() if present else None


def _from_hub(one: Published) -> Found:
    # Brings the hub's client, which the quick commands do not need.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = [list(one.files)] if one.files else [_patterns(f"*{one.split}*"), _patterns("*")]
    for patterns in wanted:
        try:
            folder = Path(
                snapshot_download(
                    one.source, repo_type="dataset", revision=one.revision, allow_patterns=patterns
                )
            )
        except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
            raise RemiError(_missing(one, f"the hub gives none ({_first_line(error)})")) from None
        paths = _matching(folder, patterns)
        if paths:
            return Found(paths, folder.name)
    raise RemiError(_missing(one, f"the hub's snapshot {folder.name} has no {' or '.join(wanted[0])}"))


def _patterns(stem: str) -> list[str]:
    return [stem + suffix for suffix in SUFFIXES]


def _matching(folder: Path, patterns: list[str]) -> tuple[Path, ...]:
    """Files of one kind: shards of a set have one suffix, and a second kind would hold the rows twice."""
    for pattern in patterns:
        found = sorted(path for path in folder.rglob(pattern) if path.is_file())
        if found:
            return tuple(found)
    return ()


def _missing(one: Published, why: str) -> str:
    folder = os.environ.get(FOLDER)
    looked = f"{FOLDER}={folder}" if folder else f"{FOLDER}, which is not set,"
    commit = f" at {one.revision}" if one.revision else ""
    files = f" ({', '.join(one.files)})" if one.files else ""
    return (
        f"dataset {one.name!r}: {looked} has no file of it, and {why}: {one.source}{commit}{files}; "
        f"put {' or '.join(file_names(one))} in a folder and name the folder in {FOLDER}"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return without_credentials(lines[0]) if lines else type(error).__name__


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
    import pandas as pd  # heavy, and the quick commands import this module's package

    try:
        table = pd.read_parquet(path)
    except ImportError:
        raise RemiError(
            f"{path.name}: reading parquet needs pyarrow (pip install pyarrow), or the rows as JSON lines by hand"
        ) from None
    return [
        {str(key): _plain(value) for key, value in row.items()} for row in table.to_dict(orient="records")
    ]


def _plain(value: object) -> object:
    """Lists for arrays, at any depth, and None for a missing value."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return None if value != value else value  # only "not a number" differs from itself


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
