"""Findings rest on verdicts: where one changed, or says nothing of a slot, nothing is built and a line says which."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from remi_book import cli, findings, publishing
from remi_book.claims import NOT_MEASURED
from remi_book.findings import FINDINGS, NUMBERS, SLOT, TEXTS, Finding, check, findings_of, shown
from remi_book.stored import expected_path, stored_verdicts
from remi_core.errors import UsageError
from remi_core.store import Store
from remi_lab.presets import get_preset
from remi_lab.strict import checked, read_yaml

PRESET, NOTEBOOKS = "micro", sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
GOOD = {
    "id": "one",
    "title": "T",
    "preset": PRESET,
    "chapters": ["10_controls"],
    "sentence": "It is {X2.value}.",
}
GOOD |= {"how_sure": "In {X2.judged} of {X2.trainings} of {n_trainings}.", "would_change": "No."}
GOOD |= {"evidence": {"X2": "supported: beyond its null"}}


def report(**changes: str) -> list[dict[str, object]]:
    """Rows as the stored verdicts have them, every number a half; ``changes``: row → another verdict, "" for no row.

    Of reasons none are stored: a row's is that on which findings rest.
    """
    written = [pair for finding in FINDINGS for pair in finding.evidence.items()]
    reasons = {row: f"{words}; no more" for row, words in written if ": " in words}
    verdicts = {row: entry[0] for row, entry in stored_verdicts(PRESET, expected_path()).items()} | changes
    own = {"preset": PRESET, "records": [], "value": 0.5}
    each = [own | {"judged": judged} for judged in (True, True, False)]
    rest = {"unit": "nats", "seeds": [0.5] * 3, "trainings": each, **dict.fromkeys(NUMBERS, 0.5)}
    return [
        {"id": row, "verdict": verdict, "reason": reasons.get(row, "remi run --only 10"), **rest}
        for row, verdict in verdicts.items()
        if verdict
    ]


def test_the_findings_bear_the_stored_verdicts_and_one_that_changed_is_named() -> None:
    assert check(PRESET, report()) == []
    resting = [finding.id for finding in findings_of(PRESET) if "X2" in finding.evidence]
    for verdict, words in (("inconclusive", "X2 reads “inconclusive”, and was written for"), ("", "no X2")):
        lines = check(PRESET, report(X2=verdict))
        assert [line.split()[1].rstrip(":") for line in lines] == resting != []
        assert all(words in line and line.endswith("rewrite it in remi_book/findings.yaml") for line in lines)
    assert check("smoke", report(X2="inconclusive")) == []  # no finding is about that preset


def test_what_was_not_measured_fails_nothing_and_says_what_to_run() -> None:
    rows = report(X2=NOT_MEASURED)
    assert check(PRESET, rows) == []
    told = {one["id"]: one for one in shown(PRESET, rows)}
    assert told["benign"]["open"] == "Not yet measured here: remi run --only 10."
    assert not any(told["benign"][name] for name in TEXTS) and told["spread"]["sentence"]
    changed = {one["id"]: one for one in shown(PRESET, report(X2="inconclusive"))}["benign"]
    assert "X2 reads “inconclusive”" in changed["open"] and changed["sentence"] == ""


def test_slots_are_filled_from_the_row_and_a_number_that_is_not_there_is_a_change(monkeypatch) -> None:
    monkeypatch.setattr(findings, "FINDINGS", (checked(GOOD, Finding),))
    row = {
        **report()[0],
        "id": "X2",
        "verdict": "supported",
        "reason": "it is beyond its null",
        "value": -0.123456,
    }
    (told,) = shown(PRESET, [row])
    assert (told["sentence"], told["how_sure"]) == (
        "It is −0.123.",
        "In 2 judged trainings of 3 trainings of 3.",
    )
    once = {"trainings": [row["trainings"][0], {"value": None, "judged": False}]}
    assert shown(PRESET, [row | once])[0]["how_sure"] == "In one training of one training of 3."
    assert check(PRESET, [row]) == [] and "X2 has no value" in check(PRESET, [row | {"value": None}])[0]
    # The same verdict for another reason is another finding.
    assert "no longer “supported” since “beyond its null”" in check(PRESET, [row | {"reason": "chance"}])[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sentence": "{X3.value}"}, "'X3' is no row of its evidence"),
        ({"sentence": "{X2.vlaue}"}, "'vlaue' is no key of a row, as a slot asks (did you mean 'value'?"),
        ({"would_change": "{value}"}, "'' is no row of its evidence"),
        ({"evidence": {}}, "has no evidence"),
        ({"evidence": {"X99": "supported"}}, "'X99' is no row of the report"),
        ({"evidence": {"X2": "true"}}, "'true' is no verdict"),
        ({"chapters": ["10_control"]}, "'10_control' is no notebook (did you mean '10_controls'?"),
        ({"certain": "very"}, "there is no"),
        ({"front": 1}, "has no short"),
    ],
)
def test_a_finding_that_names_what_is_not_there_is_refused_with_its_line(change, words, tmp_path) -> None:
    path = tmp_path / "findings.yaml"
    path.write_text(yaml.safe_dump([GOOD, GOOD | {"id": "two"} | change], sort_keys=False), encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        read_yaml(path, tuple[Finding, ...])
    line = int(re.match(rf"{re.escape(str(path))}:(\d+): ", str(refused.value))[1])
    second = path.read_text().splitlines().index("- id: two") + 1
    assert words in str(refused.value) and line >= second
    assert read_yaml(path, tuple[dict, ...])[0]["id"] == "one"


def test_every_chapter_with_a_question_has_a_finding_and_the_front_page_at_most_six() -> None:
    heads = {name for finding in findings_of(PRESET) for name in finding.chapters}
    asked = {path.stem for path in NOTEBOOKS if "01" <= path.stem[:2] <= "16"}
    assert heads >= asked and len(asked) == 16
    places = [finding.front for finding in findings_of(PRESET) if finding.front is not None]
    assert places == list(range(1, len(places) + 1)) and len(places) <= 6
    assert len({(finding.preset, finding.id) for finding in FINDINGS}) == len(FINDINGS)


def test_nothing_is_typed_that_a_slot_should_fill() -> None:
    typed = re.compile(r"\d|\b(reproduced|supported|contradicted|inconclusive)\b")
    for finding in FINDINGS:
        for name in ("title", *TEXTS):
            assert not typed.search(SLOT.sub("", getattr(finding, name))), (finding.id, name)
    assert all(typed.search(text) for text in ("in 3 trainings", "it is 0.3", "H1 is contradicted"))


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A store of the preset in which everything was run, with the verdicts that a test puts in the list."""
    rows = report()
    monkeypatch.setattr("remi_book.claims.report_rows", lambda *_, **__: rows)
    monkeypatch.setattr(Store, "list", lambda *_: ["a record"])
    monkeypatch.setattr(cli, "as_table", lambda rows: "the table")
    return rows


