"""A stored report holds rows, recipe, machine and seconds, and appears whole; verdicts are compared with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from remi_book import claims, stored
from remi_book.cli import main
from remi_book.stored import differences, stored_verdicts, verdicts_of, write_expected
from remi_core.errors import UsageError
from remi_core.store import Address, Store
from remi_lab.presets import get_preset

SMOKE = get_preset("smoke")


def row(identifier: str, verdict: str, value: float | None) -> dict[str, object]:
    return {"id": identifier, "verdict": verdict, "value": value}


ROWS = [row("C1", "reproduced", 0.7), row("C16", "inconclusive", -0.2), row("C5", "shown", 1.0)]
ROWS += [row("C20", "not testable here", None), row("C12.general", "contradicted", -0.3)]


def test_what_is_compared_is_the_verdict_and_the_side_of_the_boundary() -> None:
    sides = {name: side for name, (_, side) in verdicts_of(ROWS).items()}
    assert sides == {"C1": 1, "C16": -1, "C5": None, "C20": None, "C12.general": -1}
    # The boundary of C1 is not 0: a positive value below it lies on the other side.
    assert verdicts_of([row("C1", "contradicted", 0.3)])["C1"] == ["contradicted", -1]


def test_what_was_written_is_what_is_read_and_other_presets_stay(tmp_path: Path) -> None:
    path = tmp_path / "stored" / "expected.json"
    write_expected("micro", ROWS, path)
    write_expected("other", ROWS[:1], path)
    assert stored_verdicts("micro", path) == verdicts_of(ROWS)
    assert differences(verdicts_of(ROWS), stored_verdicts("micro", path)) == []
    with pytest.raises(UsageError, match="'mine' .*micro, other"):
        stored_verdicts("mine", path)
    with pytest.raises(UsageError, match="none are stored"):
        stored_verdicts("micro", tmp_path / "none.json")


def test_each_difference_is_one_line() -> None:
    changed = [row("C1", "inconclusive", 0.7), row("C16", "inconclusive", 0.2)]
    found = [*changed, *ROWS[2:4], row("H1", "shown", 1.0)]
    lines = differences(verdicts_of(found), verdicts_of(ROWS))
    assert [line.partition(":")[0] for line in lines] == ["C1", "C16", "C12.general", "H1"]
    assert "expected “reproduced”" in lines[0] and "found “inconclusive”" in lines[0]
    assert "below its boundary" in lines[1] and "above its boundary" in lines[1]
    assert "no such row" in lines[2] and "no verdict is stored" in lines[3]


def test_the_command_says_all_or_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    path = tmp_path / "expected.json"
    Store(tmp_path / "store").save(Address("smoke", 0, "base", "sequence", "general", "aaaaaaaa"), {}, {})
    words = ["report", "--preset", "smoke", "--check", "--store", str(tmp_path / "store")]
    write_expected("smoke", ROWS, path)
    monkeypatch.setattr(stored, "expected_path", lambda: path)
    gone = "C1: expected “reproduced”, above its boundary, the report has no such row"
    for rows, code, line in ((ROWS, 0, "all 5 verdicts as expected"), (ROWS[1:], 1, gone)):
        monkeypatch.setattr(claims, "report_rows", lambda results, rows=rows, **_: rows)
        assert main(words) == code and capsys.readouterr().out == f"{line}\n"
    assert main(["report", "--preset", "smoke", "--json", "--check"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "leave out --json" in line
