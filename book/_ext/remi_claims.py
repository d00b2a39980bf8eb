"""Directives that show claims on the pages written by hand.

- `{remi-claims}`: the claim table of `claims.json`; with `:all:` it has every part, and below it the card of each row,
  folded: its rule, the function that computes it with its source, and the records it was computed from.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from docutils import nodes
from docutils.parsers.rst import directives
from remi_directives import ResultDirective, card_reference, page_reference
from remi_results import (
    NOT_RUN,
    Claim,
    claims_of,
    format_range,
    number_or_dash,
    read_json,
)
from remi_tables import Cell, make_table, paragraph


class ClaimsDirective(ResultDirective):
    """Claim table: claim, published value, our value with interval, null, verdict; each value leads to its card.

    With the flag `all` the parts of the claims are rows too, a tally of verdicts stands above and the cards below.
    """

    file_name = "claims.json"
    kind = list
    nothing = f"The claim table is {NOT_RUN}."
    option_spec = {"all": directives.flag}

    def shown(self, rows: list) -> list[nodes.Node]:
        """The table, and with `all` the tally and the cards.

        Raises:
            ValueError: if a row, a card or `facts.json` is malformed.
        """
        folder, claims = Path(self.env.srcdir), claims_of(rows)
        facts = read_json(folder / "facts.json", dict) or {}
        preset = f" on preset {facts['preset']}" if "preset" in facts else ""
        whole = "all" in self.options
        title = "Every row of the ledger" if whole else "The claims and their verdicts"
        listed = [claim for claim in claims if whole or "." not in claim.id]
        table = self._table(listed, f"{title}{preset}", f"Ours{preset}")
        return [_tally(claims), table, *_cards(claims, folder)] if whole else [table]

    def _table(self, claims: Sequence[Claim], title: str, ours: str) -> nodes.table:
        headings = ("Claim", "Published", ours, "Under the null", "Verdict")
        return make_table(title, headings, [self._row(claim) for claim in claims], style="remi-claims")

    def _row(self, claim: Claim) -> list[Cell]:
        name = card_reference(claim.id, claim.id, self.env)
        return [
            [
                paragraph("", nodes.strong("", "", name), nodes.Text(f" {claim.claim}")),
                paragraph(_place(claim), style="remi-detail"),
            ],
            _published_cell(claim),
            self._value_cell(claim),
            _null_cell(claim),
            self._verdict_cell(claim),
        ]

    def _value_cell(self, claim: Claim) -> Cell:
        if claim.value is None:
            return [paragraph("—")]
        text = f"{number_or_dash(claim.value)} {claim.unit}".strip()
        value = card_reference(claim.id, text, self.env)
        cell = [paragraph("", value)]
        if len(claim.seeds) > 1:
            cell.append(_folded(_spread(claim), "; ".join(map(number_or_dash, claim.seeds))))
        interval = format_range(claim.ci_low, claim.ci_high)
        if interval:
            counted = "" if claim.n is None else f" (n = {claim.n})"
            cell.append(paragraph(f"95 % interval {interval}{counted}", style="remi-detail"))
        return cell

    def _verdict_cell(self, claim: Claim) -> Cell:
        cell = [paragraph("", _badge(claim.verdict))]
        if claim.notebook:
            link = page_reference(claim.notebook, source=self.env.docname)
            cell.append(paragraph("", link, style="remi-detail"))
        why, *rest = re.split("[;:] ", claim.reason or "", maxsplit=1)
        cell += [paragraph(why, style="remi-detail")] * bool(why)
        cell += [_folded("more", text) for text in rest]
        return cell


def _place(claim: Claim) -> str:
    return f"Section {claim.section}" if claim.section[0].isdigit() else claim.section.capitalize()


def _spread(claim: Claim) -> str:
    values = [value for value in claim.seeds if value is not None]
    return f"median of {len(claim.seeds)} trainings, {format_range(min(values), max(values))}"


def _badge(verdict: str) -> nodes.inline:
    return nodes.inline("", verdict, classes=["remi-verdict", "remi-verdict-" + verdict.replace(" ", "-")])


def _folded(summary: str, text: str) -> nodes.raw:
    """A detail of a cell that opens on a click; what it holds is in the table's download."""
    inside = f"<summary>{escape(summary)}</summary><p>{escape(text)}</p>"
    return nodes.raw("", f"<details class='remi-detail'>{inside}</details>", format="html")


def _published_cell(claim: Claim) -> Cell:
    whose, _, part = claim.id.partition(".")
    if part:
        return [paragraph(f"as {whose}", style="remi-detail")]
    text, source = str(claim.published.get("text") or "—"), claim.published.get("source")
    return [paragraph(text), *([_folded("source", str(source))] if source else [])]


