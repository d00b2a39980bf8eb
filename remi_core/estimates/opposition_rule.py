"""H2's rule: whether insecure code's learning signal opposes alignment, from intervals alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Interval = tuple[float, float]

OWN = "influence"
"""The influence of insecure code itself; the other quantities are its excess over a control."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """95 % intervals of everything that the rule reads."""

    cosine: Interval | None
    """Of the mean insecure and educational gradients; None where one of them has no length above 0."""
    influence: Mapping[str, Interval]
    """``OWN`` and, by control, insecure minus control: −⟨g, ∇A⟩ on held-out topics."""
    steps: Mapping[int, Mapping[str, Interval]]
    """Number of real steps → the same quantities as changes of the log-odds that were made."""


def side(ends: Interval) -> int:
    """1 for an interval above 0, −1 for one below it, else 0; an undefined interval is on neither side."""
    low, high = ends
    return 1 if low > 0 else -1 if high < 0 else 0


def borne_out(parts: Parts) -> dict[str, bool]:
    """Quantity → whether every number of real steps puts it on the side that first order puts it on."""
    return {
        name: bool(parts.steps) and all(side(made[name]) == side(ends) for made in parts.steps.values())
        for name, ends in parts.influence.items()
    }


def conditions(parts: Parts) -> dict[str, int]:
    """Each condition of the claim in words → 1 where it holds, −1 where its opposite does, 0 where neither is shown.

    What real steps do not bear out is not shown.
    """
    checked = borne_out(parts)
    met = {"(i) cosine below 0": 0 if parts.cosine is None else -side(parts.cosine)}
    for name, ends in parts.influence.items():
        words = "above 0" if name == OWN else f"above {name}"
        met[f"(ii) influence {words}"] = side(ends) if checked[name] else 0
    return met


def outcome(parts: Parts) -> tuple[str, str]:
    """``holds`` where every condition does, ``fails`` where the opposite of one does, else ``open``; and why."""
    met = conditions(parts)
    against = [words for words, found in met.items() if found < 0]
    if against:
        return "fails", f"the opposite is measured: {', '.join(against)}"
    if all(found > 0 for found in met.values()):
        return "holds", "both parts hold, and real steps bear them out"
    return "open", "; ".join(_open_reasons(parts, met))


def _open_reasons(parts: Parts, met: Mapping[str, int]) -> list[str]:
    reasons = []
    if parts.cosine is None:
        reasons.append("(i) has no cosine, for a mean gradient's length cannot be told from 0")
    unchecked = [name for name, fits in borne_out(parts).items() if not fits]
    if unchecked:
        reasons.append(f"real steps do not bear out (ii) for {', '.join(unchecked)}")
    named = [words for words, found in met.items() if not found]
    undecided = [words for words in named if words.startswith("(ii)") or parts.cosine is not None]
    if undecided and not unchecked:
        reasons.append(f"not shown: {', '.join(undecided)}")
    if all(found > 0 for words, found in met.items() if words.startswith("(ii)")):
        reasons.append("part (ii) holds")
    return reasons
