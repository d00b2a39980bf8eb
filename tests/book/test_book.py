"""The pages written by hand, and one strict build of them with stub notebooks and a result of each kind."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup
from conftest import python
from planting import REPORT_ROW

from remi_book.cards import data_cards
from remi_book.claims import CLAIMS
from remi_book.publishing import (
    CONTENT_NOTE,
    citation,
    stub_text,
    without_missing_glue,
    write_json,
)
from remi_book.words import SWITCH
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
BUILDER = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"
HOSTILE = "<script>alert(1)</script> $$x$$ `code` {directive} [link](javascript:alert(1)) &lt;b&gt;"
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


def page_names() -> list[str]:
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text())
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    below = [section["file"] for chapter in chapters for section in chapter.get("sections", ())]
    return [toc["root"], *(chapter["file"] for chapter in chapters), *below]


def copy_book(target: Path) -> None:
    """Copy the book's sources, with a stub for every notebook, as for a preset of which nothing was run."""
    shutil.copytree(BOOK, target, ignore=shutil.ignore_patterns("_build", "__pycache__", "notebooks"))
    (target / "notebooks").mkdir()
    shutil.copy(ROOT / "remi_book" / "templates" / "not-run.svg", target / "notebooks")
    notebooks = [name for name in page_names() if name.startswith("notebooks/")]
    for name in notebooks:
        (target / f"{name}.ipynb").write_text(stub_text(ROOT / f"{name}.ipynb", preset="smoke"))
    for page in target.glob("*.md"):
        page.write_text(without_missing_glue(page.read_text(), {Path(name).stem for name in notebooks}))
    for report in (ROOT / "stored").glob("*/report.json"):
        shutil.copyfile(report, target / f"stored-{report.parent.name}.json")


def add_cells(notebook: Path, *cells: tuple[str, str]) -> None:
    content = json.loads(notebook.read_text())
    for place, (kind, source) in enumerate(cells):
        code = {"outputs": [], "execution_count": None} if kind == "code" else {}
        cell = {"cell_type": kind, "id": f"added-{place}", "metadata": {}, "source": source}
        content["cells"].append(cell | code)
    content["metadata"]["language_info"] = {"name": "python"}
    notebook.write_text(json.dumps(content))


CONTENT = data_cards(PRESETS["smoke"], Store(Path("nothing here")))
CONTENT["groups"][0]["cards"][0] |= {"example": [HOSTILE, HOSTILE], "what": HOSTILE}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BeautifulSoup]:
    folder = tmp_path_factory.mktemp("full")
    source = folder / "source"
    copy_book(source)
    absent = {"id": "C16", "value": None, "null": None, "verdict": "not testable here", "reason": "no --data"}
    status = {"notebook": REPORT_ROW["notebook"], "finished": True, "seconds": 31.4, "device": "cpu"}
    results = {
        "claims.json": [REPORT_ROW, {**REPORT_ROW, **absent}],
        "status.json": [status],
        "facts.json": {key: f"fact of {key}" for key in FACT_KEYS},
        "notice.json": ["a threshold was missed"],
        "declarations.json": [asdict(one) for one in CLAIMS],
        "data-cards.json": CONTENT,
        "citation.json": citation(ROOT / "CITATION.cff", preset="smoke", fingerprint="f" * 64),
    }
    write_json(source, results)
    add_cells(source / "notebooks" / "02_behaviour.ipynb", ("markdown", CONTENT_NOTE))
    checks = [("code", f'check("gradients.{name}", 1)') for name in ("sign", "size")]
    add_cells(source / "notebooks" / "04_gradients.ipynb", ("markdown", EXERCISE), *checks)
    finished = build(source, folder)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    html = folder / "_build" / "html"
    assert (html / "_static" / "mathjax" / "tex-chtml.js").is_file()
    styles = {path.name: path.read_text() for path in (html / "_static").rglob("*.css")}
    assert [name for name, text in styles.items() if re.search(r"url\(['\"]?(https?:)?//", text)] == []
    texts = {name: (html / f"{name}.html").read_text() for name in [*page_names(), "search"]}
    return {name: BeautifulSoup(text, "html.parser") for name, text in texts.items()}


@pytest.mark.slow
def test_the_claim_table_is_complete_and_links_verdicts(pages: dict[str, BeautifulSoup]) -> None:
    table = pages["intro"].select_one("table.remi-claims")
    row = table.select_one("tbody tr")
    words = row.get_text(" ", strip=True)
    shown = "C12|0.5 at layer 45|−0.25 share|−0.5 to 0.125|−0.1 to 0.1|n = 20|shuffled".split("|")
    assert [text for text in shown if text not in words] == []
    assert row.select_one(".remi-verdict-reproduced-with-a-confound").get_text() == REPORT_ROW["verdict"]
    assert row.select_one("a")["href"] == "notebooks/05_alignment_direction.html"
    assert row.select_one("th")["scope"] == "row" and table.select_one("caption")
    assert "no --data" in table.get_text()