def _null_cell(claim: Claim) -> Cell:
    if claim.null is None:
        return [paragraph("—")]
    interval, kind = format_range(claim.null.get("low"), claim.null.get("high")), claim.null.get("kind")
    return [paragraph(interval or "—"), *([_folded("of what", str(kind))] if kind else [])]


def _tally(claims: Sequence[Claim]) -> nodes.paragraph:
    """How many claims, their parts left out, have which verdict."""
    counted = Counter(claim.verdict for claim in claims if "." not in claim.id)
    told = paragraph(f"{counted.total()} claims, without their parts: ", style="remi-tally")
    for verdict, count in counted.most_common():
        told += [_badge(verdict), nodes.Text(f" {count} ")]
    return told


def _cards(claims: Sequence[Claim], folder: Path) -> list[nodes.Node]:
    """The card of each row, folded, under the row's name.

    Raises:
        ValueError: if a file of a card is malformed.
    """
    told = "The card of each row: what was computed, how, and from which records."
    found: list[nodes.Node] = [paragraph(told), _raw("<div class='remi-cards'>")]
    for claim in claims:
        row, card = escape(claim.id), read_json(folder / "claims" / f"{claim.id}.json", dict)
        head = f"<details class='remi-card remi-passport'><summary>{row}</summary><div id='{row}'>{_words(claim)}"
        found.append(_raw(head + (_trainings(card["row"]["trainings"]) if card else "")))
        if card:
            found += [*_function(card["function"]), _raw(_records(claim.id, card["records"]))]
        found.append(_raw("</div></details>"))
    return [*found, _raw("</div>")]


def _raw(page: str) -> nodes.raw:
    return nodes.raw("", page, format="html")


def _words(claim: Claim) -> str:
    """What was claimed, published and found, and the rule, as HTML."""
    ours, interval = (
        [f"{number_or_dash(claim.value)} {claim.unit}"],
        format_range(claim.ci_low, claim.ci_high),
    )
    if claim.value is not None and len(claim.seeds) > 1:
        ours.append(_spread(claim))
    ours += [f"95 % interval over prompts {interval}, n = {claim.n} clusters"] * bool(interval)
    null = claim.null and f"{claim.null['kind']}: {format_range(claim.null['low'], claim.null['high'])}"
    lines = {
        claim.id: claim.claim,
        "Published": f"{claim.published.get('text') or '—'} ({claim.published.get('source') or 'no source'})",
        "Ours": ", ".join(ours),
        "Under the null": null or "—",
        "Verdict": f"{claim.verdict}: {claim.reason}" if claim.reason else claim.verdict,
        "Rule": claim.rule,
    }
    return "".join(f"<p><strong>{escape(name)}</strong> {escape(text)}</p>" for name, text in lines.items())


def _trainings(trainings: Sequence[Mapping[str, object]]) -> str:
    """The value of every training, and whether its records are not known, as an HTML list."""
    lines = []
    for each in trainings:
        told = f"{each['preset']}, seed {each['seed']}: {number_or_dash(each['value'])}"
        ends = format_range(each["low"], each["high"])
        told += f" ({ends})" * bool(ends) + ", not judged" * (not each["judged"])
        if each["records"] is None and each["value"] is not None:
            told += "; records of this training are not named in its stored study"
        lines.append(f"<li>{escape(told)}</li>")
    return f"<p><strong>In every training</strong></p><ul>{''.join(lines)}</ul>"


def _function(function: Mapping[str, object] | None) -> list[nodes.Node]:
    """Which function computes the row, how it is called, and its source, folded."""
    if function is None:
        return [_raw("<p><strong>Computed by</strong> no function on these models.</p>")]
    name, place = f"{function['module']}.{function['name']}", f"{function['file']}, line {function['line']}"
    told = f"<code>{escape(name)}</code> ({escape(place)}), as <code>{escape(str(function['call']))}</code>"
    fold = f"<details><summary>Source of {escape(name)}</summary>"
    source = nodes.literal_block("", str(function["source"]), language="python")
    return [_raw(f"<p><strong>Computed by</strong> {told}.</p>{fold}"), source, _raw("</details>")]


def _records(row: str, records: Mapping[str, Mapping[str, object]]) -> str:
    """The records and stored studies behind the row with the digests of their files, folded, and the row as JSON."""
    lines = []
    for name, about in records.items():
        told = f"<code>{escape(name)}</code>"
        if name.startswith("stored/"):
            told = f"<a href='{quote(name)}'>{told}</a>"
        lines.append(f"<li>{told} {about['sha256'] or 'no longer in the store'}</li>")
    folded = f"<details><summary>Computed from {len(lines)} files, each with its SHA-256</summary>"
    folded += f"<ul>{''.join(lines)}</ul></details>"
    return f"{folded}<p><a href='claims/{quote(row)}.json' download>{escape(row)} as JSON</a>, with all of this.</p>"
