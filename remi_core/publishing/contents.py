"""The table of contents: which pages a preset's book has, and from which notebook each is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from remi_core.errors import RemiError
from remi_core.execution.pipeline import Step
from remi_core.storage.store import project_root


def contents_of(steps: Sequence[Step]) -> dict[str, object]:
    """The table of contents, with each chapter whose notebook runs once a variant replaced by its pages."""
    pages = {step.source.stem: [] for step in steps if step.variant}
    for step in steps:
        if step.variant:
            pages[step.source.stem].append({"file": f"notebooks/{step.name}"})
    toc = yaml.safe_load((project_root() / "book" / "_toc.yml").read_text(encoding="utf-8"))
    for part in toc.get("parts", [toc]):
        chapters = [pages.get(Path(one["file"]).name, [one]) for one in part.get("chapters", [])]
        part["chapters"] = [page for group in chapters for page in group]
    return toc


def pages_of(toc: Mapping[str, object]) -> list[str]:
    """Names of all pages in a table of contents, as ``notebooks/05_alignment_direction``, the front page first."""
    chapters = [chapter for part in toc.get("parts", [toc]) for chapter in part.get("chapters", [])]
    sections = [section for chapter in chapters for section in chapter.get("sections", [])]
    return [str(toc["root"]), *(str(entry["file"]) for entry in (*chapters, *sections) if "file" in entry)]


def pages_listed(toc: Mapping[str, object]) -> list[str]:
    """Names of the notebook pages in a table of contents, in its order."""
    return [Path(name).stem for name in pages_of(toc) if name.startswith("notebooks/")]


def source_of(name: str) -> tuple[Path, str]:
    """The notebook of a page, and the variant that the page is of, or "".

    Raises:
        RemiError: if there is no such notebook.
    """
    folder = project_root() / "notebooks"
    for stem, variant in ((name, ""), name.rpartition("-")[::2]):
        if stem and (folder / f"{stem}.ipynb").is_file():
            return folder / f"{stem}.ipynb", variant
    raise RemiError(f"book/_toc.yml names notebooks/{name}, but there is no such notebook in {folder}")
