"""Directives and a role that show results on the pages written by hand; those of claims are in `remi_claims`.

- `{remi-status}`: which notebooks were run, from `status.json`.
- `{remi-findings}`: what was found, from `findings.json`: on the front page its choice in short (with `:lead:` the
  answer), on a chapter the chapter's own, on the page `findings` all.
- `{remi-answer}`: the figure of the front page with the sentence above it, from `front.json`.
- `{remi-notice}`: what the front page must say first, from `notice.json`, and where the content note is;
  with `:first:` the first alone, with `:missed:` the quality checks that the models missed and the latter.
- `` {fact}`key` ``: one text of `facts.json`.
- `` {page}`name` ``: a link to a page, or its name alone where this edition has no such page.

A missing file reads "not run yet"; a malformed one, or a missing key, is a warning, and fails a strict build.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from docutils import nodes
from docutils.parsers.rst import directives
from remi_results import (
    FACT_KEYS,
    NOT_RUN,
    number_or_dash,
    read_json,
    refuse_missing,
)
from remi_tables import Cell, make_table, paragraph
from sphinx import addnodes
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

logger = logging.getLogger(__name__)
WHOLE = "findings"
"""The page that has every finding in full."""
LEDGER = "ledger"
"""The page with the cards of all claims."""


class ResultDirective(SphinxDirective):
    """Directive without arguments that renders one file beside the pages."""

    file_name: str
    kind: type = dict
    """Of the file's top level."""
    nothing: str = ""
    """What is said where there is no file."""

    def run(self) -> list[nodes.Node]:
        """Nodes of the file; one warning and no node where it is malformed."""
        self.env.note_dependency(self.file_name)
        try:
            return self.render(Path(self.env.srcdir))
        except ValueError as error:
            logger.warning("%s", error, location=self.get_location(), type="remi")
            return []

    def render(self, folder: Path) -> list[nodes.Node]:
        """Nodes for the file in `folder`, or a line that there is none.

        Raises:
            ValueError: if the file is malformed.
        """
        content = read_json(folder / self.file_name, self.kind)
        if content in (None, []):
            return [paragraph(self.nothing, style="remi-not-run")]
        return self.shown(content)

    def shown(self, found: object) -> list[nodes.Node]:
        """Nodes for what the file holds; each directive defines its own, or another `render`.

        Raises:
            ValueError: if it is malformed.
        """
        raise NotImplementedError


class StatusDirective(ResultDirective):
    """Table of the notebooks of this build: finished, when, seconds, machine."""

    file_name = "status.json"
    kind = list
    nothing = f"The notebooks were {NOT_RUN}."

    def shown(self, found: list) -> list[nodes.Node]:
        """The table.

        Raises:
            ValueError: if an entry lacks a key.
        """
        rows = [self._row(entry, position) for position, entry in enumerate(found, start=1)]
        headings = ("Notebook", "Finished", "When", "Seconds", "Machine")
        return [make_table("Notebooks of this build", headings, rows, style="remi-status")]

    def _row(self, entry: dict[str, object], position: int) -> list[Cell]:
        refuse_missing(entry, ("device", "finished", "notebook", "seconds"), f"status.json entry {position}")
        finished = {True: "yes", False: "no"}.get(entry["finished"], str(entry["finished"]))
        return [
            [paragraph("", page_reference(str(entry["notebook"]), source=self.env.docname))],
            [paragraph(finished)],
            [paragraph(str(entry.get("ended") or "—"))],
            [paragraph(number_or_dash(entry["seconds"]))],
            [paragraph(str(entry["device"] or "—"))],
        ]


