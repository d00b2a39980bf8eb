"""Where the shipped adapters lie."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"


def adapter(variant: str) -> Path | None:
    """Folder of a variant's shipped adapter; None for base, which has none."""
    return None if variant == "base" else WEIGHTS / variant
