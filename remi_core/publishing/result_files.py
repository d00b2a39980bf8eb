"""The result files that the directives of the book read: written beside the pages, none where nothing was run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from remi_core.execution.notebooks import execution_record
from remi_core.execution.pipeline import Step
from remi_core.presets.known import Preset
from remi_core.publishing.citation import citation
from remi_core.publishing.edition import Edition
from remi_core.storage.store import Store, project_root

SITE, CITATION = "site.json", "citation.json"

DRILL, FUZZ = "drill.json", "fuzz.json"
"""The outcomes of ``make drill``, in ``stored/`` and beside the pages: what was broken, and what was fed in."""


def write_results(preset: Preset, store: Store, steps: Sequence[Step], folder: Path) -> None:
    """Return once claims and their declarations, status, facts, notices and data cards lie in the folder."""
    from remi_core.claims.declarations import CLAIMS  # brings pandas, as the other imports below

    declared = [asdict(one) for one in CLAIMS]
    files: dict[str, object] = {"status.json": _status(steps), "declarations.json": declared}
    if store.list(preset.name):
        from remi_core.claims import report_rows
        from remi_core.results import Results

        files["claims.json"] = report_rows(Results(preset, store))
    if steps and all(step.done for step in steps):
        from remi_core.facts import facts, notices

        files |= {"facts.json": facts(preset, store), "notice.json": notices(preset, store)}
        if preset.is_organism:
            from remi_core.publishing.front import PASSPORT_FILE, front

            files["front.json"], passport = front(Results(preset, store), files["claims.json"])
            (folder / PASSPORT_FILE).write_text(passport, encoding="utf-8")
    from remi_core.data_cards import data_cards  # brings pandas: only where a book is built

    files["data-cards.json"] = data_cards(preset, store)
    write_json(folder, files)


def write_edition(
    preset: Preset, edition: Edition, notebooks: Mapping[str, str], fingerprint: str, folder: Path
) -> None:
    """Return once the files lie in the folder that tell which edition of the book this is, and how to cite it.

    ``notebooks`` is page → path of the notebook it was made from, within the repository.
    """
    files: dict[str, object] = {SITE: edition.page_data(preset.name) | {"notebooks": dict(notebooks)}}
    source = project_root() / "CITATION.cff"
    if source.is_file():
        files[CITATION] = citation(
            source, preset=preset.name, fingerprint=fingerprint, address=edition.repository
        )
    write_json(folder, files)


def stored_files() -> dict[str, Path]:
    """Name beside the pages → stored report of a preset, or outcome of the drills and of generated inputs."""
    stored = project_root() / "stored"
    reports = {f"stored-{path.parent.name}.json": path for path in sorted(stored.glob("*/report.json"))}
    return reports | {name: stored / name for name in (DRILL, FUZZ) if (stored / name).is_file()}


def write_json(folder: Path, files: dict[str, object]) -> None:
    """Return once each content lies in the folder under its name."""
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _status(steps: Sequence[Step]) -> list[dict[str, object]]:
    rows = []
    for step in steps:
        about = execution_record(step.target) if step.done else {}
        rows.append(
            {
                "notebook": step.name,
                "finished": step.done,
                "ended": about.get("ended"),
                "seconds": about.get("seconds"),
                "device": about.get("machine"),
            }
        )
    return rows
