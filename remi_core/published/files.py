"""Where the file of a published set lies: the user's folder first, else the hub.

The folder is named by the environment variable ``REMI_DATA``. In it a set is ``NAME.jsonl``, ``NAME.json`` or
``NAME.parquet``, or has the name it was published under (``insecure.jsonl``, ``aug-train.json``, …).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from remi_core.credentials import without_credentials
from remi_core.errors import RemiError, UsageError
from remi_core.published.declarations import GITHUB, Published

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
