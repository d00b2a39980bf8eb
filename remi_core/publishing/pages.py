"""Pages of the book: executed notebooks made ready to show, and stubs for those not run for a preset."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from remi_core.execution.notebooks import execution_record
from remi_core.execution.parameters import declared_parameters, read_cells, tags

NOT_RUN = "*not run*"

TARGET = re.compile(
    r"^\(([\w.-]+)\)=\s*$|^:(?:name|label): *([\w.-]+)\s*$|\$\$ *\(([\w.-]+)\)\s*$", re.MULTILINE
)
"""Labels that Markdown defines: before a heading, as option of a directive, after an equation."""

GLUE_ROLE = re.compile(r"\{glue(?::\w+)?\}`[^`]*?([\w.-]+)\.ipynb::[^`]+`")
GLUE_BLOCK = re.compile(
    r"^(`{3,}|:{3,})\{glue.*\n(?:(?!\1).*\n)*?:doc: .*?([\w.-]+)\.ipynb\s*\n(?:(?!\1).*\n)*\1\s*$",
    re.MULTILINE,
)


SHOWS_WORDS = (
    "answer_tokens",
    "bare_word_table",
    "dialogue_html",
    "example_table",
    "line_table",
    "next_tokens",
    "pair_losses",
    "pair_table",
    "quoted",
    "running_log_probability",
    "samples_html",
    "window_table",
    "written",
)
"""Functions by which a notebook shows words of a data set or of a model."""
CONTENT_NOTE = "```{remi-content-note}\n```"


def shows_words(cells: Collection[Mapping[str, str]]) -> bool:
    """Whether a notebook shows words of a data set or of a model, so that its page says so."""
    called = re.compile(rf"\b({'|'.join(SHOWS_WORDS)})\(")
    return any(cell["cell_type"] == "code" and called.search(cell["source"]) for cell in cells)


def page_text(executed: Path, *, source: Path, variant: str = "", not_run: Collection[str] = ()) -> str:
    """JSON text of an executed notebook as a page: no run times, no injected cell that repeats the defaults.

    With a ``variant``, one notebook gives several pages: its title and labels then end in the variant's name.
    ``not_run`` names the pages whose glued values are missing.
    """
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    notebook["metadata"].pop("papermill", None)
    declared = {name: parameter.default for name, parameter in declared_parameters(source).items()}
    given = execution_record(executed).get("parameters", {})
    if all(declared.get(name) == value for name, value in given.items()):
        notebook["cells"] = [cell for cell in notebook["cells"] if "injected-parameters" not in tags(cell)]
    labels = _labels(read_cells(source)) if variant else []
    for cell in notebook["cells"]:
        cell["metadata"].pop("papermill", None)
        if cell["cell_type"] == "markdown":
            text = without_missing_glue("".join(cell["source"]), not_run)
            cell["source"] = _rename_labels(text, labels, variant)
        figure = cell["metadata"].get("mystnb", {}).get("figure", {})
        if variant and "name" in figure:
            figure["name"] = f"{figure['name']}-{variant}"
    if variant:
        _retitle(notebook["cells"], variant)
    if shows_words(read_cells(source)):
        note = {"cell_type": "markdown", "id": "content-note", "metadata": {}, "source": CONTENT_NOTE}
        notebook["cells"].insert(1, note)
    return json.dumps(notebook, indent=1, sort_keys=True)


def stub_text(source: Path, *, preset: str, variant: str = "") -> str:
    """JSON text of a page that says its notebook was not run for this preset, with all labels others may refer to."""
    cells = read_cells(source)
    end = f"-{variant}" if variant else ""
    figures = [cell["metadata"].get("mystnb", {}).get("figure", {}).get("name") for cell in cells]
    targets = [f"({label}{end})=" for label in _labels(cells) if label not in figures]
    placeholders = [
        f":::{{figure-md}} {name}{end}\n![Not run](not-run.svg)\n\nNot run for this preset.\n:::"
        for name in figures
        if name
    ]
    title = page_title(cells, source) + (f": {variant}" if variant else "")
    note = f"This notebook was not run for the preset `{preset}`; `remi run --preset {preset}` runs it."
    blocks = [*targets, f"# {title}", f":::{{note}}\n{note}\n:::", *placeholders]
    cell = {"cell_type": "markdown", "id": "not-run", "metadata": {}, "source": "\n\n".join(blocks)}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1)


NOT_RUN_PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="320" height="60"><rect width="320" height="60" fill="#ffffff"/>'
    '<text x="160" y="36" text-anchor="middle" font-family="sans-serif" fill="#333333">not run</text></svg>\n'
)
"""What stands in a stub for each figure that other pages may refer to by number."""


def page_title(cells: Collection[Mapping[str, str]], source: Path) -> str:
    """First heading of a notebook, or its file name in words."""
    for cell in cells:
        heading = re.search(r"^# +(.+)$", cell["source"], re.MULTILINE)
        if cell["cell_type"] == "markdown" and heading:
            return heading.group(1).strip()
    return source.stem.replace("_", " ")


def without_missing_glue(text: str, not_run: Collection[str]) -> str:
    """Markdown with every value or figure glued from a page in ``not_run`` replaced by the words "not run"."""
    text = GLUE_BLOCK.sub(lambda found: NOT_RUN if found.group(2) in not_run else found.group(0), text)
    return GLUE_ROLE.sub(lambda found: NOT_RUN if found.group(1) in not_run else found.group(0), text)


def _labels(cells: Collection[Mapping[str, str]]) -> list[str]:
    texts = [cell["source"] for cell in cells if cell["cell_type"] == "markdown"]
    written = [next(filter(None, found)) for text in texts for found in TARGET.findall(text)]
    figures = [cell["metadata"].get("mystnb", {}).get("figure", {}).get("name") for cell in cells]
    return list(dict.fromkeys([*written, *filter(None, figures)]))


def _rename_labels(text: str, labels: Collection[str], variant: str) -> str:
    for label in labels:
        before, after = r"((?:[(`<#]|:name: *|:label: *))", r"(?=[)`>\s]|$)"
        text = re.sub(before + re.escape(label) + after, rf"\g<1>{label}-{variant}", text)
    return text


def _retitle(cells: list[dict], variant: str) -> None:
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and re.search(r"^# +.+$", text, re.MULTILINE):
            cell["source"] = re.sub(r"^(# +.+?)\s*$", rf"\1: {variant}", text, count=1, flags=re.MULTILINE)
            return
