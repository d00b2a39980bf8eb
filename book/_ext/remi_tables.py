"""Builds accessible tables of docutils nodes: a caption, column headings, a heading in every row."""

from __future__ import annotations

from collections.abc import Sequence

from docutils import nodes

Cell = Sequence[nodes.Node]
"""Block nodes of one cell: paragraphs, as `paragraph` makes them."""


def paragraph(text: str, *children: nodes.Node, style: str = "") -> nodes.paragraph:
    """Paragraph of plain text and inline nodes, with one CSS class where `style` is given.

    The text stands as it is: what comes from data is not given other quotation marks and dashes.
    """
    node = nodes.paragraph("", "", nodes.Text(text), *children, support_smartquotes=False)
    if style:
        node["classes"].append(style)
    return node


def make_table(
    caption: str, headings: Sequence[str], rows: Sequence[Sequence[Cell]], *, style: str
) -> nodes.table:
    """Table whose first column heads its rows.

    Args:
        caption: what the table shows; a screen reader says it first.
        headings: one a column.
        rows: cells of each row, as many as headings.
        style: CSS class of the table.

    Raises:
        ValueError: if a row has another number of cells than there are headings.
    """
    group = nodes.tgroup(cols=len(headings))
    for index in range(len(headings)):
        group += nodes.colspec(colwidth=1, stub=1 if index == 0 else 0)
    group += nodes.thead("", _row([[paragraph(heading)] for heading in headings]))
    body = nodes.tbody()
    for cells in rows:
        if len(cells) != len(headings):
            raise ValueError(f"a row has {len(cells)} cells; the table has {len(headings)} columns")
        body += _row(cells)
    group += body
    table = nodes.table("", nodes.title("", caption), group, classes=["remi-table", style])
    return table


def _row(cells: Sequence[Cell]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", *cell) for cell in cells))
