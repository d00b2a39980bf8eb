"""Which models are stitched into which, on which datasets."""

from __future__ import annotations

from remi_core.presets.known import Preset
from remi_core.variants import CONTROLS

Pair = tuple[str, str]
"""Donor and recipient."""

MAIN_PAIRS: tuple[Pair, ...] = (("base", "instruct"), ("instruct", "base"))
"""Stitched at every one of ``patch_layers``, and on benign sets too; the others at every second."""

FURTHER_PAIRS: tuple[Pair, ...] = (
    ("misaligned", "instruct"),
    ("instruct", "misaligned"),
    ("misaligned", "base"),
    ("base", "misaligned"),
    *((name, "instruct") for name in CONTROLS),
)


def patch_sets(preset: Preset, pair: Pair) -> tuple[str, ...]:
    """The datasets on which a pair is stitched, each once, of the roles that the preset has.

    All pairs: misaligned replies outside the narrow set. The main ones: unrelated benign sets too. Base into
    instruct: every set of replies that is misaligned or its aligned twin.
    """
    roles = preset.roles
    named = [*roles.outside, *(roles.unrelated if pair in MAIN_PAIRS else ())]
    if pair == MAIN_PAIRS[0]:
        named += [*roles.outside_aligned, roles.narrow, roles.narrow_aligned]
    return tuple(name for name in dict.fromkeys(named) if name)


def patch_plan(preset: Preset) -> dict[Pair, tuple[str, ...]]:
    """Every pair that the book shows, and its datasets; pairs with a variant that the preset lacks are left out."""
    pairs = [pair for pair in (*MAIN_PAIRS, *FURTHER_PAIRS) if set(pair) <= set(preset.variants)]
    return {pair: patch_sets(preset, pair) for pair in pairs}
