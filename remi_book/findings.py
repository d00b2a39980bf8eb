"""Findings: what a preset's results say in words, which rest on verdicts and stop the build where these changed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from remi_book import claims
from remi_book.figures.style import number
from remi_core.errors import nearest
from remi_core.store import project_root
from remi_lab.presets import get_preset
from remi_lab.strict import read_yaml

SLOT = re.compile(r"\{([^{}]*)\}")
NUMBERS = ("value", "ci_low", "ci_high", "seed_low", "seed_high")
TRAININGS, JUDGED = "trainings", "judged"
"""How many trainings have a value, as in “one training”, and on how many of them the verdict rests."""
KEYS = (*NUMBERS, "unit", "verdict", TRAININGS, JUDGED)
"""What a slot ``{ROW.KEY}`` may ask of a row."""
N_TRAININGS = "n_trainings"
"""The slot for the number of trainings of the preset, in digits."""
GOOD = (claims.REPRODUCED, claims.CONFOUNDED)
VERDICTS = {
    *GOOD,
    *(word.replace(claims.REPRODUCED, claims.SUPPORTED) for word in GOOD),
    *(claims.CONTRADICTED, claims.INCONCLUSIVE, claims.NOT_TESTABLE, claims.SHOWN),
}
TEXTS = ("short", "sure", "sentence", "how_sure", "would_change")
REWRITE = "rewrite it in remi_book/findings.yaml"

Rows = Sequence[Mapping[str, object]]
"""Rows of the report."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found on one preset's models; its texts have slots that rows of its evidence fill.

    Raises:
        ValueError: if it has no evidence, or names a row, a verdict, a key or a chapter that there is not.
    """

    id: str
    title: str
    """The question that it answers, in a few words."""
    preset: str
    chapters: tuple[str, ...]
    """Stems of the notebooks that show it at their head; the first is the one that other pages link to."""
    front: int | None = None
    """Its place on the front page; None where it is not shown there."""
    short: str = ""
    """The answer in a sentence or two, for the front page."""
    sure: str = ""
    """How sure that is, in part of a sentence."""
    sentence: str
    evidence: Mapping[str, str]
    """Row of the report → the verdict for which the texts were written, and after a colon words of its reason."""
    how_sure: str
    would_change: str
    """Which result would overturn it."""

    def __post_init__(self) -> None:
        rows, slots = claims.ledger_rows(get_preset(self.preset)), list(self.slots())
        notebooks = [path.stem for path in (project_root() / "notebooks").glob("*.ipynb")]
        for part in ("chapters", "evidence", *(("short", "sure") if self.front is not None else ())):
            if not getattr(self, part):
                raise ValueError(f"finding {self.id} has no {part}")
        for what, named, choices in (
            ("notebook", self.chapters, notebooks),
            ("row of the report", self.evidence, rows),
            ("verdict", [written.partition(": ")[0] for written in self.evidence.values()], VERDICTS),
            ("row of its evidence, as a slot asks", [row for row, _ in slots], self.evidence),
            ("key of a row, as a slot asks", [key for _, key in slots], KEYS),
        ):
            for name in named:
                if name not in choices:
                    raise ValueError(f"finding {self.id}: {name!r} is no {what} {nearest(name, choices)}")

    def slots(self) -> Iterator[tuple[str, str]]:
        """Row and key of each slot that asks for one."""
        for name in TEXTS:
            for slot in SLOT.findall(getattr(self, name)):
                if slot != N_TRAININGS:
                    row, _, key = slot.rpartition(".")
                    yield row, key

    def changed(self, rows: Mapping[str, Mapping[str, object]]) -> str:
        """What of its evidence is no longer as it was written for; "" where all is, or was not measured."""
        said = []
        for name, written in self.evidence.items():
            row, (verdict, _, words) = rows.get(name), written.partition(": ")
            if row is None:
                said.append(f"the report has no {name}")
            elif row["verdict"] == claims.NOT_MEASURED:
                continue
            elif row["verdict"] != verdict:
                said.append(f"{name} reads “{row['verdict']}”, and was written for “{verdict}”")
            elif words not in str(row["reason"]):
                said.append(f"{name} is no longer “{verdict}” since “{words}”")
            else:
                asked = (key for slot, key in self.slots() if slot == name and key in NUMBERS)
                said += [f"{name} has no {key}" for key in dict.fromkeys(asked) if row[key] is None]
        return "; ".join(said)


FINDINGS = read_yaml(Path(__file__).with_suffix(".yaml"), tuple[Finding, ...])


def findings_of(preset: str) -> list[Finding]:
    """The findings of a preset: those of the front page in their order, then the others as they are written."""
    own = [finding for finding in FINDINGS if finding.preset == preset]
    return sorted(own, key=lambda finding: (finding.front is None, finding.front))


def check(preset: str, rows: Rows) -> list[str]:
    """One line for each finding of a preset that its report no longer bears; rows not measured say nothing."""
    by_name = {str(row["id"]): row for row in rows}
    told = ((finding.id, finding.changed(by_name)) for finding in findings_of(preset))
    return [f"finding {name}: {changed}: {REWRITE}" for name, changed in told if changed]


def shown(preset: str, rows: Rows) -> list[dict[str, object]]:
    """The findings whose rows are all there, each as its fields with filled texts.

    One that cannot be said has empty texts, and under ``open`` why: what must be run for it, or what changed. Under
    ``parts`` each text is cut at its numbers, with the row that each is of, "" for words.
    """
    by_name, listed = {str(row["id"]): row for row in rows}, []
    for finding in findings_of(preset):
        if not by_name.keys() >= finding.evidence.keys():
            continue
        own = [by_name[row] for row in finding.evidence]
        commands = dict.fromkeys(str(row["reason"]) for row in own if row["verdict"] == claims.NOT_MEASURED)
        changed = finding.changed(by_name)
        why = f"Not yet measured here: {' and '.join(commands)}." if commands else ""
        why = f"Not shown, since its evidence changed: {changed}." if changed else why
        parts = {name: [] if why else _filled(getattr(finding, name), by_name) for name in TEXTS}
        texts = {name: "".join(text for text, _ in cut) for name, cut in parts.items()}
        listed.append({**asdict(finding), **texts, "parts": parts, "open": why})
    return listed


def _filled(text: str, rows: Mapping[str, Mapping[str, object]]) -> list[tuple[str, str]]:
    """The text in parts: words, and what stands in the place of a slot with the row of which it is a number."""
    words, *slots = SLOT.split(text.strip())
    parts = [(words, "")]
    for slot, words in zip(slots[::2], slots[1::2], strict=True):
        row, _, key = slot.rpartition(".")
        parts += [(_word(slot, rows), row if key in NUMBERS else ""), (words, "")]
    return parts


def _word(slot: str, rows: Mapping[str, Mapping[str, object]]) -> str:
    """What stands in the place of a slot: a number as the book writes it, or a word of the row."""
    if slot == N_TRAININGS:
        return str(max(len(row["seeds"]) for row in rows.values()))
    row, _, key = slot.rpartition(".")
    if key in (TRAININGS, JUDGED):
        valued = [each for each in rows[row]["trainings"] if each["value"] is not None]
        counted = [each for each in valued if key == TRAININGS or each["judged"]]
        word = "training" if len(counted) == len(valued) else "judged training"
        return f"one {word}" if len(counted) == 1 else f"{len(counted)} {word}s"
    return number(rows[row][key]) if key in NUMBERS else str(rows[row][key])
