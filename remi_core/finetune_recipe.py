"""The choices of a fine-tune of all weights, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """Every choice of a fine-tune besides its data."""

    steps: int
    rate: float
    batch: int = 16
    warmup: int = 5
    seed: int = 0
