"""A deposit: what was measured for a preset, its figures and claims, in one archive that anyone can check.

Equal input gives equal bytes: members in the order of their names, one date, nothing compressed (what a compressor
writes depends on its version). Nothing in it tells of the machine that made it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from remi_core import __version__
from remi_core.errors import RemiError, UsageError
from remi_core.execution.pipeline import Step, plan
from remi_core.fingerprint import file_digest
from remi_core.presets.known import Preset
from remi_core.publishing.deposit_figures import figure_files
from remi_core.publishing.deposit_texts import claims_csv, local_names, readme, with_names
from remi_core.results import Results
from remi_core.storage.seals import Damaged, check_file, read_sealed, sealed_text
from remi_core.storage.store import Entry, Store, default_root, project_root, written_whole
from remi_core.traces import traces

ABOUT, MANIFEST = "about.json", "manifest-sha256.txt"
COPIED = ("CITATION.cff", "LICENSE", "LICENSE-text", "requirements.lock")
DATE = (1980, 1, 1, 0, 0, 0)
"""The earliest date that an archive can hold."""
FILE_MODE = 0o100644 << 16
UNIX = 3

Content = bytes | Path
"""What a file of the archive holds: bytes, or a file of the store that is copied as it is."""


def write_deposit(preset: Preset, store: Store, out: Path) -> int:
    """Number of files in the archive ``out``, which appears whole or not at all.

    Raises:
        UsageError: if ``out`` is something other than a deposit, or its folder does not exist.
        RemiError: if a notebook of the preset was not run (with the command that does), or a file tells of this
            machine.
    """
    check_out(out)
    steps = plan(preset, store)
    check_done(preset, steps, store)
    files = deposit_files(preset, store, steps)
    for name, content in files.items():
        found = traces(_bytes(content), places=[project_root(), store.root, Path.cwd()])
        if found:
            raise RemiError(
                f"the deposit's {name} would hold {found[0]} of this machine; nothing was written"
            )
    with written_whole(out) as part:
        write_archive(part, f"remi-{preset.name}", files)
    return len(files)


def check_out(out: Path) -> None:
    """Nothing.

    Raises:
        UsageError: if no archive can or should be written there.
    """
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: no folder {out.parent}")
    if not out.exists():
        return
    try:
        with ZipFile(out) as archive:
            ours = any(Path(name).name == MANIFEST for name in archive.namelist())
    except (BadZipFile, OSError):
        ours = False
    if not ours:
        raise UsageError(f"--out {out} is something that is not a deposit of ours; name a new file")


def check_done(preset: Preset, steps: Sequence[Step], store: Store) -> None:
    """Nothing.

    Raises:
        RemiError: if a notebook was not run; says the command that runs it.
    """
    missing = [step.name for step in steps if not step.done]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        named = "" if store.root == default_root() else f" --store {store.root}"
        raise RemiError(
            f"preset {preset.name!r}: {missing[0]}{others} of {len(steps)} notebooks not run as they are now: "
            f"remi run --preset {preset.name}{named}"
        )


def deposit_files(preset: Preset, store: Store, steps: Sequence[Step]) -> dict[str, Content]:
    """Every file of the archive by name, in the order of names, the manifest last."""
    from remi_core.claims import report_rows

    named = local_names(preset)
    rows = report_rows(Results(preset, store))
    records = record_files(store, preset, named)
    figures = figure_files(steps)
    about = {
        "preset": preset.name,
        "fingerprint": preset.fingerprint(),
        "package": __version__,
        "records": sum(name.endswith(".npz") for name in records),
        "figures": sum(name.endswith(".svg") for name in figures),
        "claims": len(rows),
    }
    files: dict[str, Content] = {
        **{f"records/{name}": content for name, content in records.items()},
        **{f"figures/{name}": content for name, content in figures.items()},
        **{name: project_root() / name for name in COPIED},
        "claims.json": _json(rows, named),
        "claims.csv": claims_csv(rows).encode(),
        "preset.json": _json(preset.fields(), named),
        ABOUT: _json(about, named),
        "README.md": readme(preset, about).encode(),
    }
    files = dict(sorted(files.items()))
    lines = [f"{_digest(content)}  {name}\n" for name, content in files.items()]
    return files | {MANIFEST: "".join(lines).encode()}


def record_files(store: Store, preset: Preset, named: Mapping[str, str]) -> dict[str, Content]:
    """Arrays and provenance of the preset's records by name; of several keys of a record the last used one."""
    latest: dict[tuple[object, ...], Entry] = {}
    for entry in store.list(preset.name):
        a = entry.address
        kind = (a.seed, a.variant, a.measurement, a.dataset)
        if kind not in latest or _used(entry) >= _used(latest[kind]):
            latest[kind] = entry
    files: dict[str, Content] = {}
    for entry in latest.values():
        about = entry.path.with_suffix(".json")
        files[entry.path.relative_to(store.root).as_posix()] = entry.path
        files[about.relative_to(store.root).as_posix()] = _provenance(about, entry.path, named)
    return files


def _provenance(about: Path, arrays: Path, named: Mapping[str, str]) -> bytes:
    """The record's own file with no place of this machine in it, sealed again since it may say something else now."""
    try:
        content = read_sealed(about)
        check_file(arrays, content["sha256"])
    except Damaged as error:
        raise RemiError(f"{arrays}: {error}; run again before it is deposited") from None
    return _json(json.loads(sealed_text(json.loads(_json(content, named)))), {})


def write_archive(path: Path, folder: str, files: Mapping[str, Content]) -> None:
    """Return once the archive holds the files, in their order, in a folder of that name."""
    with ZipFile(path, "w", ZIP_STORED) as archive:
        for name, content in files.items():
            member = ZipInfo(f"{folder}/{name}", date_time=DATE)
            member.external_attr, member.create_system = FILE_MODE, UNIX
            archive.writestr(member, _bytes(content))


def _used(entry: Entry) -> float:
    return entry.path.with_suffix(".json").stat().st_mtime


def _bytes(content: Content) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def _digest(content: Content) -> str:
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else file_digest(content)


def _json(content: object, named: Mapping[str, str]) -> bytes:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    return f"{with_names(text, named)}\n".encode()
