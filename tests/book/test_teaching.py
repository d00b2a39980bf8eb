"""Pages for readers and teachers: predictions, exercises by convention, minutes, lesson plans, notation."""

from __future__ import annotations

import json
import pkgutil
import re
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from test_book import build

from remi_book.claims import CLAIMS

BOOK = Path(__file__).parents[2] / "book"
sys.path.insert(0, str(BOOK / "_ext"))

from remi_predictions import ABOVE, BELOW, NEITHER, Declared, _data, _left_out, _table  # noqa: E402
from remi_results import Claim  # noqa: E402
from remi_teaching import elsewhere, exercises_of, in_minutes  # noqa: E402

PRIMERS = ("linear_representations", "gradient_geometry", "instruction_tuning")
EVERY = [Declared.from_json(asdict(claim), place="CLAIMS") for claim in CLAIMS]
DECLARED = [one for one in EVERY if "." not in one.id]


def text_of(page: str) -> str:
    return (BOOK / f"{page}.md").read_text(encoding="utf-8")


def declared(**changes: object) -> Declared:
    return Declared(
        **{
            **{"id": "C1", "claim": "x", "estimand": "y", "unit": "nats", "boundary": 0.5},
            **{"smallest_effect": 0.1, "by_outcome": False, "untestable": ""},
            **changes,
        }
    )


def found(low: float | None, high: float | None, verdict: str = "reproduced") -> Claim:
    row = dict.fromkeys(Claim.__dataclass_fields__)
    return Claim(
        **row | {"id": "C1", "ci_low": low, "ci_high": high, "verdict": verdict, "notebook": "02_behaviour"}
    )


@pytest.mark.parametrize(
    ("low", "high", "direction"),
    [(0.7, 0.9, ABOVE), (0.1, 0.3, BELOW), (0.3, 0.9, NEITHER), (0.51, 0.58, NEITHER), (None, None, None)],
)
def test_the_interval_decides_which_direction_came_out(low: float, high: float, direction: str) -> None:
    assert declared().direction(found(low, high)) == direction
    assert declared().direction(None) is None


@pytest.mark.parametrize(
    ("verdict", "direction"),
    [
        ("reproduced", ABOVE),
        ("supported with a confound", ABOVE),
        ("contradicted", BELOW),
        ("inconclusive", NEITHER),
    ],
)
def test_a_whole_rule_is_predicted_by_its_verdict(verdict: str, direction: str) -> None:
    assert declared(by_outcome=True).direction(found(0.9, 1.0, verdict)) == direction


def test_every_declared_claim_has_a_row_or_is_named_as_left_out() -> None:
    asked = [one for one in DECLARED if not one.untestable]
    left = [one for one in DECLARED if one.untestable]
    shown = _table(asked).astext()
    assert left and all(one.claim in shown for one in asked) and "☐" in shown
    assert all(one.id in _left_out(left).astext() for one in left)
    assert not any(one.claim in shown for one in left)
    assert {len(set(one.options().values())) for one in asked} == {3}


def test_data_of_the_script_cannot_end_its_element() -> None:
    text = _data([declared(unit="</script><b>")], {"C1": found(0.7, 0.9)}, "smoke")
    assert text.count("</script>") == 1 and text.endswith("</script>")
    content = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert (
        content["claims"][0]["unit"] == "</script><b>"
        and content["claims"][0]["outcome"]["direction"] == ABOVE
    )


def test_the_script_of_the_page_asks_nobody_and_stores_in_one_place() -> None:
    script = (BOOK / "_static" / "predictions.js").read_text(encoding="utf-8")
    assert not re.search(r"https?:|fetch\(|XMLHttpRequest|sendBeacon|innerHTML|cookie|import\(", script)
    assert set(re.findall(r"localStorage\.\w+\((\w+)", script)) == {"KEY"}


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


