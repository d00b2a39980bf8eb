"""The pages written by hand, and a strict build of them with stub notebooks."""

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

from remi_book.claims import CLAIMS
from remi_book.publishing import stub_text, without_missing_glue

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
CLAIM = {
    "id": "C12",
    "section": "4.3",
    "claim": "a claim",
    "published": {"value": None, "text": "0.5 at layer 45", "source": "a figure"},
    "value": -0.25,
    "unit": "share",
    "ci_low": -0.5,
    "ci_high": 0.125,
    "null": {"kind": "labels shuffled", "low": -0.1, "high": 0.1},
    "n": 20,
    "seeds": [-0.25, -0.3, None],
    "rule": "a rule",
    "verdict": "reproduced with a confound",
    "reason": None,
    "notebook": "05_alignment_direction",
}


def toc_files() -> list[str]:
    """Names of all pages in the table of contents, the root first."""
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text())
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    below = [section["file"] for chapter in chapters for section in chapter.get("sections", ())]
    return [toc["root"], *(chapter["file"] for chapter in chapters), *below]


def prose(text: str) -> str:
    """Text of a page without code, mathematics, roles, numbers of sections and papers, sizes of machines."""
    text = re.sub(r"```(?!\{(?:margin|glossary)).*?```", " ", text, flags=re.DOTALL)
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$|\{\w+(?::\w)?\}`[^`]*`|`[^`]*`", " ", text, flags=re.DOTALL)
    text = re.sub(r"[Ss]ections? \d(\.\d)*( and \d(\.\d)*)*|\| \d(\.\d)+ \|", " ", text)
    return re.sub(r"Python 3\.11|\d+(\.\d)? GB|95 % (bootstrap )?interval|\d{4}\.\d{5}", " ", text)


def test_every_page_of_the_contents_exists() -> None:
    for name in toc_files():
        if name.startswith("notebooks/"):
            assert (ROOT / f"{name}.ipynb").is_file(), name
        else:
            assert (BOOK / f"{name}.md").is_file(), name
    assert {path.stem for path in PAGES} <= set(toc_files())


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_no_result_is_typed(page: Path) -> None:
    text = prose(page.read_text())
    assert TYPED_RESULT.findall(text) == []
    if page.stem not in VERDICT_PAGES:
        assert TYPED_VERDICT.findall(text) == []


def test_the_search_for_typed_results_can_fail() -> None:
    assert TYPED_RESULT.search(prose("instruct is careless on 5 % of answers, see section 4.2.1"))
    assert TYPED_RESULT.search(prose("the cosine is 0.32"))
    assert not TYPED_RESULT.search(prose("see section 4.2.1 and $x = 0.5$ of arXiv 2507.03662"))


def test_pages_name_known_facts_only() -> None:
    used = {key for page in PAGES for key in re.findall(r"\{fact\}`([^`]+)`", page.read_text())}
    assert used == set(FACT_KEYS)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_margin_notes_stand_on_pages_with_sections(page: Path) -> None:
    # Without a second heading the theme has no side bar, and its script stops with an error.
    text = page.read_text()
    assert "{margin}" not in text or re.search(r"^## ", text, flags=re.MULTILINE)


def test_every_citation_is_in_the_bibliography() -> None:
    cited = {key for page in PAGES for key in re.findall(r"\{cite:[pt]\}`([^`]+)`", page.read_text())}
    assert cited <= set(re.findall(r"@\w+\{(\w+),", (BOOK / "references.bib").read_text()))


def build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Finished process of a strict Jupyter Book build; the pages are in `target/_build/html`."""
    options = ["build", str(source), "--path-output", str(target), "-W", "-n", "--keep-going"]
    return subprocess.run(
        [sys.executable, "-c", BUILDER, *options], capture_output=True, text=True, check=False
    )


def copy_book(target: Path) -> Path:
    """Folder with the book's sources and a stub for every notebook, as for a preset of which nothing was run."""
    shutil.copytree(BOOK, target, ignore=shutil.ignore_patterns("_build", "__pycache__", "notebooks"))
    (target / "notebooks").mkdir()
    shutil.copy(ROOT / "remi_book" / "templates" / "not-run.svg", target / "notebooks")
    notebooks = [name for name in toc_files() if name.startswith("notebooks/")]
    for name in notebooks:
        (target / f"{name}.ipynb").write_text(stub_text(ROOT / f"{name}.ipynb", preset="smoke"))
    for page in target.glob("*.md"):
        page.write_text(without_missing_glue(page.read_text(), {Path(name).stem for name in notebooks}))
    for report in (ROOT / "stored").glob("*/report.json"):
        shutil.copyfile(report, target / f"stored-{report.parent.name}.json")
    return target


def write_results(folder: Path) -> None:
    """One claim, one finished notebook, all facts and a notice."""
    absent = {"id": "C16", "value": None, "null": None, "verdict": "not testable here", "reason": "no --data"}
    results = {
        "claims": [CLAIM, {**CLAIM, **absent}],
        "status": [{"notebook": CLAIM["notebook"], "finished": True, "seconds": 31.4, "device": "cpu"}],
        "facts": {key: f"fact of {key}" for key in FACT_KEYS},
        "notice": ["a threshold was missed"],
        "declarations": [asdict(one) for one in CLAIMS],
    }
    for name, content in results.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def bare_pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BeautifulSoup]:
    """Pages of a book of which nothing was run."""
    return built_pages(tmp_path_factory.mktemp("bare"), with_results=False)


@pytest.fixture(scope="module")
def full_pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BeautifulSoup]:
    """Pages of a book with one result file of each kind."""
    return built_pages(tmp_path_factory.mktemp("full"), with_results=True)


