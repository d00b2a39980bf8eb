"""The parts of the book's Sphinx extension, one by one, without a build."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from remi_book.figures import output

sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_ext"))

from remi_claims import _null_cell, _value_cell  # noqa: E402
from remi_drills import DrillDirective, FuzzDirective  # noqa: E402
from remi_results import Claim, read_json  # noqa: E402


def test_a_row_reads_the_same_on_the_front_page_and_in_its_chapter(monkeypatch: pytest.MonkeyPatch) -> None:
    glued: dict[str, str] = {}
    monkeypatch.setattr(output, "glue", lambda name, text, **_: glued.update({name: text}))
    for value in (0.0, 0.5, -0.25, 12.345, 12.0, 1500.4, -69612.0, 2.5e-5, 0.05):
        null = {"kind": "shuffled", "low": -value, "high": value / 3}
        row = dict.fromkeys(Claim.__dataclass_fields__, "") | {"id": "C1", "value": value, "null": null}
        row |= {"ci_low": value, "ci_high": value * 2, "seeds": [value, value / 7], "n": None}
        output.glue_rows([row])
        claim = Claim.from_json(row, position=1)
        shown, interval, seeds = (node.astext() for node in _value_cell(claim))
        assert shown == glued["C1_value"] and interval == f"95 % interval {glued['C1_interval']}"
        assert seeds.removeprefix("by seed: ").split("; ") == glued["C1_seeds"].split(", ")
        assert glued["C1_null"] == ": ".join(node.astext() for node in reversed(_null_cell(claim)))


def test_a_claim_without_a_key_is_refused_by_name() -> None:
    row = dict.fromkeys(Claim.__dataclass_fields__, 1)
    assert Claim.from_json(row, position=1).id == 1
    with pytest.raises(ValueError, match="row 3: missing verdict"):
        Claim.from_json({key: 1 for key in row if key != "verdict"}, position=3)


def test_result_files_are_optional_but_not_free_in_form(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    assert read_json(path, dict) is None
    path.write_text("[1,\n2")
    with pytest.raises(ValueError, match=r"facts.json:2: not JSON"):
        read_json(path, dict)
    path.write_text("[1]")
    with pytest.raises(ValueError, match="expected a dict, found a list"):
        read_json(path, dict)


SHOWN = [
    (
        DrillDirective,
        "drill.json",
        {"machine": "a machine", "made": "today", "recipe": "make drill"},
        {"drill": "kills", "tried": 3, "held": 2, "harmless": 0, "seconds": 90.0, "note": "n"},
        lambda row: {"drills": {"run": [row]}},
        ({"failures": ["of try two"]}, ("make drill on today; a machine", "1.5", "kills: of try two")),
    ),
    (
        FuzzDirective,
        "fuzz.json",
        {"machine": "a machine", "recipe": "make drill"},
        {"target": "reader", "distinct": 25001, "parsed_share": 0.4739, "reasons": 7},
        lambda row: {"targets": [row]},
        ({"refused_share": 0.5261}, ("make drill; a machine", "reader", "25,001", "47%", "53%", "7")),
    ),
]


@pytest.mark.parametrize(("directive", "file", "about", "row", "whole", "rest"), SHOWN)
def test_outcomes_are_shown_whole_or_named(
    directive: type, file: str, about: dict, row: dict, whole: Callable, rest: tuple, tmp_path: Path
) -> None:
    """Of drills and of generated inputs; a file that lacks a field is refused by the field's name."""
    shown, path, (last, texts) = directive.__new__(directive), tmp_path / file, rest
    assert "No outcome" in shown.render(tmp_path)[0].astext()
    path.write_text(json.dumps(about | whole(row | last)))
    said = "\n".join(node.astext() for node in shown.render(tmp_path))
    assert [text for text in texts if text not in said] == []
    path.write_text(json.dumps(about | whole(row)))
    with pytest.raises((ValueError, KeyError), match=next(iter(last))):
        shown.render(tmp_path)
    path.write_text("{}")
    with pytest.raises(ValueError, match=f"{file}: missing .*machine"):
        shown.render(tmp_path)
