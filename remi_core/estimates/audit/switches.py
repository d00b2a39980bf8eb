"""All switches of the audit by row, and what each quantity is expected to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType

import yaml

from remi_core.errors import MissingInput
from remi_core.estimates.audit import behaviour, direction, gradients, subspace
from remi_core.estimates.audit.findings import Audit, Finding, open_audit
from remi_core.estimates.audit.labels import merged_labels, merged_labels_of_base
from remi_core.results import Results

DECLARED = Path(__file__).with_name("switches.yaml")

SWITCHES: Mapping[int, tuple[Callable[[Audit], list[Finding]], ...]] = MappingProxyType(
    {
        1: (behaviour.shared_list,),
        2: (direction.own_header,),
        3: (behaviour.unread_markers, lambda audit: [direction.unread_distance(audit)]),
        4: (gradients.centring,),
        5: (gradients.whole_sequence,),
        6: (gradients.two_models,),
        7: (behaviour.wrong_token,),
        8: (subspace.end_state, subspace.end_distance),
        9: (gradients.group_filling,),
        10: (behaviour.end_tokens, behaviour.unread_end_tokens),
        12: (behaviour.dropped_input,),
        13: (behaviour.later_turns,),
        14: (behaviour.all_positions,),
        16: (direction.role_window,),
        17: (direction.cut_layers,),
        18: (direction.in_sample,),
        20: (subspace.centred_components,),
        21: (gradients.half_precision,),
        31: (merged_labels, merged_labels_of_base),
    }
)
"""Row of the audit table → what computes its findings, off and on."""


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What a switch changes, and what the audit table says it does to it."""

    key: str
    name: str
    unit: str
    expected: str
    """``up``, ``down``, or ``either`` where the table names no direction."""
    afterwards: bool = False
    """Whether it was added when the models had been seen: they lacked what the defect needs, so it is given to them."""


@dataclass(frozen=True, kw_only=True)
class Switch:
    """One defect of severity A or B that can be switched on."""

    row: int
    severity: str
    group: str
    concerns: str
    """Rows of the claim ledger."""
    title: str
    """The defect, in a few words."""
    quantities: tuple[Quantity, ...]


@cache
def declared() -> tuple[Switch, ...]:
    """Every switch, group by group; quantities as written before anything was measured, and those added afterwards."""
    entries = yaml.safe_load(DECLARED.read_text(encoding="utf-8"))
    return tuple(
        Switch(**entry | {"quantities": tuple(Quantity(**one) for one in entry["quantities"])})
        for entry in entries
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Audited:
    """The findings of every seed."""

    findings: Mapping[int, tuple[Finding, ...]]
    """Seed → findings, in the order of the rows."""
    missing: Mapping[int, str] = field(default_factory=dict)
    """Row → what the preset lacks to switch it, or a part of it."""


def run_switches(results: Results, rows: tuple[int, ...] = tuple(SWITCHES)) -> Audited:
    """Every finding of these rows in every seed; what is missing in the store is measured first."""
    found: dict[int, tuple[Finding, ...]] = {}
    missing: dict[int, str] = {}
    for seed in results.preset.seeds:
        audit, of_seed = open_audit(results, seed), []
        for row in rows:
            for compute in SWITCHES[row]:
                try:
                    of_seed += compute(audit)
                except MissingInput as error:
                    missing[row] = str(error)
        found[seed] = tuple(of_seed)
    return Audited(findings=found, missing=missing)
