"""Build the book of a preset: pages by hand, executed notebooks, stubs for what was not run, result files."""

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

import yaml

from remi_core.book_pages import NOT_RUN_PICTURE, page_text, stub_text, without_missing_glue
from remi_core.errors import RemiError, UsageError
from remi_core.fingerprint import (
    PACKAGE,
    SOURCE_ROOT,
    canonical_json,
    file_digest,
    syntax_digest,
    text_digest,
)
from remi_core.notebooks import execution_record
from remi_core.pipeline import Step, plan
from remi_core.presets import Preset
from remi_core.progress import Say, print_line
from remi_core.store import Store, project_root, written_whole

MARKER = ".remi-book.json"
"""File in a built book that says from which inputs it was made."""

DRILL = "drill.json"
"""The outcome of `remi drill`, in ``stored/`` and beside the pages."""

GENERATED = {"_build", "__pycache__"}
BUILDER = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"
BUILDERS = ("jupyter-book", "Sphinx", "myst-nb", "sphinx-book-theme")


def default_out() -> Path:
    """Folder of the built pages: ``book/_build/html`` in the repository."""
    return project_root() / "book" / "_build" / "html"


def build_book(preset: Preset, store: Store, out: Path, *, say: Say = print_line) -> bool:
    """Whether a book was built: False where ``out`` holds one of exactly the same inputs.

    Pages whose notebook has no complete run under its present key are stubs that say so. The build is strict
    (warnings are errors); the finished folder is renamed to ``out`` at the end, so a failure leaves the old book.

    Raises:
        UsageError: if ``out`` is a folder with other content, before anything is built.
        RemiError: if the build has warnings or fails; they are said line by line before.
    """
    if out.exists() and not (out / MARKER).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"--out {out} holds something that is not a book of ours; name an empty or new folder"
        )
    steps = plan(preset, store)
    inputs = text_digest(canonical_json(_inputs(preset, store, steps)))
    marker = json.loads((out / MARKER).read_text(encoding="utf-8")) if (out / MARKER).is_file() else {}
    if marker.get("inputs") == inputs:
        return False
    with written_whole(out) as part:
        source, build = part.parent / "source", part.parent / "build"
        assemble(preset, store, steps, source)
        _build(source, build, say)
        os.replace(build / "_build" / "html", part)
        about = {"inputs": inputs, "preset": preset.name}
        (part / MARKER).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return True


def assemble(preset: Preset, store: Store, steps: Sequence[Step], folder: Path) -> None:
    """Return once ``folder`` holds all sources of the book: pages, notebooks or stubs, and the result files.

    Raises:
        RemiError: if the table of contents names a notebook that does not exist.
    """
    shutil.copytree(project_root() / "book", folder, ignore=shutil.ignore_patterns(*GENERATED))
    pages = folder / "notebooks"
    pages.mkdir(exist_ok=True)
    (pages / "not-run.svg").write_text(NOT_RUN_PICTURE, encoding="utf-8")
    for name, path in _stored_files().items():
        shutil.copyfile(path, folder / name)
    _one_page_a_variant(folder / "_toc.yml", steps)
    listed = pages_listed(folder / "_toc.yml")
    known = {step.name: step for step in steps}
    not_run = {name for name in listed if name not in known or not known[name].done}
    for name in listed:
        source, variant = _source_of(name)
        if name in not_run:
            text = stub_text(source, preset=preset.name, variant=variant)
        else:
            text = page_text(known[name].target, source=source, variant=variant, not_run=not_run)
        (pages / f"{name}.ipynb").write_text(text, encoding="utf-8")
    for page in folder.glob("*.md"):
        page.write_text(without_missing_glue(page.read_text(encoding="utf-8"), not_run), encoding="utf-8")
    _write_results(preset, store, [step for step in steps if step.name in listed], folder)


def _one_page_a_variant(contents: Path, steps: Sequence[Step]) -> None:
    """Replaces each chapter whose notebook runs once a variant by the pages of the preset's variants."""
    pages = {step.source.stem: [] for step in steps if step.variant}
    for step in steps:
        if step.variant:
            pages[step.source.stem].append({"file": f"notebooks/{step.name}"})
    toc = yaml.safe_load(contents.read_text(encoding="utf-8"))
    for part in toc.get("parts", [toc]):
        chapters = [pages.get(Path(one["file"]).name, [one]) for one in part.get("chapters", [])]
        part["chapters"] = [page for group in chapters for page in group]
    contents.write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")


def pages_listed(contents: Path) -> list[str]:
    """Names of the notebook pages in a ``_toc.yml``, in its order."""
    toc = yaml.safe_load(contents.read_text(encoding="utf-8"))
    chapters = [chapter for part in toc.get("parts", [toc]) for chapter in part.get("chapters", [])]
    sections = [section for chapter in chapters for section in chapter.get("sections", [])]
    files = [str(entry["file"]) for entry in (*chapters, *sections) if "file" in entry]
    return [Path(name).stem for name in files if name.startswith("notebooks/")]


def _source_of(name: str) -> tuple[Path, str]:
    folder = project_root() / "notebooks"
    for stem, variant in ((name, ""), name.rpartition("-")[::2]):
        if stem and (folder / f"{stem}.ipynb").is_file():
            return folder / f"{stem}.ipynb", variant
    raise RemiError(f"book/_toc.yml names notebooks/{name}, but there is no such notebook in {folder}")


def _write_results(preset: Preset, store: Store, steps: Sequence[Step], folder: Path) -> None:
    """Write the files that the directives of the book read; none where nothing was run."""
    status = []
    for step in steps:
        about = execution_record(step.target) if step.done else {}
        status.append(
            {
                "notebook": step.name,
                "finished": step.done,
                "seconds": about.get("seconds"),
                "device": about.get("machine"),
            }
        )
    files: dict[str, object] = {"status.json": status}
    if store.list(preset.name):
        from remi_core.claims import report_rows
        from remi_core.results import Results

        files["claims.json"] = report_rows(Results(preset, store))
    if steps and all(step.done for step in steps):
        from remi_core.facts import facts, notices

        files |= {"facts.json": facts(preset, store), "notice.json": notices(preset, store)}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _stored_files() -> dict[str, Path]:
    """Name beside the pages → stored report of a preset, or outcome of the drills."""
    stored = project_root() / "stored"
    reports = {f"stored-{path.parent.name}.json": path for path in sorted(stored.glob("*/report.json"))}
    drill = stored / DRILL
    return reports | ({DRILL: drill} if drill.is_file() else {})


def _inputs(preset: Preset, store: Store, steps: Sequence[Step]) -> dict[str, object]:
    """Everything the built pages depend on, as digests."""
    book = project_root() / "book"
    pages = [
        path
        for path in sorted(book.rglob("*"))
        if path.is_file() and not GENERATED & set(path.relative_to(book).parts)
    ]
    code = sorted((SOURCE_ROOT / PACKAGE).rglob("*.py"))
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
        "stored": {name: file_digest(path) for name, path in _stored_files().items()},
        "code": {path.relative_to(SOURCE_ROOT).as_posix(): syntax_digest(path) for path in code},
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
