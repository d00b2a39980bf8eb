"""Rows of a benchmark: what is wanted, what was measured, and whether the one meets the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from statistics import median
from types import MappingProxyType

FEWEST_RUNS = 5
"""Runs below which a ratio of times is shown and not judged."""

LIMITS: Mapping[str, str] = MappingProxyType(
    {
        "gpu.rate.0.5b": "in a batch of this size the kernels of a small model are shorter than what starts "
        "them, for the bare forward pass as well",
        "gpu.rate.7b": "attention, norms and the vocabulary count as time and not as products, and the probes "
        "add to them",
        "gpu.probes.7b": "windows of every block are averaged by kernels that memory limits, and logits are taken in "
        "float32: cheap beside the products of two processors, and not beside a card's",
        "gpu.explicit.7b": "explicit gradients take about four forward passes (one, one more for the checkpoints, two "
        "backward) and ours a little over one: what is missing to ten has to come from batches of one, which "
        "fill a card well enough",
    }
)
"""Row → what holds it back, said where it misses."""


@dataclass(frozen=True)
class Target:
    """What a row has to reach: a bound of its ratio, and in words."""

    text: str
    bound: float
    at_least: bool = False
    """Whether the bound is a lower one."""

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
        """Nothing; takes over what another one holds."""
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
    if name in LIMITS and not target.met_by(ratio):
        said = f"{said}; {LIMITS[name]}"
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
