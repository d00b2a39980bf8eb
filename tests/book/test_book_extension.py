"""The parts of the book's Sphinx extension, without a build: refusals, outcomes of predictions, rewritten solutions."""

from __future__ import annotations

import json
import pkgutil
import re
import sys
from pathlib import Path

import pytest

BOOK = Path(__file__).parents[2] / "book"
sys.path.insert(0, str(BOOK / "_ext"))

from remi_drills import KEYS, DrillDirective, FamiliesDirective, FuzzDirective  # noqa: E402
from remi_predictions import ABOVE, BELOW, NEITHER, Declared, _data  # noqa: E402
from remi_results import Claim, read_json  # noqa: E402
from remi_teaching import elsewhere  # noqa: E402


def test_a_result_file_is_optional_but_what_it_lacks_is_named(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    assert read_json(path, dict) is None
    for text, message in (("[1,\n2", r"facts.json:2: not JSON"), ("[1]", "expected a dict, found a list")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_json(path, dict)
    row = dict.fromkeys(Claim.__dataclass_fields__, 1)
    assert Claim.from_json(row, place="row 1").id == 1
    with pytest.raises(ValueError, match="row 3: missing verdict"):
        Claim.from_json({key: 1 for key in row if key != "verdict"}, place="claims.json row 3")


@pytest.mark.parametrize(
    ("directive", "file", "row"),
    [
        (DrillDirective, "drill.json", {"drills": {"run": [{"drill": "kills", "tried": 3}]}}),
        (FuzzDirective, "fuzz.json", {"targets": [{"target": "reader", "distinct": 25001}]}),
        (FamiliesDirective, "families.json", {"date": "today"}),
    ],
)
def test_no_outcome_is_said_and_one_that_lacks_a_field_is_refused(directive, file, row, tmp_path) -> None:
    shown = directive.__new__(directive)
    assert "No outcome" in shown.render(tmp_path)[0].astext()
    about = {"machine": "a machine", "made": "today", "recipe": "make drill"}
    for content, missing in (
        (about | row, "held|parsed_share|families"),
        ({}, f"{file}: missing .*(machine|date)"),
    ):
        (tmp_path / file).write_text(json.dumps(content))
        with pytest.raises(ValueError, match=missing):
            shown.render(tmp_path)


def test_a_drill_that_did_not_hold_is_listed() -> None:
    row = dict.fromkeys(KEYS, 0) | {"drill": "kills", "failures": ["of try 2"]}
    about = {"machine": "m", "made": "today", "recipe": "r", "drills": {"run": [row]}}
    shown = DrillDirective.__new__(DrillDirective).shown(about)
    assert "kills: of try 2" in "\n".join(node.astext() for node in shown)


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


def test_a_solution_asks_another_page_for_its_values() -> None:
    other = "`code` and {glue:text}`notebooks/a.ipynb::x:s`"
    moved = elsewhere("{glue:text}`bound`, {glue:text}`rate:.2f`, " + other, "b")
    here = "{glue:text}`notebooks/b.ipynb::bound:s`, {glue:text}`notebooks/b.ipynb::rate:.2f`, "
    assert moved == here + other


def test_what_the_pages_name_in_the_packages_exists() -> None:
    texts = [path.read_text(encoding="utf-8") for path in BOOK.glob("*.md")]
    named = {name for text in texts for name in re.findall(r"`(remi_(?:core|lab|book)(?:\.\w+)+)`", text)}
    assert named
    for name in named:
        pkgutil.resolve_name(name)
