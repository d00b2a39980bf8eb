"""HTML for a notebook page: tables with a caption, and texts that a model wrote, escaped."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from IPython.display import HTML

from remi_core.escaping import UNTYPESET, as_html
from remi_core.figures.alt import number

WRAPPED = "white-space:pre-wrap;overflow-wrap:anywhere"


def table_html(table: pd.DataFrame, caption: str) -> HTML:
    """The table as HTML: floats in three significant digits, booleans as yes and no, everything escaped."""
    head = "".join(f'<th scope="col">{_shown(name)}</th>' for name in table.columns)
    body = "".join(_row(map(_shown, row)) for row in table.itertuples(index=False))
    return HTML(
        f'<div style="overflow-x:auto" tabindex="0" role="region" aria-label="{as_html(caption)}">'
        f'<table class="remi-table {UNTYPESET}"><caption>{as_html(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def folded(summary: str, inside: str) -> str:
    """HTML of a part that opens when its summary is clicked; ``inside`` is HTML already."""
    return f"<details><summary>{as_html(summary)}</summary>{inside}</details>"


def quoted(text: str) -> str:
    """A text of a model as HTML: escaped, line ends kept, long words broken."""
    return f'<span class="{UNTYPESET}" style="font-family:monospace;{WRAPPED}">{as_html(text)}</span>'


def _row(cells: Iterable[str]) -> str:
    first, *others = cells
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>'


def _shown(value: object) -> str:
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    return as_html(str(value))
