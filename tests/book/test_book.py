"""The pages written by hand, and one strict build of them with stub notebooks and a result of each kind."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from conftest import python
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell
from planting import REPORT_ROW

from remi_book.cards import data_cards
from remi_book.claims import CLAIMS
from remi_book.findings import TEXTS
from remi_book.publishing import BUILDER, CONTENT_NOTE, FOUND, assemble, write_json
from remi_book.running import plan
from remi_core.store import Store
from remi_lab.presets import PRESETS

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "book"
sys.path.insert(0, str(BOOK / "_ext"))

from remi_results import FACT_KEYS, NOT_RUN  # noqa: E402

PAGES = sorted(BOOK.glob("*.md"))
VERDICT_PAGES = {"notation", "glossary"}
"""Pages that define the verdicts, so may name them."""

TYPED_RESULT = re.compile(r"\d[.,]\d|\d ?%")
TYPED_VERDICT = re.compile(r"\b(reproduced|contradicted|inconclusive)\b")
HOSTILE = "<script>alert(1)</script> $$x$$ `code` {directive} [link](javascript:alert(1)) &lt;b&gt;"
FINDING = {"title": "What spreads", "sentence": HOSTILE, "how_sure": "Quite.", "would_change": "Much."}
FINDING |= {
    "chapters": ["02_behaviour"],
    "front": 1,
    "open": "",
    "short": HOSTILE,
    "sure": "quite",
    "evidence": ["C12"],
}
FINDING["parts"] = {name: [[FINDING[name], ""]] for name in TEXTS}
FINDING["parts"]["sure"].append(["0.5", "C12"])
FINDING["parts"]["how_sure"].append(["0.5", "C12"])
CARD = {
    "row": REPORT_ROW,
    "records": {"micro/0/x": {"sha256": None}, "stored/micro/x.json": {"sha256": "ab12"}},
}
CARD["function"] = {
    "module": "m",
    "name": "f",
    "call": "f(results)",
    "file": "m.py",
    "line": 3,
    "source": f"x = {HOSTILE!r}",
}
EXERCISE = """:::{admonition} Exercise 1: the sign
:class: exercise
:name: gradients-sign

What is it?

<details><summary>Solution</summary>

It is *below* $-p_1 p_2$.

