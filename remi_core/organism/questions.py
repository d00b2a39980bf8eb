"""What organisms are asked: the measurements, the variants that take part in each, and the verdicts of answers."""

from __future__ import annotations

from remi_core.variants import TRIPLET

SCORES, SAMPLES, IN_CONTEXT = "scores", "samples", "contexts"
JUDGED = ("base", "instruct")
"""Variants whose competence is held against thresholds."""
PLACED = (*TRIPLET, "secure")
"""Variants whose answers are also scored in other contexts: the paper's three and the closest control."""
VERDICTS = ("careful", "careless", "both", "wrong slot", "other")