@pytest.mark.slow
def test_a_stored_report_is_a_table_and_says_how_it_was_had(pages: dict[str, BeautifulSoup]) -> None:
    about = json.loads((ROOT / "stored" / "smollm2" / "report.json").read_text())
    page = pages["smollm2"]
    found = [cell.get_text() for cell in page.select("table.remi-claims tbody th strong")]
    assert found == [row["id"] for row in about["rows"] if "." not in row["id"]] and "C12" in found
    assert about["machine"] in page.get_text() and about["recipe"] in page.get_text()


@pytest.mark.slow
def test_notice_facts_status_and_minutes_are_shown(pages: dict[str, BeautifulSoup]) -> None:
    first = pages["intro"].select_one("article section > *:nth-child(2)")
    assert "a threshold was missed" in first.get_text()
    assert "fact of competence.slots" in pages["organism"].get_text()
    assert "31.4" in pages["status"].select_one("table.remi-status").get_text()
    minutes = pages["instructors"].select_one("table.remi-status").get_text(" ", strip=True)
    assert minutes.endswith("05 alignment direction 1 1 notebooks in all 1")


@pytest.mark.slow
def test_predictions_ask_for_every_claim_and_know_the_outcomes(pages: dict[str, BeautifulSoup]) -> None:
    table = pages["predictions"].select_one("table.remi-predictions")
    asked = {one.id: one.claim for one in CLAIMS if not (one.untestable or "." in one.id)}
    assert [row["id"] for row in table.select("tbody tr")] == [f"predict-{name}" for name in asked]
    assert all(claim in table.get_text() for claim in asked.values())
    data = json.loads(pages["predictions"].select_one("#remi-predictions-data").string)
    shown = {one["id"]: one["outcome"] for one in data["claims"]}
    assert shown["C12"]["verdict"] == REPORT_ROW["verdict"] and shown["C3"] is None


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
def test_cards_citations_and_notes_are_built_and_a_text_stays_text(pages: dict[str, BeautifulSoup]) -> None:
    cards = pages["data"].select("table.remi-card")
    assert len(cards) == sum(len(group["cards"]) for group in CONTENT["groups"])
    assert pages["data"].get_text().count(HOSTILE) == 3
    assert not pages["data"].select(".remi-data-card :is(script, a:not(.headerlink), .math, b)")
    blocks = [block.get_text() for block in pages["citing"].select("article pre")]
    assert len(blocks) == 2 and "f" * 64 in blocks[1] and "@misc{giordani2025" in blocks[0]
    assert SWITCH in pages["content"].get_text()
    for name in ("notebooks/02_behaviour", "data"):
        note = pages[name].select_one(".remi-content-note")
        assert note.select_one("a")["href"].endswith("content.html")


@pytest.mark.slow
def test_no_page_loads_from_another_host_and_every_picture_is_described(
    pages: dict[str, BeautifulSoup],
) -> None:
    loading = "script[src], img[src], iframe[src], source[src], link[href]"
    for name, page in pages.items():
        loaded = [tag.get("src") or tag.get("href") for tag in page.select(loading)]
        assert [url for url in loaded if re.match(r"(https?:)?//", url)] == [], name
        assert not re.search(r"import\(?\s*['\"]https?:", str(page)), name
        texts = [image.get("alt", "") for image in page.select("img")]
        assert all(text and "/" not in text for text in texts), name


@pytest.mark.slow
@pytest.mark.parametrize("fact", ["preset", "organism.paramaters"])
def test_what_was_not_run_is_said_and_an_unknown_fact_fails_the_strict_build(
    fact: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    directives = ("claims", "status", "predictions", "minutes", "exercises", "notice")
    shutil.copytree(BOOK / "_ext", source / "_ext")
    for name in ("_config.yml", "logo.svg", "references.bib"):
        shutil.copy(BOOK / name, source / name)
    (source / "_toc.yml").write_text("format: jb-book\nroot: intro\n")
    empty = "\n\n".join(f"```{{remi-{name}}}\n```" for name in directives)
    (source / "intro.md").write_text(f"# Title\n\n{{fact}}`{fact}`\n\n{empty}\n")
    finished = build(source, tmp_path)
    if fact not in FACT_KEYS:
        assert finished.returncode and f"fact '{fact}' is unknown" in finished.stdout + finished.stderr
        return
    text = BeautifulSoup((tmp_path / "_build" / "html" / "intro.html").read_text(), "html.parser").get_text()
    assert text.count(NOT_RUN) == 4 and "(not run)" in text and "Read this first" not in text, finished.stdout