@pytest.mark.slow
def test_the_answer_key_links_each_exercise_and_shows_its_solution(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(BOOK / "_ext", source / "_ext")
    for name in ("_config.yml", "logo.svg", "references.bib"):
        shutil.copy(BOOK / name, source / name)
    (source / "_toc.yml").write_text(
        "format: jb-book\nroot: key\nchapters:\n  - file: notebooks/04_gradients\n"
    )
    directives = "```{remi-exercises}\n```\n\n```{remi-exercises}\n:solutions:\n```\n"
    (source / "key.md").write_text(f"# Key\n\n{directives}", encoding="utf-8")
    box = EXERCISE.replace("Below {glue:text}`bound` and {glue:text}`rate:.2f`", "It is *below* $-p_1 p_2$")
    written = [("markdown", "# Gradients"), ("markdown", box), ("code", 'check("gradients.sign", 1)')]
    written.append(("code", 'check("gradients.size", 1)'))
    write_notebook(source / "notebooks" / "04_gradients.ipynb", written)
    finished = build(source, tmp_path)
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-2000:]
    page = BeautifulSoup(
        (tmp_path / "_build" / "html" / "key.html").read_text(encoding="utf-8"), "html.parser"
    )
    assert "2 exercises in 1 notebooks, 1 of them without a written solution" in page.get_text()
    links = [link["href"] for link in page.select("article a.reference") if link.get_text() == "the sign"]
    assert links == ["notebooks/04_gradients.html#gradients-sign"] * 2
    solution = page.select_one(".remi-solution")
    assert solution.select_one("em").get_text() == "below" and solution.select_one(".math")


def write_notebook(path: Path, written: list[tuple[str, str]]) -> None:
    made = [
        cell
        | {"id": f"cell-{place}", "metadata": {}}
        | ({"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {})
        for place, cell in enumerate(cells(*written))
    ]
    about = {"language_info": {"name": "python"}}
    path.parent.mkdir()
    path.write_text(
        json.dumps({"cells": made, "metadata": about, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8"
    )


def test_a_solution_asks_another_page_for_its_values() -> None:
    moved = elsewhere(
        "{glue:text}`bound`, {glue:text}`rate:.2f`, `code` and {glue:text}`notebooks/a.ipynb::x:s`", "b"
    )
    assert moved == (
        "{glue:text}`notebooks/b.ipynb::bound:s`, {glue:text}`notebooks/b.ipynb::rate:.2f`, "
        "`code` and {glue:text}`notebooks/a.ipynb::x:s`"
    )


@pytest.mark.parametrize(("seconds", "text"), [(1, "0.5"), (30, "0.5"), (31, "1"), (91.36, "2"), (600, "10")])
def test_minutes_are_rounded_up_to_a_half(seconds: float, text: str) -> None:
    assert in_minutes(seconds) == text


FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<!\$)\$([^$]+)\$(?!\$)", re.DOTALL)
GREEK = "alpha|beta|delta|eta|theta|kappa|mu|nu|rho|sigma|tau|varphi|phi|ell|lambda|epsilon"
LOCAL = {"i", "j", "m", "R", r"\sigma", "y", "f", "D"}
"""Indices, sizes of a matrix, the real numbers, and what a page defines in the sentence where it stands."""


def symbols(text: str) -> set[str]:
    """Letters of the formulas of a text, Greek ones by their command."""
    found = set()
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for formula in FORMULA.finditer(text):
        body = re.sub(r"\\text(?:tt)?\{[^}]*\}", "", formula[1] or formula[2])
        found |= set(re.findall(rf"\\(?:{GREEK})(?![a-z])", body))
        body = re.sub(r"\\[A-Za-z]+", " ", body)
        found |= set(re.findall(r"[A-Za-z]", body))
    return found


def test_the_notation_page_has_every_symbol_of_primers_and_notebooks() -> None:
    known = symbols(text_of("notation").partition("(symbols)=")[2].partition("(verdicts)=")[0])
    pages = {page: text_of(page) for page in PRIMERS}
    for path in sorted((BOOK.parent / "notebooks").glob("[0-9]*.ipynb")):
        source = json.loads(path.read_text(encoding="utf-8"))["cells"]
        pages[path.stem] = "\n\n".join("".join(c["source"]) for c in source if c["cell_type"] == "markdown")
    missing = {page: sorted(symbols(text) - known - LOCAL) for page, text in pages.items()}
    assert {page: names for page, names in missing.items() if names} == {}


def test_a_symbol_that_is_nowhere_defined_is_seen() -> None:
    assert symbols(r"with $\tau_{q}$ and $$ \langle Z, x \rangle $$ and `$c`") == {r"\tau", "q", "Z", "x"}


def test_what_the_pages_name_in_the_packages_exists() -> None:
    texts = [path.read_text(encoding="utf-8") for path in BOOK.glob("*.md")]
    named = {name for text in texts for name in re.findall(r"`(remi_(?:core|lab|book)(?:\.\w+)+)`", text)}
    assert named
    for name in named:
        pkgutil.resolve_name(name)