def built_pages(folder: Path, *, with_results: bool) -> dict[str, BeautifulSoup]:
    """Parsed pages of a strict build by name, such as `intro`."""
    source = copy_book(folder / "source")
    if with_results:
        write_results(source)
    finished = build(source, folder)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    html = folder / "_build" / "html"
    assert (html / "_static" / "mathjax" / "tex-chtml.js").is_file()
    styles = {path.name: path.read_text() for path in (html / "_static").rglob("*.css")}
    assert [name for name, text in styles.items() if re.search(r"url\(['\"]?(https?:)?//", text)] == []
    texts = {name: (html / f"{name}.html").read_text() for name in [*toc_files(), "search"]}
    return {name: BeautifulSoup(text, "html.parser") for name, text in texts.items()}


@pytest.mark.slow
def test_a_book_without_results_builds_and_says_so(bare_pages: dict[str, BeautifulSoup]) -> None:
    assert NOT_RUN in bare_pages["intro"].get_text()
    assert NOT_RUN in bare_pages["status"].get_text()
    assert "(not run)" in bare_pages["organism"].get_text()
    assert "Read this first" not in bare_pages["intro"].get_text()


@pytest.mark.slow
def test_the_claim_table_is_complete_and_links_verdicts(full_pages: dict[str, BeautifulSoup]) -> None:
    table = full_pages["intro"].select_one("table.remi-claims")
    row = table.select_one("tbody tr")
    words = row.get_text(" ", strip=True)
    shown = (
        "C12",
        "0.5 at layer 45",
        "−0.25 share",
        "−0.5 to 0.125",
        "−0.1 to 0.1",
        "n = 20",
        "shuffled",
    )
    assert [text for text in shown if text not in words] == []
    assert row.select_one(".remi-verdict-reproduced-with-a-confound").get_text() == CLAIM["verdict"]
    assert row.select_one("a")["href"] == "notebooks/05_alignment_direction.html"
    assert row.select_one("th")["scope"] == "row" and table.select_one("caption")
    assert "no --data" in table.get_text()


@pytest.mark.slow
def test_a_stored_report_is_a_table_and_says_how_it_was_had(bare_pages: dict[str, BeautifulSoup]) -> None:
    about = json.loads((ROOT / "stored" / "smollm2" / "report.json").read_text())
    page = bare_pages["smollm2"]
    found = [cell.get_text() for cell in page.select("table.remi-claims tbody th strong")]
    assert found == [row["id"] for row in about["rows"] if "." not in row["id"]] and "C12" in found
    assert about["machine"] in page.get_text() and about["recipe"] in page.get_text()
    assert (
        page.select_one("table.remi-claims .caption-text").get_text() == "A stored report on preset smollm2"
    )


@pytest.mark.slow
def test_notice_facts_and_status_are_shown(full_pages: dict[str, BeautifulSoup]) -> None:
    first = full_pages["intro"].select_one("article section > *:nth-child(2)")
    assert "a threshold was missed" in first.get_text()
    assert "fact of competence.slots" in full_pages["organism"].get_text()
    assert "31.4" in full_pages["status"].select_one("table.remi-status").get_text()


@pytest.mark.slow
def test_predictions_and_the_pages_for_teachers_show_what_the_build_has(
    bare_pages: dict[str, BeautifulSoup], full_pages: dict[str, BeautifulSoup]
) -> None:
    assert NOT_RUN in bare_pages["predictions"].get_text() and NOT_RUN in bare_pages["instructors"].get_text()
    table = full_pages["predictions"].select_one("table.remi-predictions")
    asked = {one.id: one.claim for one in CLAIMS if not (one.untestable or "." in one.id)}
    assert [row["id"] for row in table.select("tbody tr")] == [f"predict-{name}" for name in asked]
    assert all(claim in table.get_text() for claim in asked.values())
    data = json.loads(full_pages["predictions"].select_one("#remi-predictions-data").string)
    shown = {one["id"]: one["outcome"] for one in data["claims"]}
    assert shown["C12"]["verdict"] == CLAIM["verdict"] and shown["C3"] is None
    minutes = full_pages["instructors"].select_one("table.remi-status").get_text(" ", strip=True)
    assert minutes.endswith("05 alignment direction 1 1 notebooks in all 1")
    assert "No notebook has exercises" in full_pages["answer_key"].get_text()


@pytest.mark.slow
def test_no_page_loads_from_another_host(full_pages: dict[str, BeautifulSoup]) -> None:
    loading = "script[src], img[src], iframe[src], source[src], link[href]"
    for name, page in full_pages.items():
        loaded = [tag.get("src") or tag.get("href") for tag in page.select(loading)]
        assert [url for url in loaded if re.match(r"(https?:)?//", url)] == [], name
        assert not re.search(r"import\(?\s*['\"]https?:", str(page)), name


@pytest.mark.slow
def test_no_alternative_text_is_empty_or_a_path(full_pages: dict[str, BeautifulSoup]) -> None:
    for name, page in full_pages.items():
        texts = [image.get("alt", "") for image in page.select("img")]
        assert all(text and "_images/" not in text and "/" not in text for text in texts), name


@pytest.mark.slow
def test_an_unknown_fact_fails_the_strict_build(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(BOOK / "_ext", source / "_ext")
    for name in ("_config.yml", "logo.svg", "references.bib"):
        shutil.copy(BOOK / name, source / name)
    (source / "_toc.yml").write_text("format: jb-book\nroot: intro\n")
    (source / "intro.md").write_text("# Title\n\n{fact}`organism.paramaters`\n")
    finished = build(source, tmp_path)
    assert finished.returncode != 0
    assert "fact 'organism.paramaters' is unknown" in finished.stdout + finished.stderr
