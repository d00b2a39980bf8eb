"""The sources of a preset's book in one folder: pages by hand, executed notebooks, stubs for what was not run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from remi_core.execution.notebooks import execution_record
from remi_core.execution.pipeline import Step
from remi_core.laboratory import add_laboratory
from remi_core.presets.known import Preset
from remi_core.publishing.contents import contents_of, pages_listed, source_of
from remi_core.publishing.edition import Edition
from remi_core.publishing.pages import NOT_RUN_PICTURE, page_text, stub_text, without_missing_glue
from remi_core.publishing.passports import ENDING, split_passports
from remi_core.publishing.result_files import stored_files, write_edition, write_results
from remi_core.storage.store import Store, project_root

GENERATED = {"_build", "__pycache__"}


def assemble(
    preset: Preset,
    store: Store,
    steps: Sequence[Step],
    folder: Path,
    *,
    edition: Edition | None = None,
    fingerprint: str = "",
) -> None:
    """Return once ``folder`` holds all sources of the book: pages, notebooks or stubs, and the result files.

    Raises:
        RemiError: if the table of contents names a notebook that does not exist.
    """
    shutil.copytree(project_root() / "book", folder, ignore=shutil.ignore_patterns(*GENERATED))
    pages = folder / "notebooks"
    pages.mkdir(exist_ok=True)
    (pages / "not-run.svg").write_text(NOT_RUN_PICTURE, encoding="utf-8")
    for name, path in stored_files().items():
        shutil.copyfile(path, folder / name)
    toc = contents_of(steps)
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")
    listed = pages_listed(toc)
    known = {step.name: step for step in steps}
    not_run = {name for name in listed if name not in known or not known[name].done}
    for name in listed:
        source, variant = source_of(name)
        if name in not_run:
            text = stub_text(source, preset=preset.name, variant=variant)
        else:
            target = known[name].target
            text = page_text(target, source=source, variant=variant, not_run=not_run)
            text, passports = split_passports(text, name, execution_record(target))
            if passports:
                (pages / f"{name}{ENDING}").write_text(passports, encoding="utf-8")
        (pages / f"{name}.ipynb").write_text(text, encoding="utf-8")
    add_laboratory(preset, store, folder)
    for page in folder.glob("*.md"):
        page.write_text(without_missing_glue(page.read_text(encoding="utf-8"), not_run), encoding="utf-8")
    write_results(preset, store, [step for step in steps if step.name in listed], folder)
    notebooks = {f"notebooks/{name}": f"notebooks/{source_of(name)[0].name}" for name in listed}
    write_edition(preset, edition or Edition(), notebooks, fingerprint, folder)
