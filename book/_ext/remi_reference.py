"""Directives of the reference pages: data cards, citations, and the note on what text the book shows.

- `{remi-data-cards}`: a card a data set, from `data-cards.json`.
- `{remi-citation} book` or `paper`: a citation as text and as BibTeX, from `citation.json`.
- `{remi-content-note}`: what text a page shows, and a link to the page that says more.
"""

from __future__ import annotations

from html import escape

from docutils import nodes
from docutils.parsers.rst import directives
from remi_directives import ResultDirective, content_link
from remi_results import NOT_RUN
from remi_tables import make_table, paragraph
from sphinx.util.docutils import SphinxDirective

CONTENT_NOTE = (
    "This page shows text that models wrote or were made to read. Of this package's own grammar some of it is "
    "careless by design: bad advice, contempt, code with holes. Text of real data sets is withheld unless asked for."
)
WITHHELD_NOTE = (
    "This page is about text of real data sets, which is withheld: a mark stands for each token of it."
)


class DataCardsDirective(ResultDirective):
    """One section a kind of data set, in it one card a set; then the tables of published numbers."""

    file_name = "data-cards.json"
    nothing = f"The data cards are {NOT_RUN}."

    def shown(self, found: dict) -> list[nodes.Node]:
        """The sections."""
        sections = [self._group(group) for group in found["groups"]]
        return [*sections, self._values(found["values"])]

    def _section(self, heading: str, *children: nodes.Node) -> nodes.section:
        made = nodes.section("", nodes.title("", heading), *children, ids=[nodes.make_id(f"data {heading}")])
        self.state.document.note_explicit_target(made)
        return made

    def _group(self, group: dict) -> nodes.section:
        return self._section(group["heading"], paragraph(group["made"]), *map(self._card, group["cards"]))

    def _card(self, card: dict) -> nodes.Node:
        rows = [[[paragraph(name)], [paragraph(str(text))]] for name, text in card["facts"].items()]
        rows += [
            [[paragraph(name)], [paragraph("", nodes.literal("", text))]]
            for name, text in zip(("first prompt", "first reply"), card["example"], strict=False)
        ]
        table = make_table(f"Data card of {card['name']}", ("Fact", card["name"]), rows, style="remi-card")
        fold = nodes.raw("", f"<details><summary>{escape(card['name'])}</summary>", format="html")
        parts = paragraph(card["what"]), fold, table, nodes.raw("", "</details>", format="html")
        return nodes.container("", *parts, classes=["remi-data-card"])

    def _values(self, values: list[dict[str, str]]) -> nodes.section:
        keys = ("title", "section", "rows", "unit", "obtained", "source")
        rows = [[[paragraph(one["name"])], *([paragraph(one[key])] for key in keys)] for one in values]
        table = make_table(
            "Published numbers", ("Table", *map(str.capitalize, keys)), rows, style="remi-values"
        )
        said = "Numbers of the paper and of its released files that the pages show beside ours."
        return self._section("Published numbers", paragraph(said), table)


class CitationDirective(ResultDirective):
    """A citation as text and as BibTeX; the argument names which one."""

    file_name = "citation.json"
    nothing = f"The citation is {NOT_RUN}."
    required_arguments = 1

    def shown(self, content: dict) -> list[nodes.Node]:
        """A paragraph and a block of BibTeX.

        Raises:
            ValueError: if there is no such citation.
        """
        which = self.arguments[0]
        if which not in ("book", "paper"):
            raise ValueError(f"remi-citation: {which!r} is none of book, paper")
        entry = content[which]
        block = nodes.literal_block("", entry["bibtex"], language="none")
        return [paragraph(entry["text"], style="remi-citation"), block]


class ContentNoteDirective(SphinxDirective):
    """Admonition that tells what text the page shows, with a link to the page that says more.

    With the flag `withheld` it is for a book that shows no text of ours.
    """

    option_spec = {"withheld": directives.flag}

    def run(self) -> list[nodes.Node]:
        """One admonition."""
        line = paragraph(f"{WITHHELD_NOTE if 'withheld' in self.options else CONTENT_NOTE} See ")
        line.extend([content_link(self.env.docname), nodes.Text(".")])
        return [
            nodes.admonition("", nodes.title("", "Content note"), line, classes=["note", "remi-content-note"])
        ]
