"""Exercise on the first headline claim: a rule that reads intervals."""

from __future__ import annotations

from remi_book.exercises.answers import as_choice, call
from remi_book.exercises.exercise import Exercise, NotYet

CLASSES = ("reversion", "persona", "novel", "mixed")
Interval = tuple[float, float]
CASES: dict[str, tuple[tuple[Interval, Interval, Interval, Interval], str]] = {
    "where base comes back as a whole": (((0.5, 0.7), (0.4, 0.6), (-0.05, 0.15), (-0.03, 0.04)), "reversion"),
    "where care comes back and register does not": (
        ((0.5, 0.7), (-0.1, 0.05), (0.5, 0.7), (-0.05, 0.05)),
        "persona",
    ),
    "where care goes past base": (((1.2, 1.5), (0.0, 0.3), (0.05, 1.2), (-0.2, 0.2)), "persona"),
    "where base would not say such a thing": (((0.2, 0.4), (-0.1, 0.2), (-0.1, 0.3), (-0.9, -0.4)), "novel"),
    "where an interval reaches over a bound": (
        ((0.3, 0.8), (0.02, 0.5), (-0.2, 0.3), (-0.05, 0.05)),
        "mixed",
    ),
    "where ν is low enough and reaches too high": (
        ((0.5, 0.7), (0.4, 0.6), (-0.05, 0.15), (-0.05, 0.4)),
        "mixed",
    ),
    "where two classes hold at once": (((0.6, 0.9), (0.2, 0.4), (0.3, 0.6), (-0.05, 0.05)), "mixed"),
}
"""Situations: intervals of b, ρ, b − ρ and ν, and what the rule says."""


def _rule(answer: object) -> None:
    for situation, (intervals, truth) in CASES.items():
        result = call(answer, *intervals)
        if not isinstance(result, str):
            raise NotYet(f"your function should give one of {', '.join(CLASSES)}, and it gives {result!r}")
        found = as_choice(result, CLASSES)
        if found != truth:
            raise NotYet(f"{situation} it says {found}")


EXERCISES = (
    Exercise(
        name="reversion.rule",
        title="a rule that reads intervals",
        kind="function",
        minutes=12,
        lesson="it says a class only where the whole interval allows it, and only where no second class is allowed.",
        checker=_rule,
    ),
)
