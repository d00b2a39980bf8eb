"""Rows of a benchmark: targets, judgements, and the file that they are stored in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from statistics import median

from remi_book.benchmark_files import TARGETS_FILE, read
from remi_core.files import written_whole
from remi_core.progress import machine
from remi_core.store import project_root
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

TARGETS: Mapping[str, Target] = read_yaml(TARGETS_FILE, Mapping[str, Target])
"""Row → its target, in the order of the table."""


# The file of this machine.


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
