"""What each claim predicts, declared before the results that judge it.

A claim names its estimand, the side of a boundary on which the paper puts it, the smallest effect that
would matter, its null and its controls. The verdict is then computed by ``rules``, never written.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import yaml

from remi_core.errors import UsageError, nearest


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the paper or its released files show; shown beside ours, never compared in size across models."""

    value: float | None
    text: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim and everything needed to judge it."""

    id: str
    section: str
    claim: str
    """The claim in our words."""
    published: Published
    estimand: str
    unit: str
    side: int
    """+1 where the claim puts the value above the boundary, -1 below."""
    boundary: float
    smallest_effect: float
    """Distance from the boundary below which an effect would not matter, in the unit of the value."""
    null: str
    notebook: str
    """Stem of the notebook that shows it; "" where none does."""
    controls: bool = True
    """Whether the quantity belongs to a variant, so that every control must differ from misaligned."""
    descriptive: bool = False
    """Shown, not judged."""
    wording: str = "figure and table of the released repository, as summarised in the book"
    """Where the claim's wording comes from."""
    full_rule: str = ""
    """The whole rule in words where the value above is only a part of it."""
    cap: str = ""
    """The strongest verdict that this edition can give, whatever the value; "" where the rule alone decides."""
    cap_reason: str = ""
    """What stands between the value and a stronger verdict."""
    once: bool = False
    """Measured in the first seed alone, since models it needs were trained once."""
    by_outcome: bool = False
    """Judged by ``full_rule`` alone, which each seed's headline has applied to all its parts (``Measured.outcome``)."""
    untestable: str = ""
    """Why nothing can be measured for this row on any models; "" where something can."""


def _claims() -> tuple[Claim, ...]:
    text = resources.files(__package__).joinpath("claims.yaml").read_text(encoding="utf-8")
    return tuple(Claim(**row | {"published": Published(**row["published"])}) for row in yaml.safe_load(text))


CLAIMS = _claims()


def get_claim(identifier: str) -> Claim:
    """The claim with that identifier; a part such as ``C3.facts-careless`` without a rule of its own is judged by its
    claim.

    Raises:
        UsageError: if there is none.
    """
    declared = {claim.id: claim for claim in CLAIMS}
    found = declared.get(identifier) or declared.get(identifier.partition(".")[0])
    if found is not None:
        return found
    raise UsageError(f"no claim {identifier!r} {nearest(identifier, [claim.id for claim in CLAIMS])}")
