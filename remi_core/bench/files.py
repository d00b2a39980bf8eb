"""Stored benchmarks: one file for each kind of machine, and which one the book shows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from remi_core.bench.targets import TARGETS
from remi_core.errors import RemiError
from remi_core.fingerprint import file_digest
from remi_core.machine import machine
from remi_core.storage.store import project_root, written_whole
from remi_core.trail import TRAIL

CARD = "gpu."
"""How the rows of a graphics card start."""

DRAWN = ("released", "dialogues", "tokens", "parameters", "gradient layer", "gradient blocks")
"""Curves without which the book has no figure."""


def bench_path() -> Path:
    """Where the benchmark of this machine is kept: one file for each kind of machine."""
    slug = re.sub(r"[^a-z0-9]+", "-", this_machine().lower()).strip("-")
    return project_root() / "benchmarks" / f"bench-{slug}.json"


def this_machine() -> str:
    """The machine in words, with its graphics card where there is one."""
    import torch  # brings seconds, which reading a stored benchmark does not need

    card = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return ", ".join([machine(), *card])


def write(found: Mapping[str, object], path: Path) -> Path:
    """The path, once the file is whole; rows and curves of cases that were not run are kept from the file before.

    Raises:
        RemiError: if what is there is not a benchmark.
    """
    text = (
        json.dumps(merged(found, read(path) if path.is_file() else {}), indent=1, ensure_ascii=False) + "\n"
    )
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def merged(found: Mapping[str, object], before: Mapping[str, object]) -> dict[str, object]:
    """The new benchmark, with what the one before has beside it, if versions are the same; else the new one alone."""
    if before.get("versions") != found["versions"] or before.get("machine") != found["machine"]:
        return dict(found)
    rows = {row["name"]: row for row in (*before["rows"], *found["rows"])}
    curves = {(point["curve"], point["model"]) for point in found["points"]}
    kept = [one for one in before["points"] if (one["curve"], one["model"]) not in curves]
    order = list(TARGETS)
    ordered = sorted(
        (row for name, row in rows.items() if name in TARGETS), key=lambda row: order.index(row["name"])
    )
    return {**found, "rows": ordered, "points": [*kept, *found["points"]]}


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
    found = [(read(path), path.name) for path in stored_files(folder)]
    whole = [pair for pair in found if is_whole(pair[0])]
    if not whole:
        return None
    chosen, name = max(whole, key=lambda pair: (pair[0].get("made", ""), pair[1]))
    about = {key: chosen[key] for key in ("machine", "versions", "made") if key in chosen}
    TRAIL.load(f"benchmarks/{name}", {"recipe": "remi bench", **about}, stored=True)
    return chosen


def newest_on_card(folder: Path | None = None) -> dict[str, object] | None:
    """The stored benchmark with rows of a graphics card that was made last; None where none is stored.

    Raises:
        RemiError: if one of the files is not a benchmark.
    """
    found = [(read(path), path.name) for path in stored_files(folder)]
    own = [pair for pair in found if any(_measured_on_card(row) for row in pair[0]["rows"])]
    return max(own, key=lambda pair: (pair[0].get("made", ""), pair[1]))[0] if own else None


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
        "remark": " ".join(filter(None, (one.get("remark", "") for one in (found, card)))),
        "rows": [own.get(row["name"], row) for row in found["rows"]],
        "points": [*found["points"], *points],
    }


def _measured_on_card(row: Mapping[str, object]) -> bool:
    return str(row["name"]).startswith(CARD) and row["ratio"] is not None


def is_whole(found: Mapping[str, object]) -> bool:
    """Whether a benchmark has every row, and the curves that the book draws."""
    curves = {point["curve"] for point in found["points"]}
    return {row["name"] for row in found["rows"]} >= set(TARGETS) and curves >= set(DRAWN)


def digests(folder: Path | None = None) -> dict[str, str]:
    """Digest of each stored benchmark, for the key of a page that shows the newest."""
    return {path.name: file_digest(path) for path in stored_files(folder)}


def stored_files(folder: Path | None = None) -> list[Path]:
    """All stored benchmarks, by name."""
    return sorted((folder or project_root() / "benchmarks").glob("bench-*.json"))
