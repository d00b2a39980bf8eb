"""Directives that show claims on the pages written by hand.

- `{remi-claims}`: the claim table of `claims.json`; with `:all:` every part and rule.
- `{remi-stored} PRESET`: the claim table of a stored report, with how it was had.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from remi_directives import ResultDirective, page_reference
from remi_results import (
    NOT_RUN,
    Claim,
    claims_of,
    format_range,
    number_or_dash,
    read_json,
    read_stored,
    stored_name,
)
from remi_tables import Cell, make_table, paragraph


class ClaimsDirective(ResultDirective):
    """Claim table: claim, published value, our value with interval, null, verdict.

    With the flag `all` the parts of the claims are rows too, and every row tells its rule.
    """

    file_name = "claims.json"
    kind = list
    nothing = f"The claim table is {NOT_RUN}."
    option_spec = {"all": directives.flag}

    def shown(self, rows: list) -> list[nodes.Node]:
        """The table.

        Raises:
            ValueError: if a row or `facts.json` is malformed.
        """
        folder, claims = Path(self.env.srcdir), claims_of(rows)
        facts = read_json(folder / "facts.json", dict) or {}
        preset = f" on preset {facts['preset']}" if "preset" in facts else ""
        whole = "all" in self.options
        title = "Every row of the ledger" if whole else "The claims and their verdicts"
        return [self._table(claims, title, preset, whole)]

    def _table(self, claims: Sequence[Claim], title: str, preset: str, whole: bool) -> nodes.table:
        headings = ("Claim", "Published", f"Ours{preset}", "Under the null", "Verdict")
        rules = {claim.id: claim.rule for claim in claims}
        rows = []
        for claim in claims:
            whose = claim.id.partition(".")[0]
            # A part has the rule of its claim, unless it has one of its own.
            rule = claim.rule if whole and (whose == claim.id or rules.get(whose) != claim.rule) else ""
            if whole or whose == claim.id:
                rows.append(self._row(claim, rule))
        return make_table(f"{title}{preset}", headings, rows, style="remi-claims")

    def _row(self, claim: Claim, rule: str) -> list[Cell]:
        numbered = claim.section[0].isdigit()
        place = f"Section {claim.section}" if numbered else claim.section.capitalize()
        first = [
            paragraph("", nodes.strong("", claim.id), nodes.Text(f" {claim.claim}")),
            paragraph(place, style="remi-detail"),
        ]
        if rule:
            folded = f"<details class='remi-detail'><summary>Rule</summary>{escape(rule)}.</details>"
            first.append(nodes.raw("", folded, format="html"))
        return [
            first,
            _published_cell(claim),
            _value_cell(claim),
            _null_cell(claim),
            self._verdict_cell(claim),
        ]

    def _verdict_cell(self, claim: Claim) -> Cell:
        style = "remi-verdict-" + claim.verdict.replace(" ", "-")
        badge = nodes.inline("", claim.verdict, classes=["remi-verdict", style])
        cell = [paragraph("", badge)]
        if claim.notebook:
            link = page_reference(claim.notebook, source=self.env.docname)
            cell.append(paragraph("", link, style="remi-detail"))
        if claim.reason:
            cell.append(paragraph(claim.reason, style="remi-detail"))
        return cell


class StoredDirective(ClaimsDirective):
    """Claim table of a preset that is too large for a reader's machine, after a line that says how it was had."""

    required_arguments = 1
    option_spec = {}

    def run(self) -> list[nodes.Node]:
        """Nodes of the stored report that the argument names."""
        self.file_name = stored_name(self.arguments[0])
        return super().run()

    def render(self, folder: Path) -> list[nodes.Node]:
        """A line on machine, recipe and seconds, and the table.

        Raises:
            ValueError: if the report is missing or malformed.
        """
        preset = self.arguments[0]
        claims, about = read_stored(folder, preset)
        minutes = round(float(about["seconds of measuring"]) / 60)
        line = paragraph(
            f"Stored result, not computed by this build: {about['machine']}; {minutes} minutes of measuring; "
        )
        line += nodes.literal("", str(about["recipe"]))
        return [line, self._table(claims, "A stored report", f" on preset {preset}", whole=False)]


def _published_cell(claim: Claim) -> Cell:
    text, source = str(claim.published.get("text") or "—"), claim.published.get("source")
    cell = [paragraph(text)]
    if source:
        cell.append(paragraph(str(source), style="remi-detail"))
    return cell


def _value_cell(claim: Claim) -> Cell:
    if claim.value is None:
        return [paragraph("—")]
    cell = [paragraph(f"{number_or_dash(claim.value)} {claim.unit}".strip())]
    values = [value for value in claim.seeds if value is not None]
    if len(claim.seeds) > 1:
        spread = f"median of {len(claim.seeds)} trainings, {format_range(min(values), max(values))}"
        seeds: Sequence[str] = [number_or_dash(value) for value in claim.seeds]
        each = f"<details class='remi-detail'><summary>{escape(spread)}</summary>{escape('; '.join(seeds))}</details>"
        cell.append(nodes.raw("", each, format="html"))
    interval = format_range(claim.ci_low, claim.ci_high)
    if interval:
        cell.append(paragraph(f"95 % interval over prompts {interval}", style="remi-detail"))
    if claim.n is not None:
        cell.append(paragraph(f"n = {claim.n} clusters", style="remi-detail"))
    return cell


def _null_cell(claim: Claim) -> Cell:
    if claim.null is None:
        return [paragraph("—")]
    interval = format_range(claim.null.get("low"), claim.null.get("high"))
    return [paragraph(interval or "—"), paragraph(str(claim.null.get("kind") or ""), style="remi-detail")]
