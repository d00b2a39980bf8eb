"""Directives of the pages for teachers.

- `{remi-minutes}`: how long each notebook of this build took, and all of them, from `status.json`.
- `{remi-exercises}`: every exercise of the notebooks; with `:solutions:` each with its solution.

An exercise is a cell that calls `check("chapter.name", …)`. Its text is the box with `:name: chapter-name` before it,
and its solution the fold in that box whose summary is "Solution".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from remi_directives import ResultDirective, page_reference
from remi_results import NOT_RUN, read_json, refuse_missing
from remi_tables import make_table, paragraph
from sphinx import addnodes

CHECK = re.compile(r"^\s*check\(\s*[\"']([\w.-]+)[\"']", re.MULTILINE)
BOX = re.compile(r"^(:{3,}|`{3,})\{[\w-]+\} *(?P<title>.*)\n(?P<inside>(?:.*\n)*?)\1\s*$", re.MULTILINE)
NAME = re.compile(r"^:name: *([\w-]+)\s*$", re.MULTILINE)
SOLUTION = re.compile(
    r"^<details><summary>Solution</summary>\n(?P<inside>.*?)\n</details>$", re.MULTILINE | re.DOTALL
)
NOT_EXECUTED = "not-run"
"""Identifier of the one cell of a page whose notebook was not run."""


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook."""

    name: str
    """As `check` is told."""
    title: str
    """Heading of its box; "" where no box has its name."""
    label: str
    """Label that its box carries; "" where there is none."""
    solution: str
    """Markdown of its solution; "" where there is none."""


def exercises_of(cells: Sequence[Mapping[str, object]]) -> Iterator[Exercise]:
    """The exercises of a notebook's cells in their order, each once."""
    texts = {kind: "\n".join(_sources(cells, kind)) for kind in ("markdown", "code")}
    boxes = {}
    for box in BOX.finditer(texts["markdown"]):
        named = NAME.search(box["inside"])
        if named:
            boxes[named[1]] = box
    for name in dict.fromkeys(CHECK.findall(texts["code"])):
        label = name.replace(".", "-")
        box = boxes.get(label)
        solved = SOLUTION.search(box["inside"]) if box else None
        title = re.sub(r"^Exercise \d+: *", "", box["title"]).strip() if box else ""
        yield Exercise(name, title, label if box else "", solved["inside"].strip() if solved else "")


def _sources(cells: Sequence[Mapping[str, object]], kind: str) -> Iterator[str]:
    for cell in cells:
        if cell["cell_type"] == kind:
            yield "".join(cell["source"])


def elsewhere(text: str, page: str) -> str:
    """Markdown of a notebook's page for another page: glued texts are asked for by page, key and format."""
    path = f"notebooks/{page}.ipynb::"
    text = re.sub(r"(\{glue:text\}`)([\w-]+)`", rf"\g<1>{path}\g<2>:s`", text)
    return re.sub(r"(\{glue:\w+\}`)([\w-]+(?::[^`:]+)?)`", rf"\g<1>{path}\g<2>`", text)


class ExercisesDirective(ResultDirective):
    """List of all exercises by notebook; a line where there are none."""

    file_name = "_toc.yml"
    option_spec = {"solutions": directives.flag}

    def render(self, folder: Path) -> list[nodes.Node]:
        """A count, then for each notebook its exercises.

        Raises:
            ValueError: if a page of a notebook is no notebook.
        """
        found: dict[str, list[Exercise]] = {}
        not_run = 0
        for page in sorted((folder / "notebooks").glob("*.ipynb")):
            self.env.note_dependency(f"notebooks/{page.name}")
            cells = read_json(page, dict)["cells"]
            not_run += any(cell.get("id") == NOT_EXECUTED for cell in cells)
            found[page.stem] = list(exercises_of(cells))
        listed = {page: exercises for page, exercises in found.items() if exercises}
        parts = [part for page, own in listed.items() for part in self._page(page, own)]
        return [paragraph(_count(listed, not_run)), *parts]

    def _page(self, page: str, exercises: Sequence[Exercise]) -> list[nodes.Node]:
        heading = nodes.rubric("", "", page_reference(page, source=self.env.docname))
        if "solutions" not in self.options:
            items = [nodes.list_item("", paragraph("", *self._link(one))) for one in exercises]
            return [heading, nodes.bullet_list("", *items)]
        parts: list[nodes.Node] = [heading]
        for one in exercises:
            parts += [paragraph("", *self._link(one)), *self._solution(one, page)]
        return parts

    def _link(self, one: Exercise) -> list[nodes.Node]:
        shown = nodes.inline("", one.title or one.name)
        if not one.label:
            return [shown]
        link = addnodes.pending_xref(
            "",
            shown,
            reftype="ref",
            refdomain="std",
            reftarget=one.label,
            refdoc=self.env.docname,
            refexplicit=True,
            refwarn=True,
        )
        return [link, nodes.Text(" "), nodes.literal("", one.name)]

    def _solution(self, one: Exercise, page: str) -> list[nodes.Node]:
        if not one.solution:
            return [paragraph("No solution is written.", style="remi-detail")]
        text = elsewhere(one.solution, page)
        quoted = nodes.block_quote(classes=["remi-solution"])
        self.state.nested_parse(StringList(text.splitlines(), source=page), 0, quoted)
        return [quoted]


def _count(listed: Mapping[str, Sequence[Exercise]], not_run: int) -> str:
    every = [one for exercises in listed.values() for one in exercises]
    unsolved = sum(not one.solution for one in every)
    text = f"{len(every)} exercises in {len(listed)} notebooks" if every else "No notebook has exercises"
    missing = f", {unsolved} of them without a written solution" if unsolved else ""
    hidden = f"; {not_run} notebooks were not run for this preset and are not counted" if not_run else ""
    return f"{text}{missing}{hidden}."


class MinutesDirective(ResultDirective):
    """Table of the minutes that each notebook of this build took, with their sum."""

    file_name = "status.json"
    kind = list
    nothing = f"The notebooks were {NOT_RUN}."

    def shown(self, entries: list) -> list[nodes.Node]:
        """The table.

        Raises:
            ValueError: if an entry lacks a key.
        """
        for position, entry in enumerate(entries, start=1):
            refuse_missing(entry, ("finished", "notebook", "seconds"), f"status.json entry {position}")
        rows = [
            [
                [paragraph("", page_reference(str(entry["notebook"]), source=self.env.docname))],
                [paragraph(in_minutes(entry["seconds"]) if entry["finished"] else "not run")],
            ]
            for entry in entries
        ]
        done = [float(entry["seconds"]) for entry in entries if entry["finished"]]
        rows.append([[paragraph(f"{len(done)} notebooks in all")], [paragraph(in_minutes(sum(done)))]])
        return [make_table("Time of each notebook", ("Notebook", "Minutes"), rows, style="remi-status")]


def in_minutes(seconds: float) -> str:
    """Minutes in words, rounded up to half a minute."""
    halves = max(1, -(-float(seconds) // 30))
    return f"{halves / 2:g}"
