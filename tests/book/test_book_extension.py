"""The parts of the book's Sphinx extension, one by one, without a build."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from sphinx.ext.napoleon import Config as NapoleonConfig
from sphinx.ext.napoleon.docstring import GoogleDocstring

from remi_book.figures import output

sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_ext"))

from remi_accessibility import ATTRIBUTES, MENDS  # noqa: E402
from remi_api import with_its_beginning  # noqa: E402
from remi_claims import _null_cell, _value_cell  # noqa: E402
from remi_drills import DrillDirective, FuzzDirective  # noqa: E402
from remi_offline import mathjax_files, mathjax_source, unique_scripts  # noqa: E402
from remi_results import Claim, read_json  # noqa: E402
from remi_tables import make_table, paragraph  # noqa: E402


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


class Script:
    """Stands for a script of Sphinx: a file, or a body of its own."""

    def __init__(self, filename: str | None = None, body: str | None = None) -> None:
        self.filename = filename
        self.attributes = {"body": body} if body else {}


def test_scripts_appear_once_in_order_and_without_live_code() -> None:
    first, second, body = Script("a.js"), Script("b.js"), Script(body="let x")
    live = [Script(body="const THEBE_JS_URL = 1"), Script("_static/sphinx-thebe.js")]
    doubled = [first, body, live[0], Script("a.js"), Script("", body="let x"), second, live[1]]
    assert unique_scripts(doubled) == [first, body, second]
    assert unique_scripts([first, second]) == [first, second]


def test_scripts_of_the_laboratory_stay_off_the_other_pages() -> None:
    other = Script("_static/laboratory.js")
    kept = unique_scripts([Script("laboratory/model.js"), other, Script("_static/laboratory/worker.js")])
    assert kept == [other]


def test_mathjax_is_copied_small() -> None:
    source = mathjax_source()
    sizes = {path.name: (source / path).stat().st_size for path in mathjax_files(source)}
    assert "tex-chtml.js" in sizes and any(name.endswith(".woff") for name in sizes)
    assert sum(sizes.values()) < 4e6


FAULTS = """<button class="search-button-field" aria-label="Search"></button>
<button class="theme-switch-button"><i title="Auto"></i></button>
<details><summary aria-label="Toggle">More</summary></details>
<nav><li><a>Above</a><details><summary><i></i></summary></details></li></nav>
<div id="pst-primary-sidebar"></div><div class="citation-list" role="list"></div>
<table><thead><tr><th></th><th>mean</th></tr></thead><tbody><tr><th>base</th></tr></tbody></table>
<img alt="../_images/ab12.png" src="x.png"/>"""


def test_every_mend_finds_its_fault_and_nothing_the_second_time() -> None:
    page = BeautifulSoup(FAULTS, "html.parser")
    assert all(page.select(selector) for selector in ATTRIBUTES) and all(mend(page) for mend in MENDS)
    once = str(page)
    for mend in MENDS:
        mend(page)
    assert str(page) == once
    assert page.select_one("nav summary")["aria-label"] == "Pages below Above"
    cells = [(cell.name, cell.get("scope")) for cell in page.select("tr > *")]
    assert cells == [("td", None), ("th", "col"), ("th", "row")]


def test_a_page_without_faults_is_left_alone() -> None:
    page = BeautifulSoup('<p>Text</p><img alt="a curve" src="x.png"/><th scope="col">x</th>', "html.parser")
    assert not any(mend(page) for mend in MENDS)


def test_a_row_of_another_length_is_refused() -> None:
    cell = [paragraph("x")]
    assert "caption" in make_table("caption", ("a", "b"), [[cell, cell]], style="s").astext()
    with pytest.raises(ValueError, match="1 cells; the table has 2 columns"):
        make_table("caption", ("a", "b"), [[cell]], style="s")


def test_drills_are_shown_with_what_did_not_hold(tmp_path: Path) -> None:
    directive = DrillDirective.__new__(DrillDirective)
    assert "No outcome" in directive.render(tmp_path)[0].astext()
    row = {"drill": "kills", "tried": 3, "held": 2, "harmless": 0, "seconds": 90.0, "note": "n"}
    about = {"machine": "a machine", "made": "today", "recipe": "make drill"}
    path = tmp_path / "drill.json"
    path.write_text(json.dumps(about | {"drills": {"run": [row | {"failures": ["of try two"]}]}}))
    shown = [node.astext() for node in directive.render(tmp_path)]
    assert (
        "make drill on today; a machine" in shown[0] and "1.5" in shown[1] and "kills: of try two" in shown[3]
    )
    path.write_text(json.dumps(about | {"drills": {"run": [row]}}))
    with pytest.raises((ValueError, KeyError), match="failures"):
        directive.render(tmp_path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="drill.json: missing drills, machine"):
        directive.render(tmp_path)


def test_generated_inputs_are_shown_with_what_was_refused(tmp_path: Path) -> None:
    directive = FuzzDirective.__new__(FuzzDirective)
    assert "No outcome" in directive.render(tmp_path)[0].astext()
    row = {"target": "reader", "distinct": 25001, "parsed_share": 0.4739, "reasons": 7}
    path, about = tmp_path / "fuzz.json", {"machine": "a machine", "recipe": "make drill"}
    path.write_text(json.dumps(about | {"targets": [row | {"refused_share": 0.5261}]}))
    shown = [node.astext() for node in directive.render(tmp_path)]
    assert "make drill; a machine" in shown[0]
    assert all(text in shown[1] for text in ("reader", "25,001", "47%", "53%", "7"))
    path.write_text(json.dumps(about | {"targets": [row]}))
    with pytest.raises(ValueError, match="fuzz.json, reader: missing refused_share"):
        directive.render(tmp_path)
    path.write_text(json.dumps({"targets": []}))
    with pytest.raises(ValueError, match="fuzz.json: missing machine, recipe"):
        directive.render(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "Within a block: the map.",
        "``t``: the\njackknife: of all.",
        "No colon.",
        "What comes: of it.\n\nMore: words.",
    ],
)
def test_an_attribute_keeps_what_its_docstring_says_before_a_colon(text: str) -> None:
    made = GoogleDocstring(text.splitlines(), NapoleonConfig(), what="attribute", name="a.b").lines()
    assert (made != text.splitlines()) == (": " in text.partition("\n")[0])
    assert "\n".join(with_its_beginning(made)).strip() == text
