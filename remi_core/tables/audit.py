"""The audit as tables: every switch off and on, which way it moved, and the rows that are no switch."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import yaml
from IPython.display import HTML

from remi_core.escaping import as_html
from remi_core.estimates.audit.findings import Finding
from remi_core.estimates.audit.switches import Audited, declared
from remi_core.figures.alt import number, with_interval
from remi_core.presets.known import Preset
from remi_core.statistics.intervals import Estimate
from remi_core.storage.store import project_root
from remi_core.tables.pages import table_html
from remi_core.trail import TRAIL

ROWS = Path(__file__).parents[1] / "estimates" / "audit" / "rows.yaml"
SIDES = ("off", "on", "difference")
COLUMNS = ["row", "key", "group", "severity", "label", "unit", "expected", "seed", "afterwards"]
COLUMNS += [name + end for name in SIDES for end in ("", "_low", "_high")]
AS_SAID, WITHIN, OTHER_WAY, MIXED, NO_CHANGE = (
    "as the audit says",
    "as the audit says, but its interval holds zero",
    "the other way",
    "no clear direction",
    "no change",
)
"""How a quantity with a stated direction may turn out."""


def finding_table(audited: Audited) -> pd.DataFrame:
    """One row a quantity and seed: row, key, group, label, unit, expected, seed, and off, on and difference.

    Each of the three has _low and _high, the 95 % interval over prompt templates. No rows where no switch could be
    measured.
    """
    about = {(one.row, each.key): (one, each) for one in declared() for each in one.quantities}
    rows = []
    for seed, findings in audited.findings.items():
        for finding in findings:
            switch, quantity = about[finding.row, finding.key]
            rows.append(
                {"row": switch.row, "key": quantity.key, "group": switch.group, "severity": switch.severity}
                | {"label": quantity.name, "unit": quantity.unit, "expected": quantity.expected, "seed": seed}
                | {"afterwards": quantity.afterwards}
                | _sides(finding)
            )
    order = {(one.row, each.key): at for at, (one, each) in enumerate(about.values())}
    table = pd.DataFrame(rows, columns=COLUMNS)
    place = [order[row, key] for row, key in zip(table["row"], table["key"], strict=True)]
    return table.assign(place=place).sort_values(["place", "seed"], ignore_index=True).drop(columns="place")


def _sides(finding: Finding) -> dict[str, float]:
    columns = {}
    for name in SIDES:
        estimate: Estimate = getattr(finding, name)
        columns |= {name: float(estimate.value)}
        columns |= {f"{name}_low": float(estimate.low), f"{name}_high": float(estimate.high)}
    return columns


def outcome(rows: pd.DataFrame) -> str:
    """Which way a quantity moved, by the first seed's interval and the sign in every seed; its rows as they are."""
    first, expected = rows.iloc[0], str(rows.iloc[0]["expected"])
    if (rows["difference"] == 0).all():
        return NO_CHANGE
    sure = first["difference_low"] > 0 or first["difference_high"] < 0
    up, down = (rows["difference"] > 0).all(), (rows["difference"] < 0).all()
    if expected == "either":
        if not sure or not (up or down):
            return MIXED
        return "it rises" if up else "it falls"
    if up if expected == "up" else down:
        return AS_SAID if sure else WITHIN
    return OTHER_WAY if sure and (up or down) else MIXED


def outcome_table(table: pd.DataFrame, group: str) -> pd.DataFrame:
    """One row a quantity of a group: the defect, both values, the difference with its interval, and which way."""
    titles = {one.row: one.title for one in declared()}
    rows = []
    for (row, _), each in table[table["group"] == group].groupby(["row", "key"], sort=False):
        first = each.iloc[0]
        rows.append(
            {
                "switch": f"{row} ({first['severity']})",
                "defect": titles[row],
                "quantity": f"{first['label']} [{first['unit']}]",
                "off": float(first["off"]),
                "on": float(first["on"]),
                "on − off": with_interval(*first[["difference", "difference_low", "difference_high"]]),
                "by seed": ", ".join(number(value) for value in each["difference"]),
                "the audit says": f"{first['expected']}{' (added)' if first['afterwards'] else ''}",
                "here": outcome(each),
            }
        )
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame, group: str = "") -> str:
    """How many quantities of a group, or of all, moved as the audit says, and which did not.

    Those that were added afterwards are counted apart.
    """
    chosen = table[table["group"] == group] if group else table
    if chosen.empty:
        return "None of these switches could be measured for this preset."
    directed = chosen[chosen["expected"] != "either"]
    first, added = (directed[directed["afterwards"] == late] for late in (False, True))
    parts = [_counted(first, "with a direction stated beforehand")]
    if len(added):
        parts.append(_counted(added, "added afterwards, where what the defect needs is given to the models"))
    return " ".join(parts)


def _counted(table: pd.DataFrame, which: str) -> str:
    found = {key: outcome(rows) for key, rows in table.groupby(["row", "key"], sort=False)}
    labels = {(one.row, each.key): each.name for one in declared() for each in one.quantities}
    held = sum(word == AS_SAID for word in found.values())
    others = "; ".join(
        f"switch {row}, {labels[row, key]}: {word}" for (row, key), word in found.items() if word != AS_SAID
    )
    text = f"{held} of {len(found)} quantities {which} moved as the audit says, beyond their interval and in every seed"
    return f"{text}. The others: {others}." if others else f"{text}."


def missing_sentence(audited: Audited) -> str:
    """Which switches this preset has no data for, in words."""
    if not audited.missing:
        return "Every switch could be measured for this preset."
    parts = "; ".join(f"{row} {reason}" for row, reason in sorted(audited.missing.items()))
    return f"Switches that this preset cannot show, or not in full: {parts}."


def no_switch_table(severity: str) -> pd.DataFrame:
    """The rows of the audit that are no switch: "AB" why they cannot be one, "C" what became of them."""
    entries = yaml.safe_load(ROWS.read_text(encoding="utf-8"))
    return pd.DataFrame(
        [
            {
                "row": str(one["row"]),
                "severity": one["severity"],
                "in the release": one["title"],
                "here": one["here"],
            }
            for one in entries
            if one["severity"] in severity
        ]
    )


def stored_findings(name: str) -> pd.DataFrame | None:
    """The table of a run that takes too long for a reader's machine, or None where none is kept.

    It lies in ``stored/<name>/audit.json`` under the key ``findings``: the rows of ``finding_table``.
    """
    path = project_root() / "stored" / name / "audit.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    findings = found.pop("findings")
    TRAIL.load(f"stored/{name}/audit.json", found, stored=True)
    return pd.DataFrame(findings)


def stored_html(name: str) -> HTML:
    """The stored audit of a preset as a table marked as stored, or a sentence that none is kept."""
    table = stored_findings(name)
    if table is None:
        return HTML(f"<p>No stored audit of <code>{as_html(name)}</code> is kept in this edition.</p>")
    parts = [outcome_table(table, group) for group in dict.fromkeys(table["group"])]
    return table_html(pd.concat(parts, ignore_index=True), f"Stored result, not computed here: {name}")


def audited_sets(preset: Preset) -> int:
    """Dialogues a set in the audit: as many as the set has, at most ``n_audit_dialogues``."""
    return min(preset.n_audit_dialogues, preset.n_dialogues)
