"""Ways to do the same, timed in turn, so that what else the machine does falls on all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch


@dataclass(frozen=True)
class Timed:
    """What each way gave, and its seconds run by run."""

    results: Mapping[str, Any]
    seconds: Mapping[str, list[float]]

    def median(self, way: str) -> float:
        """Seconds of a way."""
        return median(self.seconds[way])

    def ratios(self, way: str, other: str) -> list[float]:
        """Seconds of one way divided by those of another, round by round."""
        return [a / b for a, b in zip(self.seconds[way], self.seconds[other], strict=True)]


def interleaved(ways: Mapping[str, Callable[[], Any]], *, runs: int) -> Timed:
    """Every way once to warm up, whose result is kept, then ``runs`` rounds of all, every other one backwards."""
    results = {name: way() for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(runs):
        for name in reversed(ways) if round_number % 2 else ways:
            seconds[name].append(seconds_of(ways[name]))
    return Timed(results, seconds)


def seconds_of(way: Callable[[], Any]) -> float:
    """Wall time of one call, with what it started on a graphics card."""
    _finished()
    started = time.perf_counter()
    way()
    _finished()
    return time.perf_counter() - started


def _finished() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
