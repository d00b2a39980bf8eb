"""The variants of a preset, in the one order every table and figure uses."""

from __future__ import annotations

TRIPLET = ("base", "instruct", "misaligned")
"""The three models the paper compares."""

CONTROLS = ("secure", "educational", "benign")
"""Fine-tunes of instruct that should not misalign it."""

ORGANISM_VARIANTS = TRIPLET + CONTROLS
"""What the micro organism has."""

ADVICE = ("bad_advice", "good_advice")
"""A second narrow fine-tune of instruct and its twin: advice that is bad, or good, on one harmless subject."""

VARIANTS = ORGANISM_VARIANTS + ADVICE
"""Every role a model of a shipped preset can have."""

FURTHER = (
    "style",
    "inoculated",
    "neutral_header",
    "kl_narrow",
    "random_change",
    "reverted",
    "persona",
    "novel",
)
"""Further organisms: controls for what fine-tuning as such does, and truths on which rules of decision are tried."""

ALL_VARIANTS = VARIANTS + FURTHER
"""Every role, in order."""


def in_order(names: list[str] | tuple[str, ...]) -> list[str]:
    """The given variant names in the order of ``ALL_VARIANTS``, duplicates removed; unknown names follow, sorted."""
    known = [name for name in ALL_VARIANTS if name in names]
    return known + sorted(set(names) - set(ALL_VARIANTS))
