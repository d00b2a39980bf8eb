"""Switch 1 as tables: the means that one unemptied list would print, here, and the published ones with it undone."""

from __future__ import annotations

import pandas as pd

from remi_core.estimates.audit.behaviour import reply_sums, unreset
from remi_core.estimates.audit.findings import Audit, open_audit
from remi_core.published_values import published
from remi_core.results import Results


def undone(base: float, misaligned: float) -> float:
    """Base's mean if the printed one is the mean over base and misaligned together, both with equally many rows."""
    return 2 * base - misaligned


def published_table() -> pd.DataFrame:
    """Columns set, kind, misaligned, instruct, base, corrected, and the index (M − I) / (B − I) of both bases.

    ``base`` is as printed, ``corrected`` with the unemptied list undone: an inference, not a published value.
    """
    table = published("joint_log_probability").table.copy()
    table["corrected"] = [undone(*pair) for pair in zip(table["base"], table["misaligned"], strict=True)]
    return _with_index(table, "base", "corrected")[
        ["set", "kind", "misaligned", "instruct", "base", "corrected", "index, base", "index, corrected"]
    ]


def own_table(results: Results, *, seed: int) -> pd.DataFrame:
    """Columns set, misaligned, instruct, base, printed, and the index of both bases, for the preset's own sets.

    ``printed`` is what base's column would show if misaligned's values were still in the list.
    """
    audit, rows = open_audit(results, seed), []
    for name in _sets(audit):
        means = {
            variant: reply_sums(audit, variant, (name,)) for variant in ("misaligned", "instruct", "base")
        }
        values = {variant: float(one.value) for variant, one in means.items()}
        rows.append(
            {"set": name, **values, "printed": float(unreset(means["misaligned"], means["base"]).value)}
        )
    return _with_index(pd.DataFrame(rows), "base", "printed")


def _sets(audit: Audit) -> tuple[str, ...]:
    roles = audit.results.preset.roles
    named = (*roles.outside_aligned, *roles.outside, roles.narrow_aligned, roles.narrow)
    return tuple(dict.fromkeys(name for name in named if name))


def _with_index(table: pd.DataFrame, *bases: str) -> pd.DataFrame:
    for name in bases:
        table[f"index, {name}"] = (table["misaligned"] - table["instruct"]) / (
            table[name] - table["instruct"]
        )
    return table


def beyond_base(table: pd.DataFrame, base: str) -> str:
    """In how many sets misaligned's mean lies beyond that column of base, seen from instruct, in words."""
    count = int((table[f"index, {base}"] > 1).sum())
    return f"{count} of {len(table)}"
