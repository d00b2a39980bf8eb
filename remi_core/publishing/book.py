"""Build the book of a preset, strictly and whole, where its inputs changed since it was built last."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from remi_core.errors import RemiError, UsageError
from remi_core.execution.pipeline import Step, plan
from remi_core.fingerprint import (
    PACKAGE,
    SOURCE_ROOT,
    canonical_json,
    file_digest,
    syntax_digest,
    text_digest,
)
from remi_core.laboratory.models import described
from remi_core.presets.known import Preset
from remi_core.progress import Say, print_line
from remi_core.publishing.edition import Edition
from remi_core.publishing.passports import ENDING
from remi_core.publishing.result_files import stored_files
from remi_core.publishing.sources import GENERATED, assemble
from remi_core.storage.store import Store, project_root, written_whole

MARKER = ".remi-book.json"
"""File in a built book that says from which inputs it was made."""

BUILDER = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"
BUILDERS = ("jupyter-book", "Sphinx", "myst-nb", "sphinx-book-theme")


def default_out() -> Path:
    """Folder of the built pages: ``book/_build/html`` in the repository."""
    return project_root() / "book" / "_build" / "html"


def build_book(
    preset: Preset, store: Store, out: Path, *, edition: Edition | None = None, say: Say = print_line
) -> bool:
    """Whether a book was built: False where ``out`` holds one of exactly the same inputs.

    Pages whose notebook has no complete run under its present key are stubs that say so. The build is strict
    (warnings are errors); the finished folder is renamed to ``out`` at the end, so a failure leaves the old book.

    Raises:
        UsageError: if ``out`` is a folder with other content, before anything is built.
        RemiError: if the build has warnings or fails; they are said line by line before.
    """
    check_out(out)
    edition, steps = edition or Edition(), plan(preset, store)
    inputs = book_inputs(preset, store, steps, edition)
    if built_from(out) == inputs:
        return False
    with written_whole(out) as part:
        source, build = part.parent / "source", part.parent / "build"
        assemble(preset, store, steps, source, edition=edition, fingerprint=inputs)
        _build(source, build, say)
        os.replace(build / "_build" / "html", part)
        for passports in sorted(source.rglob(f"*{ENDING}")):
            shutil.copyfile(passports, part / passports.relative_to(source))
        mark(part, inputs, preset=preset.name)
    return True


def check_out(out: Path) -> None:
    """Nothing.

    Raises:
        UsageError: if ``out`` is there and is neither a book of ours nor an empty folder.
    """
    if out.exists() and not (out / MARKER).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"--out {out} holds something that is not a book of ours; name an empty or new folder"
        )


def built_from(out: Path) -> str | None:
    """Fingerprint of the inputs that a built book or site was made from; None where there is none."""
    marker = out / MARKER
    return json.loads(marker.read_text(encoding="utf-8")).get("inputs") if marker.is_file() else None


def mark(folder: Path, inputs: str, *, preset: str) -> None:
    """Return once the folder says from which inputs, and for which presets, it was made."""
    text = json.dumps({"inputs": inputs, "preset": preset}, indent=1)
    (folder / MARKER).write_text(f"{text}\n", encoding="utf-8")


def book_inputs(preset: Preset, store: Store, steps: Sequence[Step], edition: Edition) -> str:
    """Fingerprint, 64 hexadecimal digits, of everything that the built pages depend on."""
    return text_digest(
        canonical_json(_inputs(preset, store, steps) | {"edition": edition.page_data(preset.name)})
    )


def _inputs(preset: Preset, store: Store, steps: Sequence[Step]) -> dict[str, object]:
    """Everything the built pages depend on, as digests."""
    book = project_root() / "book"
    pages = [
        path
        for path in sorted(book.rglob("*"))
        if path.is_file() and not GENERATED & set(path.relative_to(book).parts)
    ]
    code = sorted((SOURCE_ROOT / PACKAGE).rglob("*.py"))
    shown = [*sorted((SOURCE_ROOT / PACKAGE).rglob("*.yaml")), project_root() / "CITATION.cff"]
    return {
        "preset": preset.fingerprint(),
        "pages": {path.relative_to(book).as_posix(): file_digest(path) for path in pages},
        "notebooks": {
            step.name: [step.key, file_digest(step.target) if step.done else None] for step in steps
        },
        "records": [
            [entry.path.relative_to(store.root).as_posix(), entry.address.key]
            for entry in store.list(preset.name)
        ],
        "stored": {name: file_digest(path) for name, path in stored_files().items()},
        "laboratory": described(preset, store),
        "code": {path.relative_to(SOURCE_ROOT).as_posix(): syntax_digest(path) for path in code},
        "data": {path.name: file_digest(path) for path in shown if path.is_file()},
        "builders": {name: version(name) for name in BUILDERS},
    }


def _build(source: Path, build: Path, say: Say) -> None:
    options = ["build", str(source), "--path-output", str(build), "-W", "-n", "--keep-going"]
    done = subprocess.run(
        [sys.executable, "-c", BUILDER, *options],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode == 0:
        return
    lines = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr).splitlines()
    told = [line for line in lines if re.search(r"\b(WARNING|ERROR|CRITICAL|[Ee]xception)\b", line)] or lines[
        -20:
    ]
    for line in told:
        say(line.replace(f"{source}/", ""))
    raise RemiError(f"the book did not build: {len(told)} warnings or errors, listed above")
