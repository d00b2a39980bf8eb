"""The verdict of the rule on results with a fault in them, for one seed, and whether the fault reached a row."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from remi_core.claims.declarations import get_claim
from remi_core.claims.report import adjusted_p_values, compute_headline
from remi_core.claims.rules import verdict
from remi_core.estimates.measured import Measured
from remi_core.planted.faults import Exchange, FaultyResults, Substitute
from remi_core.results import Results


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One row of the report under a fault."""

    row: str
    measured: Measured
    word: str
    """The verdict, from this seed alone."""
    p_value: float
    """Of the null, after Holm's correction over the family of the row; 1 where the row is in none."""
    touched: bool
    """Whether anything that the headline read was changed by the fault."""


def judged(
    results: Results,
    seed: int,
    rows: Iterable[str],
    *,
    fault: Exchange | Substitute,
    beside: Mapping[str, Measured],
) -> list[Judged]:
    """Each row under the fault. ``beside`` are rows without it, which complete the families of Holm's correction."""
    found, touched = {}, {}
    faulty = FaultyResults(results.preset, results.store, true=results, fault=fault)
    for row in rows:
        faulty.touched = False
        found[row] = compute_headline(faulty, row, seed)
        touched[row] = faulty.touched
    adjusted = adjusted_p_values({name: _defined(one) for name, one in {**beside, **found}.items()})
    return [
        Judged(
            row=row,
            measured=one,
            word=verdict(get_claim(row), [_defined(one)], [adjusted.get(row, 1.0)])[0],
            p_value=adjusted.get(row, 1.0),
            touched=touched[row],
        )
        for row, one in found.items()
    ]


def _defined(one: Measured) -> Measured | None:
    """A quantity that is no number is None to the rule, unless it says what is missing."""
    return one if math.isfinite(one.value) or one.missing else None


def same(first: Measured, second: Measured) -> bool:
    """Whether two headlines agree in every bit, their nulls and companions included."""
    texts = [json.dumps(asdict(one), sort_keys=True) for one in (first, second)]
    return texts[0] == texts[1]