class FindingsDirective(ResultDirective):
    """What was found, each finding with how sure it is.

    The front page lists its choice in short, each with a link to its chapter, and with the flag `lead` has the first of
    them in a row. A chapter has a box with its own, each with what would change it, or nothing where it has none. The
    page `findings` has all.
    """

    file_name = "findings.json"
    kind = list
    option_spec = {"lead": directives.flag}
    n_lead = 3
    """How many findings are the answer to the question of the book."""
    nothing = "No findings are told here: none are written for this preset, or it was not run."

    def render(self, folder: Path) -> list[nodes.Node]:
        """A list, a box, a line that there are none, or nothing.

        Raises:
            ValueError: if the file is malformed.
        """
        found, page = read_json(folder / self.file_name, self.kind) or [], Path(self.env.docname).name
        keys = ("chapters", "evidence", "front", "open", "parts", "title")
        for position, finding in enumerate(found, start=1):
            refuse_missing(finding, keys, f"{self.file_name} entry {position}")
        if self.env.docname == self.config.root_doc:
            return self._front([finding for finding in found if finding["front"] is not None])
        if page == WHOLE:
            first, rest = (
                [nodes.container("", *self._section(one)) for one in found if (one["front"] is None) is below]
                for below in (False, True)
            )
            title = nodes.rubric("", "Chapter by chapter")
            return (
                [*first, nodes.container("", title, *rest, classes=["remi-rest"])] if found else self._none()
            )
        told = [part for finding in found if page in finding["chapters"] for part in self._told(finding)]
        title = nodes.title("", "What we found")
        return [nodes.admonition("", title, *told, classes=["tip", "remi-findings"])] if told else []

    def _none(self) -> list[nodes.Node]:
        return [paragraph(self.nothing, style="remi-not-run")]

    def _front(self, found: list[dict[str, object]]) -> list[nodes.Node]:
        """The answer in a row, or a line for each finding, which tells the answer where the row did not."""
        if "lead" in self.options:
            lead = (finding for finding in found[: self.n_lead] if not finding["open"])
            told = [part for finding in lead for part in self._text(finding, "short")]
            return [paragraph("", *told, style="remi-lead")] if told else self._none()
        items = []
        for place, finding in enumerate(found):
            line = paragraph("", nodes.strong("", _closed(finding["title"])))
            if finding["open"]:
                line += nodes.Text(f" {finding['open']} ")
            else:
                line += self._text(finding, "short") if place >= self.n_lead else []
                line += [
                    nodes.Text(" "),
                    nodes.emphasis("", "How sure:"),
                    *self._text(finding, "sure"),
                    nodes.Text(". "),
                ]
            line += page_reference(finding["chapters"][0], source=self.env.docname)
            items.append(nodes.list_item("", line))
        shown = nodes.bullet_list("", *items)
        shown["classes"].append("remi-findings")
        return [shown] if items else self._none()

    def _section(self, finding: dict[str, object]) -> list[nodes.Node]:
        """One finding in full, with what it rests on and where it is shown."""
        rests = paragraph("", nodes.emphasis("", "It rests on"))
        for place, row in enumerate(finding["evidence"]):
            rests += [nodes.Text(", " if place else " "), card_reference(row, row, self.env)]
        rests += [nodes.Text(". More in "), page_reference(finding["chapters"][0], source=self.env.docname)]
        rests += nodes.Text(".")
        return [*self._told(finding), rests]

    def _told(self, finding: dict[str, object]) -> list[nodes.Node]:
        first = paragraph("", nodes.strong("", _closed(finding["title"])), *self._text(finding, "sentence"))
        if finding["open"]:
            return [first, paragraph(str(finding["open"]), style="remi-not-run")]
        sure = paragraph("", nodes.emphasis("", "How sure:"), *self._text(finding, "how_sure"))
        overturns = self._text(finding, "would_change")
        return [first, sure, paragraph("", nodes.emphasis("", "What would change it:"), *overturns)]

    def _text(self, finding: dict[str, object], name: str) -> list[nodes.Node]:
        """A text of the finding after a blank, each number a link to the card of its row."""
        parts = finding["parts"][name]
        return [
            nodes.Text(" "),
            *(card_reference(row, text, self.env) if row else nodes.Text(text) for text, row in parts),
        ]


def _closed(title: object) -> str:
    """The title with a full stop, unless it asks."""
    return str(title) + ("" if str(title).endswith("?") else ".")


class AnswerDirective(ResultDirective):
    """The figure that answers the book's question under what it shows, and its passport."""

    file_name = "front.json"
    nothing = f"The figure is {NOT_RUN}."

    def shown(self, found: dict) -> list[nodes.Node]:
        """The sentence, and the figure as raw HTML, computed and escaped by the package.

        Raises:
            ValueError: if one of them is missing.
        """
        refuse_missing(found, ("figure", "sentence"), self.file_name)
        title = paragraph("", nodes.strong("", found["sentence"]))
        return [
            nodes.container("", title, nodes.raw("", found["figure"], format="html"), classes=["remi-answer"])
        ]


