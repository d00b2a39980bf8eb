"""Directive of the page on which the reader predicts before looking.

`{remi-predictions}` makes a table that can be printed and filled in by hand. `_static/predictions.js` puts controls in
its cells, keeps what is chosen in the browser, and shows the verdicts of this build on demand, from the JSON beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from docutils import nodes
from remi_directives import ResultDirective
from remi_results import (
    NOT_RUN,
    Claim,
    Row,
    format_range,
    number_or_dash,
    read_claims,
    read_json,
)
from remi_tables import Cell, make_table, paragraph

ABOVE, NEITHER, BELOW = "above", "neither", "below"
GOOD = ("reproduced", "supported")
"""How a verdict begins that says a whole rule holds."""


@dataclass(frozen=True, kw_only=True)
class Declared(Row):
    """What a claim said of itself before any result."""

    id: str
    claim: str
    estimand: str
    unit: str
    boundary: float
    smallest_effect: float
    by_outcome: bool
    untestable: str

    def options(self) -> dict[str, str]:
        """Each direction that can be predicted, in words."""
        if self.by_outcome:
            return {ABOVE: "the rule holds", NEITHER: "mixed or open", BELOW: "the rule fails"}
        edge, near = number_or_dash(self.boundary), number_or_dash(self.smallest_effect)
        return {
            ABOVE: f"above {edge}",
            NEITHER: f"within {near} of {edge}, or not told apart from it",
            BELOW: f"below {edge}",
        }

    def direction(self, claim: Claim | None) -> str | None:
        """Which of the options came out in this build; None where there is nothing to compare with."""
        if claim is None or claim.ci_low is None or claim.ci_high is None:
            return None
        if self.by_outcome:
            holds = claim.verdict.startswith(GOOD)
            return ABOVE if holds else BELOW if claim.verdict == "contradicted" else NEITHER
        low, high = claim.ci_low - self.boundary, claim.ci_high - self.boundary
        if -self.smallest_effect < low and high < self.smallest_effect:
            return NEITHER
        return ABOVE if low > 0 else BELOW if high < 0 else NEITHER


class PredictionsDirective(ResultDirective):
    """Table of what can be predicted, and the verdicts of this build as data for the page's script."""

    file_name = "declarations.json"
    kind = list
    nothing = f"The table of predictions is {NOT_RUN}."

    def shown(self, entries: list) -> list[nodes.Node]:
        """The table, a sentence on what is left out, and the data.

        Raises:
            ValueError: if a file is malformed or an entry lacks a key.
        """
        folder = Path(self.env.srcdir)
        self.env.note_dependency("claims.json")
        places = (f"{self.file_name} entry {number}" for number in range(1, len(entries) + 1))
        every = [Declared.from_json(row, place=place) for row, place in zip(entries, places, strict=True)]
        declared = [one for one in every if "." not in one.id]  # the parts of a claim are not asked for
        asked = [one for one in declared if not one.untestable]
        claims = {claim.id: claim for claim in read_claims(folder) or ()}
        facts = read_json(folder / "facts.json", dict) or {}
        return [
            _left_out([one for one in declared if one.untestable]),
            _table(asked),
            nodes.raw("", _data(asked, claims, str(facts.get("preset", ""))), format="html"),
        ]


def _left_out(untestable: Sequence[Declared]) -> nodes.paragraph:
    names = ", ".join(one.id for one in untestable)
    text = f"Left out, since nothing can be measured for them: {names}." if names else "No claim is left out."
    return paragraph(text, style="remi-detail")


def _table(asked: Sequence[Declared]) -> nodes.table:
    headings = ("Claim and what is measured", "Your prediction", "This build")
    rows = [_row(one) for one in asked]
    table = make_table("Predictions, one row a claim", headings, rows, style="remi-predictions")
    body = next(iter(table.findall(nodes.tbody)))
    for row, one in zip(body.children, asked, strict=True):
        row["ids"].append(f"predict-{one.id}")
    return table


def _row(one: Declared) -> list[Cell]:
    claim = paragraph("", nodes.strong("", one.id), nodes.Text(f" {one.claim}"))
    text = "A whole rule decides; see the ledger." if one.by_outcome else f"{one.estimand}; in {one.unit}."
    told = f"<details class='remi-detail'><summary>What is measured</summary>{escape(text)}</details>"
    choices = " ".join(f"☐ {text}" for text in one.options().values())
    size = "" if one.by_outcome else f"Size ({one.unit}): ________ "
    paper = [
        paragraph(choices, style="remi-paper"),
        paragraph(f"{size}Confidence: ____ %", style="remi-paper"),
    ]
    return [
        [claim, nodes.raw("", told, format="html")],
        paper,
        [paragraph("", style="remi-outcome")],
    ]


def _data(asked: Sequence[Declared], found: Mapping[str, Claim], preset: str) -> str:
    rows = [
        {
            "id": one.id,
            "unit": "" if one.by_outcome else one.unit,
            "options": one.options(),
            "outcome": _outcome(one, found.get(one.id)),
        }
        for one in asked
    ]
    content = {"preset": preset, "run": bool(found), "claims": rows}
    # A script element ends at the first "</", wherever it stands.
    text = json.dumps(content, ensure_ascii=False).replace("</", "<\\/")
    return f'<script type="application/json" id="remi-predictions-data">{text}</script>'


def _outcome(one: Declared, claim: Claim | None) -> dict[str, object] | None:
    if claim is None:
        return None
    interval = format_range(claim.ci_low, claim.ci_high)
    return {
        "direction": one.direction(claim),
        "verdict": claim.verdict,
        "value": number_or_dash(claim.value),
        "interval": f"95 % interval {interval}" if interval else "",
        "low": claim.ci_low,
        "high": claim.ci_high,
        "page": f"notebooks/{claim.notebook}.html" if claim.notebook else "ledger.html",
    }
