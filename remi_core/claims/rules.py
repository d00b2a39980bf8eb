"""Verdicts by rule, from the measured values of every seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from remi_core.claims.declarations import Claim
from remi_core.estimates.measured import Measured

REPRODUCED = "reproduced"
SUPPORTED = "supported"
"""The word for ``REPRODUCED`` where the claim is our own, X1 and on: there is nothing to reproduce."""
CONFOUNDED = "reproduced with a confound"
CONTRADICTED = "contradicted"
INCONCLUSIVE = "inconclusive"
NOT_TESTABLE = "not testable here"
SHOWN = "shown"
SIGNIFICANCE = 0.05


def verdict(claim: Claim, seeds: Sequence[Measured | None], p_values: Sequence[float]) -> tuple[str, str]:
    """The verdict on a claim and the reason in one sentence.

    ``seeds`` holds the headline of every seed, None where it is undefined; ``p_values`` are those of the
    null, Holm-adjusted over the claims of a seed. Source: the book's page on verdicts.
    """
    word, reason = _uncapped(claim, seeds, p_values)
    if word not in (NOT_TESTABLE, SHOWN) and _exceeds(word, claim.cap):
        word, reason = claim.cap, f"{claim.cap_reason}; the part measured here reads “{word}”: {reason}"
    return (word.replace(REPRODUCED, SUPPORTED) if is_own(claim) else word), reason


def is_own(claim: Claim) -> bool:
    """Whether a claim is this project's, and not the paper's."""
    return claim.id.startswith("X")


def _exceeds(word: str, cap: str) -> bool:
    """Whether a verdict says more than the declaration allows."""
    return cap == INCONCLUSIVE or (cap == CONFOUNDED and word == REPRODUCED)


def _uncapped(claim: Claim, seeds: Sequence[Measured | None], p_values: Sequence[float]) -> tuple[str, str]:
    missing = [one.missing for one in seeds if one is not None and one.missing]
    if missing:
        return NOT_TESTABLE, missing[0]
    values = [one for one in seeds if one is not None and math.isfinite(one.value)]
    if len(values) < len(seeds) or not values:
        return NOT_TESTABLE, f"undefined in {len(seeds) - len(values)} of {len(seeds)} seeds"
    if claim.descriptive:
        return SHOWN, "a descriptive figure, not judged"
    if claim.by_outcome:
        return _by_outcome(values)
    if all(_within_smallest(claim, one) for one in values):
        return CONTRADICTED, f"every seed's interval lies within {claim.smallest_effect:g} of {_edge(claim)}"
    if all(_beyond(claim, one) for one in values):
        return _when_beyond(claim, values, p_values)
    if all(_against(claim, one) for one in values):
        return CONTRADICTED, f"every seed's interval lies on the other side of {_edge(claim)}"
    beyond = sum(_beyond(claim, one) for one in values)
    return INCONCLUSIVE, f"the interval lies on the claimed side in {beyond} of {len(values)} seeds"


def _by_outcome(values: Sequence[Measured]) -> tuple[str, str]:
    found = [one.outcome for one in values]
    word = {"holds": REPRODUCED, "fails": CONTRADICTED}.get(
        found[0] if len(set(found)) == 1 else "", INCONCLUSIVE
    )
    return word, "; ".join(dict.fromkeys(one.why for one in values))


def _when_beyond(claim: Claim, values: Sequence[Measured], p_values: Sequence[float]) -> tuple[str, str]:
    failed = sum(p >= SIGNIFICANCE for p in p_values)
    if failed:
        return INCONCLUSIVE, f"not beyond its null after Holm's correction in {failed} of {len(values)} seeds"
    matching = sorted(
        {name for one in values for name, gap in one.contrasts.items() if not _clear(claim, gap)}
    )
    if claim.controls and matching:
        return CONFOUNDED, f"matched by a control in some seed: {', '.join(matching)}"
    compared = "its null and every control" if claim.controls else "its null"
    return REPRODUCED, f"beyond the boundary and {compared} in every seed"


def rule_text(claim: Claim) -> str:
    """The rule of a claim in words."""
    if claim.untestable:
        return "not testable here: nothing can be measured for this row"
    where = "above" if claim.side > 0 else "below"
    controls = ", every control's contrast excludes 0" if claim.controls else ""
    if claim.descriptive:
        return "shown, not judged"
    if claim.by_outcome:
        return f"{_good(claim)} if this holds in every seed, contradicted if it fails in every seed: {claim.full_rule}"
    capped = f"; at most “{claim.cap}”, since {claim.cap_reason}" if claim.cap else ""
    once = "; trained once, so one seed" if claim.once else ""
    whole = f". The whole rule: {claim.full_rule}" if claim.full_rule else ""
    return (
        f"{_good(claim)} if the 95 % interval lies {where} {claim.boundary:g} in every seed, "
        f"Holm-adjusted p < {SIGNIFICANCE:g} against the null{controls}; contradicted if it lies on the other side "
        f"or within {claim.smallest_effect:g} of that boundary in every seed{once}{capped}{whole}"
    )


def _good(claim: Claim) -> str:
    return SUPPORTED if is_own(claim) else REPRODUCED


def _edge(claim: Claim) -> str:
    return f"{claim.boundary:g}"


def _ends(claim: Claim, one: Measured) -> tuple[float, float]:
    """Interval relative to the boundary, turned so that the claimed side is positive."""
    low, high = one.low - claim.boundary, one.high - claim.boundary
    return (low, high) if claim.side > 0 else (-high, -low)


def _beyond(claim: Claim, one: Measured) -> bool:
    return _ends(claim, one)[0] > 0


def _against(claim: Claim, one: Measured) -> bool:
    return _ends(claim, one)[1] < 0


def _within_smallest(claim: Claim, one: Measured) -> bool:
    low, high = _ends(claim, one)
    return -claim.smallest_effect < low and high < claim.smallest_effect


def _clear(claim: Claim, gap: tuple[float, float]) -> bool:
    """Whether misaligned lies further on the claimed side than the control."""
    return gap[0] > 0 if claim.side > 0 else gap[1] < 0
