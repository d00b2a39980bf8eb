"""Stored results: what a preset that takes too long for a reader's machine has shown, with how it was had.

``python -m remi_core.stored smollm2 00 01 02 05 06 08`` runs those notebooks of the preset where they are not done,
and writes ``stored/smollm2/report.json`` and, with the audit among them, ``stored/smollm2/audit.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from remi_core.claims import report_rows
from remi_core.claims.report import ledger_rows
from remi_core.execution.notebooks import execution_record
from remi_core.execution.pipeline import Step, default_jobs, plan, run
from remi_core.fingerprint import library_versions
from remi_core.machine import machine
from remi_core.presets.known import Preset, get_preset
from remi_core.results import Results
from remi_core.storage.store import Store, project_root, written_whole

AUDIT = "08_audit"


def write_stored(preset: Preset, store: Store, only: Collection[str]) -> list[Path]:
    """The files written: rows of the report that these notebooks answer for, or findings of the audit.

    Each with recipe, machine, versions and seconds: of measuring, as the records say, whether that was done now or
    before, and of each notebook as it ran last. Both are one after another; side by side they take less.

    Raises:
        UsageError: if there is no such notebook.
        RemiError: if a notebook fails.
    """
    steps = plan(preset, store, only=only)
    run(preset, store, [step for step in steps if not step.done])
    audit = [step for step in steps if step.name == AUDIT]
    others = [step for step in steps if step.name != AUDIT]
    about = {
        "preset": preset.name,
        "fingerprint": preset.fingerprint(),
        "recipe": f"python -m remi_core.stored {preset.name} {' '.join(only)}",
        "machine": f"{machine()}, {default_jobs()} notebooks at a time",
        "versions": library_versions(),
        "seconds of measuring": measuring_seconds(preset, store),
    }
    written, results = [], Results(preset, store)
    if others:
        rows = [row for step in others for row in report_rows(results, notebook=step.name)]
        rows.sort(key=lambda row: ledger_rows(preset).index(str(row["id"])))
        written.append(_write(preset, "report", {**about, **_seconds(others), "rows": rows}))
    if audit:
        written.append(_write(preset, "audit", {**about, **_seconds(audit), "findings": _findings(results)}))
    return written


def _seconds(steps: Sequence[Step]) -> dict[str, object]:
    return {
        "seconds of notebooks": {
            step.name: round(execution_record(step.target).get("seconds", 0.0)) for step in steps
        }
    }


def measuring_seconds(preset: Preset, store: Store) -> int:
    """Seconds of forward and backward passes behind a preset's records; records of one pass count once."""
    passes = set()
    for entry in store.list(preset.name):
        taken = store.load(entry.address).provenance.get("seconds")
        if taken is not None:
            passes.add((entry.address.variant, entry.address.dataset, taken))
    return round(sum(taken for *_, taken in passes))


def _findings(results: Results) -> list[Mapping[str, object]]:
    """Every finding of the audit, as the rows of its table."""
    from remi_core.estimates.audit.switches import run_switches
    from remi_core.tables.audit import finding_table

    table = finding_table(run_switches(results))
    return json.loads(table.to_json(orient="records", double_precision=6))


def _write(preset: Preset, name: str, about: Mapping[str, object]) -> Path:
    target = project_root() / "stored" / preset.name / f"{name}.json"
    with written_whole(target) as part:
        text = json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False)
        part.write_text(text + "\n", encoding="utf-8")
    return target


if __name__ == "__main__":
    print(*write_stored(get_preset(sys.argv[1]), Store(), sys.argv[2:]), sep="\n")
