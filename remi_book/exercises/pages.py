"""Exercises as they are written in the notebooks: text, hint and solution, for tests and for a page of answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from remi_book.exercises.chapters import CHAPTERS
from remi_book.running import read_cells
from remi_core.errors import RemiError
from remi_core.store import project_root

BOX = re.compile(
    r"^:::\{admonition\} Exercise \d+: (?P<title>[^\n]+)\n:class: exercise\n:name: (?P<name>[\w-]+)\n\n"
    r"(?P<inside>.*?)^:::$",
    re.MULTILINE | re.DOTALL,
)
FOLDED = re.compile(
    r"^<details><summary>(?P<summary>[^<]+)</summary>\n\n(?P<inside>.*?)\n\n</details>$",
    re.MULTILINE | re.DOTALL,
)
CODE = re.compile(r"^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Written:
    """One exercise of a notebook, in Markdown."""

    name: str
    """As in ``EXERCISES``."""
    title: str
    statement: str
    hint: str
    solution: str
    """The whole solution, prose and code."""
    code: str
    """Python of the solution: it sets ``answer``."""


def written_exercises(chapter: str, folder: Path | None = None) -> tuple[Written, ...]:
    """The exercises of a chapter's notebook, in the order of the page.

    Raises:
        RemiError: if an exercise has no hint, no solution or a solution without code.
    """
    source = (folder or project_root() / "notebooks") / f"{CHAPTERS[chapter]}.ipynb"
    cells = [cell["source"] for cell in read_cells(source) if cell["cell_type"] == "markdown"]
    return tuple(_written(box, source.name) for text in cells for box in BOX.finditer(text))


def _written(box: re.Match[str], source: str) -> Written:
    inside = box["inside"]
    folded = {part["summary"]: part["inside"] for part in FOLDED.finditer(inside)}
    code = CODE.search(folded.get("Solution", ""))
    if "Hint" not in folded or code is None:
        raise RemiError(f"{source}: exercise {box['name']!r} needs a folded Hint and a Solution with code")
    return Written(
        name=box["name"].replace("-", ".", 1),
        title=box["title"],
        statement=FOLDED.sub("", inside).strip(),
        hint=folded["Hint"],
        solution=folded["Solution"],
        code=code["code"],
    )
