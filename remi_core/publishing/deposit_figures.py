"""The figures of executed notebooks as files: pictures as they were drawn, with their texts in one index."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence

from bs4 import BeautifulSoup, Tag

from remi_core.execution.parameters import read_cells
from remi_core.execution.pipeline import Step

START = "data:image/svg+xml;base64,"


def figure_files(steps: Sequence[Step]) -> dict[str, bytes]:
    """File name → bytes: ``NOTEBOOK-01.svg`` …, in page order, and ``index.json`` with alternative text and caption."""
    files: dict[str, bytes] = {}
    index = []
    for step in steps:
        for number, image in enumerate(_images(step), start=1):
            name = f"{step.name}-{number:02d}.svg"
            files[name] = base64.b64decode(str(image["src"]).removeprefix(START))
            figure = image.find_parent("figure")
            caption = figure.find("figcaption") if figure else None
            index.append(
                {
                    "file": name,
                    "notebook": step.name,
                    "text": str(image.get("alt", "")),
                    "caption": caption.get_text() if caption else "",
                }
            )
    text = json.dumps(index, indent=1, ensure_ascii=False)
    return files | {"index.json": f"{text}\n".encode()}


def _images(step: Step) -> Iterator[Tag]:
    for cell in read_cells(step.target):
        for output in cell.get("outputs", []):
            page = BeautifulSoup("".join(output.get("data", {}).get("text/html", "")), "html.parser")
            yield from page.select(f'img[src^="{START}"]')
