"""The stored benchmarks: which one the book shows, and with which rows of a graphics card."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from remi_core.errors import RemiError
from remi_core.keys import file_digest
from remi_core.store import project_root
from remi_lab.results import TRAIL
from remi_lab.strict import read_yaml

TARGETS_FILE = project_root() / "benchmarks" / "targets.yaml"
"""What each row has to reach, written before anything is measured, in the order of the table."""

DRAWN = ("released", "dialogues", "tokens", "parameters", "gradient layer", "gradient blocks")
"""Curves without which the book has no figure."""


def read(path: Path) -> dict[str, object]:
    """A stored benchmark.

    Raises:
        RemiError: if the file is not one.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise RemiError(f"{path}: not a benchmark ({error})") from None
    if not isinstance(found, dict) or not {"machine", "versions", "rows", "points"} <= found.keys():
        raise RemiError(f"{path}: not a benchmark; it needs machine, versions, rows and points")
    return found


def newest(folder: Path | None = None) -> dict[str, object] | None:
    """The whole stored benchmark that was made last, by its date and then its name; None where none is stored.

    One is whole when no case was left out: each row is there, with a value or with why it has none.

    Raises:
        RemiError: if one of the files is not a benchmark.
    """
    chosen, name = _last_made(folder, is_whole)
    if chosen is None:
        return None
    about = {key: chosen[key] for key in ("machine", "versions", "made") if key in chosen}
    TRAIL.load(f"benchmarks/{name}", {"recipe": "remi bench", **about}, stored=True)
    return chosen


def newest_on_card(folder: Path | None = None) -> dict[str, object] | None:
    """The stored benchmark with rows of a graphics card that was made last; None where none is stored.

    Raises:
        RemiError: if one of the files is not a benchmark.
    """
    return _last_made(folder, lambda found: any(map(_measured_on_card, found["rows"])))[0]


def _last_made(
    folder: Path | None, wanted: Callable[[Mapping[str, object]], bool]
) -> tuple[dict[str, object] | None, str]:
    """The wanted benchmark that is last by its date and then its name, and the name of its file."""
    found = [(read(path), path.name) for path in stored_files(folder)]
    chosen = [pair for pair in found if wanted(pair[0])]
    return max(chosen, key=lambda pair: (pair[0].get("made", ""), pair[1]), default=(None, ""))


def with_card(found: Mapping[str, object], card: Mapping[str, object] | None) -> dict[str, object]:
    """A benchmark with the rows and curves of a graphics card from another one, whose machine is named as well.

    A file may carry a ``remark``: what a reader must know of how it was made.
    """
    if card is None or card is found:
        return dict(found)
    own = {row["name"]: row for row in card["rows"] if _measured_on_card(row)}
    points = [point for point in card["points"] if str(point["curve"]).startswith("gpu ")]
    return {
        **found,
        "machine": f"{found['machine']}; rows of the card: {card['machine']}",
        "remark": " ".join(filter(None, (benchmark.get("remark", "") for benchmark in (found, card)))),
        "rows": [own.get(row["name"], row) for row in found["rows"]],
        "points": [*found["points"], *points],
    }


def _measured_on_card(row: Mapping[str, object]) -> bool:
    return str(row["name"]).startswith("gpu.") and row["ratio"] is not None


def is_whole(found: Mapping[str, object]) -> bool:
    """Whether a benchmark has every row, and the curves that the book draws."""
    curves = {point["curve"] for point in found["points"]}
    rows = {row["name"] for row in found["rows"]}
    return curves >= set(DRAWN) and rows >= set(read_yaml(TARGETS_FILE, Mapping[str, Mapping]))


def digests(folder: Path | None = None) -> dict[str, str]:
    """Digest of each stored benchmark and of the targets, for the key of a page that shows the newest."""
    return {path.name: file_digest(path) for path in (*stored_files(folder), TARGETS_FILE)}


def stored_files(folder: Path | None = None) -> list[Path]:
    """All stored benchmarks, by name."""
    return sorted((folder or project_root() / "benchmarks").glob("bench-*.json"))