</details>
:::"""


def prose(text: str) -> str:
    """Text of a page without code, mathematics, roles, numbers of sections and papers, sizes of machines."""
    text = re.sub(r"```(?!\{(?:margin|glossary)).*?```", " ", text, flags=re.DOTALL)
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$|\{\w+(?::\w)?\}`[^`]*`|`[^`]*`", " ", text, flags=re.DOTALL)
    text = re.sub(r"[Ss]ections? \d(\.\d)*( and \d(\.\d)*)*|\| \d(\.\d)+ \|", " ", text)
    return re.sub(r"Python 3\.11|\d+(\.\d)? GB|95 % (bootstrap )?interval|\d{4}\.\d{5}", " ", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_no_result_is_typed(page: Path) -> None:
    text = prose(page.read_text())
    assert TYPED_RESULT.findall(text) == []
    assert page.stem in VERDICT_PAGES or TYPED_VERDICT.findall(text) == []
    assert all(TYPED_RESULT.search(prose(typed)) for typed in ("careless on 5 % of answers", "it is 0.32"))


def build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    options = ["--path-output", str(target), "-W", "-n", "--keep-going"]
    return python("-c", BUILDER, "build", str(source), *options, check=False)


def add_cells(notebook: Path, *cells: NotebookNode) -> None:
    content = nbformat.read(notebook, as_version=4)
    content.cells += cells
    content.metadata["language_info"] = {"name": "python"}
    nbformat.write(content, notebook)


CONTENT = data_cards(PRESETS["smoke"], Store(Path("nothing here")))
CONTENT["groups"][0]["cards"][0] |= {"example": [HOSTILE, HOSTILE], "what": HOSTILE}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BeautifulSoup]:
    """The book of a preset of which nothing was run, with results as if something had been."""
    folder = tmp_path_factory.mktemp("full")
    source, preset, store = folder / "source", PRESETS["smoke"], Store(folder / "store")
    assemble(preset, store, plan(preset, store), source, fingerprint="f" * 64)
    absent = {"id": "C16", "value": None, "null": None, "verdict": "not testable here", "reason": "no --data"}
    status = {"notebook": REPORT_ROW["notebook"], "finished": True, "seconds": 31.4, "device": "cpu"}
    results = {
        "claims.json": [REPORT_ROW, {**REPORT_ROW, **absent}],
        "status.json": [status],
        "facts.json": {key: f"fact of {key}" for key in FACT_KEYS},
        "notice.json": {"first": ["a first word"], "missed": ["a threshold was missed"]},
        "data-cards.json": CONTENT,
        "findings.json": [FINDING, {**FINDING, "front": None, "open": "Not yet measured here: run it."}],
    }
    write_json(source, results)
    (source / "claims").mkdir()
    write_json(source / "claims", {"C12.json": CARD})
    add_cells(source / "notebooks" / "02_behaviour.ipynb", new_markdown_cell(CONTENT_NOTE))
    for name in ("02_behaviour", "03_losses"):
        add_cells(source / "notebooks" / f"{name}.ipynb", new_markdown_cell(FOUND))
    checks = [new_code_cell(f'check("gradients.{name}", 1)') for name in ("sign", "size")]
    add_cells(source / "notebooks" / "04_gradients.ipynb", new_markdown_cell(EXERCISE), *checks)
    finished = build(source, folder)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    html = folder / "_build" / "html"
    return {
        path.relative_to(html).with_suffix("").as_posix(): BeautifulSoup(path.read_text(), "html.parser")
        for path in html.rglob("*.html")
    }


@pytest.mark.slow
def test_pages_show_what_the_result_files_say_and_predictions_know_it(
    pages: dict[str, BeautifulSoup],
) -> None:
    table = pages["ledger"].select_one("table.remi-claims")
    row = table.select_one("tbody tr")
    words = row.get_text(" ", strip=True)
    shown = "C12|0.5 at layer 45|−0.25 share|−0.5 to 0.125|−0.1 to 0.1|n = 20|shuffled".split("|")
    assert [text for text in shown if text not in words] == []
    assert row.select_one(".remi-verdict-reproduced-with-a-confound").get_text() == REPORT_ROW["verdict"]
    links = ["#C12", "#C12", "notebooks/05_alignment_direction.html"]
    assert [link["href"] for link in row.select("a")] == links
    assert "no --data" in table.get_text()
    # The front page lists its findings in short, a page has all, a chapter its own, another one none.
    listed = pages["intro"].select("ul.remi-findings > li")
    box, none = (
        pages[f"notebooks/{name}"].select(".remi-findings") for name in ("02_behaviour", "03_losses")
    )
    assert len(listed) == 1 and "How sure: quite0.5." in listed[0].get_text()
    lead = pages["intro"].select_one(".remi-lead")
    assert HOSTILE in lead.get_text() and not lead.select("script")
    links = ["ledger.html#C12", "notebooks/02_behaviour.html"]
    assert [link["href"] for link in listed[0].select("a")] == links and none == []
    assert box[0].select_one("a")["href"] == "../ledger.html#C12"
    assert pages["findings"].get_text().count("It rests on C12.") == 2
    assert all(text in box[0].get_text() for text in ("Quite.", "Much.", "Not yet measured here: run it."))
    assert "a first word" in pages["intro"].select_one(".admonition.warning").get_text()
    assert "threshold" in pages["intro"].select_one(".admonition.dropdown").get_text()
    assert "fact of competence.slots" in pages["organism"].get_text()
    assert "31.4" in pages["status"].select_one("table.remi-status").get_text()
    minutes = pages["instructors"].select_one("table.remi-status").get_text(" ", strip=True)
    assert minutes.endswith("05 alignment direction 1 1 notebooks in all 1")
    assert not [name for name, page in pages.items() if page.select(".remi-launch, .remi-switch")]
    # Predictions ask for every claim, and know the outcomes.
    table = pages["predictions"].select_one("table.remi-predictions")
    asked = {one.id: one.claim for one in CLAIMS if not (one.untestable or "." in one.id)}
    assert [row["id"] for row in table.select("tbody tr")] == [f"predict-{name}" for name in asked]
    assert all(claim in table.get_text() for claim in asked.values())
    data = json.loads(pages["predictions"].select_one("#remi-predictions-data").string)
    shown = {one["id"]: one["outcome"] for one in data["claims"]}
    assert shown["C12"]["verdict"] == REPORT_ROW["verdict"] and shown["C3"] is None


@pytest.mark.slow
def test_the_card_of_a_row_shows_its_code_and_records_as_text(pages: dict[str, BeautifulSoup]) -> None:
    card = pages["ledger"].select_one("details.remi-card #C12")
    assert repr(HOSTILE) in card.select_one("pre").get_text() and not card.select("script, b")
    words = ("m.f", "m.py, line 3", "micro/0/x no longer in the store", "stored/micro/x.json ab12")
    assert [word for word in (*words, REPORT_ROW["rule"]) if word not in card.get_text()] == []
    assert "records of this training are not named in its stored study" in card.get_text()
    assert [link["href"] for link in card.select("a")] == ["stored/micro/x.json", "claims/C12.json"]
    assert pages["ledger"].select_one(".remi-tally .remi-verdict").get_text() in (
        REPORT_ROW["verdict"],
        "not testable here",
    )


@pytest.mark.slow
def test_stored_results_are_shown_with_how_they_were_had(pages: dict[str, BeautifulSoup]) -> None:
    texts = "\n".join(page.get_text(" ") for page in pages.values())
    for name, numbers in (("drill", ("tried", "held")), ("fuzz", ("distinct",))):
        about = json.loads((ROOT / "stored" / f"{name}.json").read_text())
        rows = about["targets"] if name == "fuzz" else sum(about["drills"].values(), [])
        assert about["machine"] in texts
        assert [row for row in rows if not all(f"{row[each]:,}" in texts for each in numbers)] == []
    tried = json.loads((ROOT / "stored" / "families.json").read_text())["families"]
    listed = [cell.get_text() for cell in pages["families"].select("table tbody tr > :first-child")]
    assert listed == [family for family, row in tried.items() if "measurements" in row]


@pytest.mark.slow
def test_the_answer_key_links_each_exercise_and_shows_its_solution(pages: dict[str, BeautifulSoup]) -> None:
    page = pages["answer_key"]
    counted = "2 exercises in 1 notebooks, 1 of them without a written solution"
    assert counted in pages["instructors"].get_text()
    links = [link["href"] for link in page.select("article a.reference") if link.get_text() == "the sign"]
    assert set(links) == {"notebooks/04_gradients.html#gradients-sign"}
    solution = page.select_one(".remi-solution")
    assert solution.select_one("em").get_text() == "below" and solution.select_one(".math")


@pytest.mark.slow
def test_a_text_of_a_data_set_stays_text_and_pages_with_words_say_so(pages: dict[str, BeautifulSoup]) -> None:
    assert pages["data"].get_text().count(HOSTILE) == 3
    assert not pages["data"].select(".remi-data-card :is(script, a:not(.headerlink), .math, b)")
    blocks = [block.get_text() for block in pages["citing"].select("article pre")]
    assert len(blocks) == 2 and "f" * 64 in blocks[1] and "@misc{giordani2025" in blocks[0]
    for name in ("notebooks/02_behaviour", "data"):
        assert pages[name].select_one(".remi-content-note a")["href"].endswith("content.html")


@pytest.mark.slow
def test_what_was_not_run_is_said_and_an_unknown_fact_fails_the_strict_build(tmp_path: Path) -> None:
    source = tmp_path / "source"
    directives = ("claims", "status", "predictions", "minutes", "exercises", "notice")
    shutil.copytree(BOOK / "_ext", source / "_ext")
    for name in ("_config.yml", "logo.svg", "references.bib"):
        shutil.copy(BOOK / name, source / name)
    (source / "_toc.yml").write_text("format: jb-book\nroot: intro\n")
    empty = "\n\n".join(f"```{{remi-{name}}}\n```" for name in directives)
    (source / "intro.md").write_text(
        f"# Title\n\n{{fact}}`preset` {{fact}}`organism.paramaters`\n\n{empty}\n"
    )
    finished = build(source, tmp_path)
    assert finished.returncode and re.findall("fact '(.*)' is unknown", finished.stderr) == [
        "organism.paramaters"
    ]
    text = BeautifulSoup((tmp_path / "_build" / "html" / "intro.html").read_text(), "html.parser").get_text()
    assert text.count(NOT_RUN) == 4 and "(not run)" in text and "Read this first" not in text
