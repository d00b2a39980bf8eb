"""The parts of the book's Sphinx extension, without a build: rows, outcomes, predictions, exercises."""

from __future__ import annotations

import json
import pkgutil
import re
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
        claim = Claim.from_json(row, place="row 1")
        shown, interval, seeds = (node.astext() for node in _value_cell(claim))
        assert shown == glued["C1_value"] and interval == f"95 % interval {glued['C1_interval']}"
        assert seeds.removeprefix("by seed: ").split("; ") == glued["C1_seeds"].split(", ")
        assert glued["C1_null"] == ": ".join(node.astext() for node in reversed(_null_cell(claim)))


def test_a_claim_without_a_key_is_refused_by_name() -> None:
    row = dict.fromkeys(Claim.__dataclass_fields__, 1)
    assert Claim.from_json(row, place="row 1").id == 1
    with pytest.raises(ValueError, match="row 3: missing verdict"):
        Claim.from_json({key: 1 for key in row if key != "verdict"}, place="claims.json row 3")


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


BOOK = Path(__file__).parents[2] / "book"
sys.path.insert(0, str(BOOK / "_ext"))

from remi_predictions import ABOVE, BELOW, NEITHER, Declared, _data  # noqa: E402
from remi_teaching import elsewhere, exercises_of, in_minutes  # noqa: E402


def declared(**changes: object) -> Declared:
    plain = {"id": "C1", "claim": "x", "estimand": "y", "unit": "nats", "boundary": 0.5}
    plain |= {"smallest_effect": 0.1, "by_outcome": False, "untestable": ""}
    return Declared(**plain | changes)


def found(low: float | None, high: float | None, verdict: str = "reproduced") -> Claim:
    row = {"id": "C1", "ci_low": low, "ci_high": high, "verdict": verdict, "notebook": "02_behaviour"}
    return Claim(**dict.fromkeys(Claim.__dataclass_fields__) | row)


def test_the_interval_or_the_verdict_of_a_whole_rule_decides_which_direction_came_out() -> None:
    ends = [(0.7, 0.9), (0.1, 0.3), (0.3, 0.9), (0.51, 0.58), (None, None)]
    directions = [declared().direction(found(*both)) for both in ends]
    assert directions == [ABOVE, BELOW, NEITHER, NEITHER, None] and declared().direction(None) is None
    verdicts = ("reproduced", "supported with a confound", "contradicted", "inconclusive")
    rule = declared(by_outcome=True)
    directions = [rule.direction(found(0.9, 1.0, verdict)) for verdict in verdicts]
    assert directions == [ABOVE, ABOVE, BELOW, NEITHER]


def test_data_of_the_script_cannot_end_its_element() -> None:
    text = _data([declared(unit="</script><b>")], {"C1": found(0.7, 0.9)}, "smoke")
    assert text.count("</script>") == 1 and text.endswith("</script>")
    content = json.loads(text[text.index("{") : text.rindex("}") + 1])
    (claim,) = content["claims"]
    assert claim["unit"] == "</script><b>" and claim["outcome"]["direction"] == ABOVE


EXERCISE = """:::{admonition} Exercise 1: the sign
:class: exercise
:name: gradients-sign

What is it?

<details><summary>Solution</summary>

Below {glue:text}`bound` and {glue:text}`rate:.2f`.

</details>
:::"""


def cells(*pairs: tuple[str, str]) -> list[dict[str, object]]:
    return [{"cell_type": kind, "source": text.splitlines(keepends=True)} for kind, text in pairs]


def test_exercises_are_found_by_their_check_and_their_box() -> None:
    source = cells(
        ("markdown", EXERCISE),
        ("code", 'answer = ...\ncheck("gradients.sign", answer)'),
        ("code", "check('gradients.size', 1)\nunchecked(\"no.exercise\", 1)"),
    )
    first, second = exercises_of(source)
    assert (first.name, first.title, first.label) == ("gradients.sign", "the sign", "gradients-sign")
    assert first.solution.startswith("Below") and "details" not in first.solution
    assert (second.name, second.title, second.label, second.solution) == ("gradients.size", "", "", "")
    assert list(exercises_of(cells(("markdown", EXERCISE), ("code", "print(1)")))) == []


def test_a_solution_asks_another_page_for_its_values() -> None:
    other = "`code` and {glue:text}`notebooks/a.ipynb::x:s`"
    moved = elsewhere("{glue:text}`bound`, {glue:text}`rate:.2f`, " + other, "b")
    here = "{glue:text}`notebooks/b.ipynb::bound:s`, {glue:text}`notebooks/b.ipynb::rate:.2f`, "
    assert moved == here + other


@pytest.mark.parametrize(("seconds", "text"), [(1, "0.5"), (30, "0.5"), (31, "1"), (91.36, "2"), (600, "10")])
def test_minutes_are_rounded_up_to_a_half(seconds: float, text: str) -> None:
    assert in_minutes(seconds) == text


def test_what_the_pages_name_in_the_packages_exists() -> None:
    texts = [path.read_text(encoding="utf-8") for path in BOOK.glob("*.md")]
    named = {name for text in texts for name in re.findall(r"`(remi_(?:core|lab|book)(?:\.\w+)+)`", text)}
    assert named
    for name in named:
        pkgutil.resolve_name(name)
