"""What a page shows that is stored beside the code: digests of it for the page's key, and what is not stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from remi_core.bench.files import digests, newest
from remi_core.execution.parameters import declared_parameters
from remi_core.fingerprint import file_digest
from remi_core.presets.known import Preset
from remi_core.presets.roles import BENCHMARK, STUDY
from remi_core.storage.store import project_root
from remi_core.studies.files import study_digests

STORED = "stored"
"""Parameter of a notebook that shows a stored result: the name of its preset."""
STUDIES = "studies"
"""Parameter of a notebook that shows stored studies: their names, a space between two."""
BENCHMARKS = "benchmarks"
"""Parameter of a notebook that shows a stored benchmark: the newest."""


def shown_by(source: Path, preset: Preset, given: Mapping[str, object]) -> dict[str, object]:
    """Digests of all that a notebook shows and that is stored beside the code."""
    declared = declared_parameters(source)
    shown: dict[str, object] = {}
    if STORED in declared:
        path = project_root() / "stored" / str(given.get(STORED, declared[STORED].default)) / "audit.json"
        shown[STORED] = file_digest(path) if path.is_file() else None
    if STUDIES in declared:
        shown[STUDIES] = study_digests(preset.name, _studies_of(source))
    if BENCHMARKS in declared:
        shown[BENCHMARKS] = digests()
    return shown


def not_stored(source: Path, preset: Preset) -> tuple[str, ...]:
    """What a notebook shows and is not stored, of ``NEEDS``: a study for the preset, or any benchmark."""
    wanted = _studies_of(source)
    lacking = [] if study_digests(preset.name, wanted).keys() >= set(wanted) else [STUDY]
    if BENCHMARKS in declared_parameters(source) and newest() is None:
        lacking.append(BENCHMARK)
    return tuple(lacking)


def _studies_of(source: Path) -> list[str]:
    declared = declared_parameters(source)
    return str(declared[STUDIES].default).split() if STUDIES in declared else []
