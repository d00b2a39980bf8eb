"""Which module holds the exercises of which notebook."""

from __future__ import annotations

from importlib import import_module

from remi_book.exercises.exercise import Exercise

CHAPTERS = {
    "variant": "00_measure_one_variant",
    "models": "01_the_three_models",
    "behaviour": "02_behaviour",
    "losses": "03_losses",
    "gradients": "04_gradients",
    "direction": "05_alignment_direction",
    "subspace": "06_shared_subspace",
    "patching": "07_patching",
    "audit": "08_audit",
    "reversion": "09_reversion",
    "controls": "10_controls",
    "contexts": "11_matched_contexts",
    "causes": "12_causes",
    "exchange": "13_between_fine_tunes",
    "worlds": "14_other_worlds",
    "calibration": "15_calibration",
    "cures": "16_cures",
    "costs": "17_what_it_costs",
}
"""Chapter, the first word of an exercise's name → stem of its notebook."""


def exercises_of(chapter: str) -> tuple[Exercise, ...]:
    """The exercises of one of ``CHAPTERS``, in the order of the page.

    The module is imported by name and not by a statement: what a page shows for an unanswered exercise does not
    depend on how an answer would be checked, so a changed check must not make a page out of date.
    """
    return import_module(f"remi_book.exercises.{chapter}").EXERCISES