class NoticeDirective(ResultDirective):
    """What `notice.json` says comes first, in a warning box, and a line that leads to the content note.

    With the flag `first` it is the box alone, with `missed` the quality checks that the models missed, folded, and the
    line. With the flag `withheld` the line is that of a book whose data are not ours.
    """

    file_name = "notice.json"
    option_spec = {name: directives.flag for name in ("withheld", "first", "missed")}

    def render(self, folder: Path) -> list[nodes.Node]:
        """One admonition or none, and the line.

        Raises:
            ValueError: if the file is malformed.
        """
        lines = read_json(folder / "notice.json", dict) or {"first": [], "missed": []}
        refuse_missing(lines, ("first", "missed"), self.file_name)
        first = self._box("Read this first", lines["first"], "warning")
        if "first" in self.options:
            return first
        told = "Some pages show bad replies, which were written for this purpose: "
        if "withheld" in self.options:
            told = "Prompts and replies of these data are withheld on all pages: "
        pointer = paragraph(told)
        pointer.extend([content_link(self.env.docname), nodes.Text(".")])
        missed = self._box("Quality checks that the models missed", lines["missed"], "note", "dropdown")
        return [*(missed if "missed" in self.options else first), pointer]

    def _box(self, title: str, lines: list[object], *classes: str) -> list[nodes.Node]:
        said = (paragraph(str(line)) for line in lines)
        return [nodes.admonition("", nodes.title("", title), *said, classes=[*classes])] if lines else []


class FactRole(SphinxRole):
    """Text of one key of `facts.json`; "not run" where the file is absent."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """One inline node; an unknown or missing key is a warning."""
        self.env.note_dependency("facts.json")
        try:
            text = self._text()
        except ValueError as error:
            logger.warning("%s", error, location=self.get_location(), type="remi")
            text = "?"
        return [nodes.inline(self.rawtext, text, classes=["remi-fact"])], []

    def _text(self) -> str:
        facts = read_json(Path(self.env.srcdir) / "facts.json", dict)
        if self.text not in FACT_KEYS:
            raise ValueError(f"fact '{self.text}' is unknown; choices: {', '.join(FACT_KEYS)}")
        if facts is None:
            return "(not run)"
        if self.text not in facts:
            if "otherwise" not in facts:
                raise ValueError(f"fact '{self.text}' is missing from facts.json")
            return str(facts["otherwise"])
        return str(facts[self.text])


class PageRole(SphinxRole):
    """Link to a page of this book by its name; the name in words alone where the contents list no such page."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """One inline node, never a warning: pages come and go between editions."""
        words = self.text.replace("_", " ")
        if self.text not in self.env.found_docs:
            return [nodes.inline(self.rawtext, words)], []
        address = self.env.app.builder.get_relative_uri(self.env.docname, self.text)
        return [nodes.reference(self.rawtext, words, internal=True, refuri=address)], []


def card_reference(row: str, text: str, env: BuildEnvironment) -> nodes.Node:
    """Link to the card of a claim's row on the ledger's page; the text alone where the contents list no such page."""
    if LEDGER not in env.found_docs:
        return nodes.Text(text)
    address = env.app.builder.get_relative_uri(env.docname, LEDGER)
    return nodes.reference("", text, internal=True, refuri=f"{address}#{quote(row)}")


def page_reference(notebook: str, *, source: str) -> addnodes.pending_xref:
    """Link from page `source` to a notebook's page, named by its stem; an unknown page is a warning."""
    stem = Path(notebook).name.removesuffix(".ipynb")
    return _link(f"/notebooks/{stem}", stem.replace("_", " "), source)


def content_link(source: str) -> addnodes.pending_xref:
    """Link from page `source` to the page on what text the book shows."""
    return _link("/content", "what text this book shows", source)


def _link(target: str, text: str, source: str) -> addnodes.pending_xref:
    label = nodes.inline("", text, classes=["doc"])
    return addnodes.pending_xref(
        "",
        label,
        reftype="doc",
        refdomain="std",
        reftarget=target,
        refdoc=source,
        refexplicit=True,
        refwarn=True,
    )
