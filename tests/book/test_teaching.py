"""Pages for readers and teachers: predictions, exercises by convention, minutes, lesson plans, notation."""

from __future__ import annotations

import json
import pkgutil
import re
import sys
from pathlib import Path

import pytest

BOOK = Path(__file__).parents[2] / "book"
sys.path.insert(0, str(BOOK / "_ext"))

from remi_predictions import ABOVE, BELOW, NEITHER, Declared, _data  # noqa: E402
from remi_results import Claim  # noqa: E402
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