def test_the_report_begins_with_what_was_found_and_its_check_names_what_changed(measured, capsys) -> None:
    def said(options: str, code: int) -> str:
        assert cli.main(["report", "--preset", PRESET, *options.split()]) == code
        return capsys.readouterr().out

    text = said("", 0)
    assert text.index("What spreads (spread;") < text.index("How sure: ") < text.index("the table")
    assert {row["id"] for row in json.loads(said("--json", 0))} == {row["id"] for row in measured}
    assert json.loads(said("--findings --json", 0)) == json.loads(json.dumps(shown(PRESET, measured)))
    assert "the table" not in said("--findings", 0)
    measured[[row["id"] for row in measured].index("X2")]["verdict"] = "inconclusive"
    assert "finding benign: X2 reads" in said("--check", 1)
    assert "Not shown, since its evidence changed: X2 reads" in said("--findings", 1)
    assert cli.main(["report", "--preset", "smoke", "--findings"]) == 2
    assert "no findings are written for preset 'smoke' (written for: micro)" in capsys.readouterr().err


def test_no_book_is_built_from_a_finding_whose_evidence_changed(
    measured, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr("remi_book.cards.data_cards", lambda *_: {})
    preset, store = get_preset(PRESET), Store(tmp_path / "store")
    publishing.write_results(preset, store, [], tmp_path)
    assert json.loads((tmp_path / "findings.json").read_text()) == json.loads(
        json.dumps(shown(PRESET, measured))
    )
    measured[[row["id"] for row in measured].index("X2")]["verdict"] = "inconclusive"
    monkeypatch.setattr(publishing, "book_inputs", lambda *_: "others")
    monkeypatch.setattr(publishing, "_build", lambda *_: pytest.fail("it was built"))
    out = tmp_path / "html"
    assert cli.main(["book", "--preset", PRESET, "--store", str(tmp_path), "--out", str(out)]) == 1
    assert "finding benign: X2 reads “inconclusive”, and was written for" in capsys.readouterr().err
    assert not out.exists()
