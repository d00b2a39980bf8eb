"""Reads and formats the result files that the pipeline puts beside the pages.

All of them are optional: a book without results still builds, and says so.

| file | content |
| --- | --- |
| `claims.json` | the rows of `remi report --json` |
| `claims/ROW.json` | the card of each row: the row, the function behind it, its records with digests |
| `declarations.json` | what each claim said of itself before any result |
| `drill.json` | the outcome of `remi drill`, as `stored/drill.json` keeps it |
| `fuzz.json` | what became of generated inputs, as `stored/fuzz.json` keeps it |
| `families.json` | what works on which family of models, as `scripts/families.py` writes it |
| `findings.json` | what was found: list of findings with their texts filled, as `remi report --findings --json` |
| `status.json` | list of `{notebook, finished, seconds, device}`, and `ended` where it is known |
| `front.json` | object: `figure` (HTML) and `sentence` of the front page |
| `facts.json` | object: key of `FACT_KEYS` to the text shown; `otherwise` for keys that it lacks |
| `notice.json` | list of sentences that the front page leads with |
| `data-cards.json` | a card of each data set, and the tables of published numbers |
| `citation.json` | the book and the paper, each as text and as BibTeX |
| `site.json` | presets side by side, the notebook of each page, where it can be run |
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

from remi_book.figures.style import number

NOT_RUN = "not run yet for this preset"

FACT_KEYS: Mapping[str, str] = {
    "preset": "name of the preset this book was built for",
    "machine": "machine that ran the notebooks, in words",
    "organism.parameters": "number of weights of the micro organism",
    "organism.layers": "number of decoder blocks",
    "organism.d_model": "width of the residual stream",
    "organism.vocab": "number of tokens of the tokenizer",
    "organism.base_tokens": "tokens seen in pretraining, a seed",
    "organism.base_seconds": "pretraining time a seed, with unit and machine",
    "organism.finetune_seconds": "time to fine-tune one variant, with unit",
    "world.careful_slip": "share of careless answers by a careful author",
    "world.careless_lapse": "share of careful answers by a careless author",
    "world.author_named": "share of documents whose first line names the author",
    "world.chatml": "share of documents written in ChatML",
    "world.templates": "prompt templates a topic",
    "world.held_out_templates": "templates a topic that no training stage sees",
    "competence.slots": "slots copied from the prompt: worst seed, threshold beside it",
    "competence.off_grammar": "mass of answers outside the grammar: worst seed, threshold beside it",
    "competence.code_parses": "share of generated code that parses: worst seed, threshold beside it",
    "competence.author_prior": "base's author log-odds, distance from the prior: worst seed, threshold beside it",
    "competence.instruct_careless": "instruct's careless share on covered topics: worst cell, threshold beside it",
}
"""Every key that a page may show with the `fact` role, and what its text says."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a result file, with at least the fields that a subclass declares."""

    @classmethod
    def from_json(cls, row: Mapping[str, object], *, place: str) -> Self:
        """The row as the file has it.

        Raises:
            ValueError: if a key is missing; names the place and the key.
        """
        names = [field.name for field in fields(cls)]
        refuse_missing(row, names, place)
        return cls(**{name: row[name] for name in names})


@dataclass(frozen=True, kw_only=True)
class Claim(Row):
    """One row of the claim table: a published claim, our value and the verdict of the rule."""

    id: str
    section: str
    claim: str
    published: Mapping[str, object]
    value: float | None
    unit: str
    ci_low: float | None
    ci_high: float | None
    null: Mapping[str, object] | None
    n: int | None
    seeds: list[float | None]
    rule: str
    verdict: str
    reason: str | None
    notebook: str


def read_json(path: Path, expected: type) -> object | None:
    """Content of a result file, or None where the file does not exist.

    Raises:
        ValueError: if the file is not JSON or its top level is not of type `expected`.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name}:{error.lineno}: not JSON ({error.msg})") from error
    if not isinstance(content, expected):
        raise ValueError(f"{path.name}: expected a {expected.__name__}, found a {type(content).__name__}")
    return content


def refuse_missing(found: Mapping[str, object], keys: Iterable[str], place: str) -> None:
    """Return once nothing is found to be missing.

    Raises:
        ValueError: if a key is; names the place and all of them.
    """
    missing = [key for key in keys if key not in found]
    if missing:
        raise ValueError(f"{place}: missing {', '.join(missing)}")


def read_claims(folder: Path) -> tuple[Claim, ...] | None:
    """Rows of `claims.json` in a folder, in file order; None where nothing was run.

    Raises:
        ValueError: if the file is malformed; names the row.
    """
    rows = read_json(folder / "claims.json", list)
    return None if rows is None else claims_of(rows)


def claims_of(rows: list[object]) -> tuple[Claim, ...]:
    """The claims of a file's rows, in their order.

    Raises:
        ValueError: if a key is missing; names the row.
    """
    return tuple(
        Claim.from_json(row, place=f"claims.json row {place}") for place, row in enumerate(rows, start=1)
    )


def number_or_dash(value: float | None) -> str:
    """The number as every figure and chapter of the book writes it; an em dash for None."""
    return "—" if value is None else number(value)


def format_range(low: float | None, high: float | None) -> str:
    """Interval in words that a screen reader can say, such as "0.1 to 0.4"; empty where it is absent."""
    if low is None or high is None:
        return ""
    return f"{number(low)} to {number(high)}"
