"""Rows of a benchmark: targets, judgements, the stored files, and which one the book shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from statistics import median

from remi_core.errors import RemiError
from remi_core.files import written_whole
from remi_core.keys import file_digest
from remi_core.progress import machine
from remi_core.store import project_root
from remi_lab.results import TRAIL
from remi_lab.strict import read_yaml

# Rows of a benchmark: what is wanted, what was measured, and whether the one meets the other.

FEWEST_RUNS = 5
"""Runs below which a ratio of times is shown and not judged."""


@dataclass(frozen=True)
class Target:
    """What a row has to reach: a bound of its ratio, and in words."""

    text: str
    bound: float
    at_least: bool = False
    """Whether the bound is a lower one."""
    limit: str = ""
    """What holds the row back, said where it misses."""

    def met_by(self, ratio: float) -> bool:
        """Whether a ratio is on the right side."""
        return ratio >= self.bound if self.at_least else ratio <= self.bound


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a benchmark; its fields are those of the stored JSON."""

    name: str
    target: str
    measured: float | None = None
    """Our own value: seconds, bytes, or what the note says."""
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    """Smallest and largest ratio of all runs."""
    met: bool | None = None
    """None where it was not measured."""
    note: str = ""


@dataclass(frozen=True)
class Point:
    """One point of a curve that no target judges."""

    curve: str
    model: str
    way: str
    x: float | int
    value: float | int


@dataclass
class Outcome:
    """What a case found."""

    rows: list[Row] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Take over what another one holds."""
        self.rows += other.rows
        self.points += other.points


def judged(
    name: str, target: Target, measured: float, ratios: Sequence[float], *, note: str, timed: bool = True
) -> Row:
    """The row of a measurement: the median of its ratios against the target.

    ``timed`` ratios are judged only where there are enough runs; others are exact, or a peak of memory. A row that
    misses says what holds it back.
    """
    ratio = median(ratios)
    few = timed and len(ratios) < FEWEST_RUNS
    said = f"median of {len(ratios)} interleaved runs; {note}" if timed else note
    if target.limit and not target.met_by(ratio):
        said = f"{said}; {target.limit}"
    return Row(
        name=name,
        target=target.text,
        measured=float(measured),
        ratio=float(ratio),
        spread=(float(min(ratios)), float(max(ratios))),
        met=None if few else target.met_by(ratio),
        note=f"{said}; fewer than {FEWEST_RUNS} runs are not judged" if few else said,
    )


def not_measured(name: str, target: Target, why: str) -> Row:
    """The row of what could not be measured here, with the reason."""
    return Row(name=name, target=target.text, note=f"not measured: {why}")


def as_json(machine: str, versions: Mapping[str, str], outcome: Outcome) -> dict[str, object]:
    """What a benchmark is stored as; ``points`` are the curves behind the figures."""
    return {
        "machine": machine,
        "made": date.today().isoformat(),
        "versions": dict(versions),
        "rows": [asdict(row) for row in outcome.rows],
        "points": [asdict(point) for point in outcome.points],
    }


# What is wanted of each row, written before anything is measured.

MODELS = ("micro", "smollm2")
PEERS = ("transformer_lens", "nnsight", "nnterp")
SHAPES = ("0.5b", "7b", "32b")

TARGETS: Mapping[str, Target] = read_yaml(Path(__file__).with_suffix(".yaml"), Mapping[str, Target])
"""Row → its target, in the order of the table."""


# Stored benchmarks: one file for each kind of machine, and which one the book shows.

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
    """Write a benchmark, keeping rows and curves of cases that were not run from the file before; the path.

    Raises:
        RemiError: if what is there is not a benchmark.
    """
    whole = merged(found, read(path) if path.is_file() else {})
    with written_whole(path) as part:
        part.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def merged(found: Mapping[str, object], before: Mapping[str, object]) -> dict[str, object]:
    """The new benchmark, with what the one before has beside it, if versions are the same; else the new one alone."""
    if before.get("versions") != found["versions"] or before.get("machine") != found["machine"]:
        return dict(found)
    rows = {row["name"]: row for row in (*before["rows"], *found["rows"])}
    curves = {(point["curve"], point["model"]) for point in found["points"]}
    kept = [point for point in before["points"] if (point["curve"], point["model"]) not in curves]
    ordered = [rows[name] for name in TARGETS if name in rows]
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
    return {row["name"] for row in found["rows"]} >= set(TARGETS) and curves >= set(DRAWN)


def digests(folder: Path | None = None) -> dict[str, str]:
    """Digest of each stored benchmark, for the key of a page that shows the newest."""
    return {path.name: file_digest(path) for path in stored_files(folder)}


def stored_files(folder: Path | None = None) -> list[Path]:
    """All stored benchmarks, by name."""
    return sorted((folder or project_root() / "benchmarks").glob("bench-*.json"))
