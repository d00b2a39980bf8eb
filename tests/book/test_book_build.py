"""The book's pages: executed as they ran, stubs for the others, a strict build, several presets, one page."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from warm_kernel import write_notebook

from remi_book import cli, publishing
from remi_book.cli import pdf_line
from remi_book.running import plan, run_notebook
from remi_book.site import build_site
from remi_core.errors import RemiError, UsageError
from remi_core.files import written_whole
from remi_core.store import Store
from remi_lab.presets import TRIPLET, get_preset

SMOKE = get_preset("smoke")
EXTENSION = Path(__file__).parents[2] / "book" / "_ext"
VARIANT = 'preset: str = "smoke"\nvariant: str = "instruct"\n'
FEW = replace(SMOKE, name="few", variants={name: SMOKE.variants[name] for name in TRIPLET})
ADDRESS = "https://github.com/owner/name"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project whose pages are made with the book's own extension, the first notebook once a variant."""
    for module in ("running", "publishing"):
        monkeypatch.setattr(f"remi_book.{module}.project_root", lambda: tmp_path)
    shutil.copytree(Path(__file__).with_name("small_book"), tmp_path / "book")
    shutil.copytree(EXTENSION, tmp_path / "book" / "_ext", ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "notebooks"
    write_notebook(folder / "00_each.ipynb", ["variant"], parameters=VARIANT, title="Each")
    glued = ["from myst_nb import glue", "glue('x', 0.25, display=False)"]
    write_notebook(folder / "01_one.ipynb", glued, title="One")
    two = write_notebook(folder / "02_two.ipynb", ["n"], title="Two")
    notebook = nbformat.read(two, as_version=4)
    notebook.cells[0]["source"] = "(two)=\n# Two"
    notebook.cells[2]["metadata"]["mystnb"] = {"figure": {"name": "fig-two", "caption": "A figure"}}
    nbformat.write(notebook, two)
    return tmp_path


def run_some(store: Store, names: tuple[str, ...]) -> None:
    for step in plan(SMOKE, store):
        if step.name in names:
            run_notebook(step.source, step.target, dict(step.parameters), key=step.key)


BUILDS = """
print("reading sources... [ 50%] intro")
print("\\x1b[2Kwriting output... [100%] notebooks/02_two")
print("intro.md: WARNING: wrong"); raise SystemExit(1)
"""


def test_a_build_that_takes_long_says_which_page_it_is_at_and_a_short_one_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(publishing, "BUILDER", BUILDS)
    for after, n_lines in ((publishing.SOON, 0), (0.0, 2)):
        monkeypatch.setattr(publishing, "SOON", after)
        said: list[str] = []
        with pytest.raises(RemiError, match="did not build: 1 warnings"):
            publishing._build(tmp_path, tmp_path / "build", said.append)
        told = capsys.readouterr().err.splitlines()
        assert said == ["intro.md: WARNING: wrong"] and len(told) == n_lines
    assert told[0].startswith("remi: book: reading sources: 50 of 100 % (intro); 00:0")
    assert "writing output: 100 of 100 % (notebooks/02_two)" in told[1]


def test_a_full_disk_is_one_line_and_not_one_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "print(f'page {page}: WARNING: [Errno 28] No space left on device')"
    full = f"for page in range(150): {line}\nraise SystemExit(1)"
    monkeypatch.setattr(publishing, "BUILDER", full)
    said: list[str] = []
    message = r"html cannot be written \(No space left on device: make room there; what is finished is kept\)"
    with pytest.raises(RemiError, match=message), written_whole(tmp_path / "html"):
        publishing._build(tmp_path, tmp_path / "build", said.append)
    assert said == []


def test_a_warning_fails_and_leaves_the_old_book(project: Path) -> None:
    out = project / "html"
    out.mkdir()
    (out / publishing.MARKER).write_text("{}")
    (out / "old").write_text("")
    (project / "book" / "intro.md").write_text("# Front page\n\n{ref}`nowhere`\n")
    lines: list[str] = []
    with pytest.raises(RemiError, match="did not build"):
        publishing.build_book(SMOKE, Store(project / "store"), out, say=lines.append)
    assert any("intro.md:3" in line and "nowhere" in line for line in lines)
    assert (out / "old").is_file()


def test_another_folder_is_not_overwritten(project: Path) -> None:
    (project / "html").mkdir()
    (project / "html" / "thesis.txt").write_text("mine")
    for presets, build in ((SMOKE, publishing.build_book), ((SMOKE,), build_site)):
        with pytest.raises(UsageError, match="not a book of ours"):
            build(presets, Store(project / "store"), project / "html", say=lambda line: None)
    assert (project / "html" / "thesis.txt").read_text() == "mine"


def test_a_page_in_the_contents_without_a_notebook_is_named(project: Path) -> None:
    (project / "notebooks" / "02_two.ipynb").unlink()
    with pytest.raises(RemiError, match="names notebooks/02_two"):
        publishing.build_book(SMOKE, Store(project / "store"), project / "html")


def test_a_variants_page_has_a_title_and_labels_of_its_own(project: Path) -> None:
    source = project / "notebooks" / "02_two.ipynb"
    cells = json.loads(publishing.page_text(source, source=source, variant="secure"))["cells"]
    assert "".join(cells[0]["source"]) == "(two-secure)=\n# Two: secure"
    assert cells[-1]["metadata"]["mystnb"]["figure"]["name"] == "fig-two-secure"
    assert "(two-secure)=" in publishing.stub_text(source, preset="smoke", variant="secure")


def parsed(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def switches(path: Path) -> dict[str, str]:
    return {link.get_text(): str(link["href"]) for link in parsed(path).select(".remi-switch a")}


def build_both(project: Path, repository: str = ADDRESS) -> bool:
    store = Store(project / "store")
    return build_site((SMOKE, FEW), store, project / "site", repository=repository, say=lambda line: None)


def test_books_are_built_strictly_with_stubs_and_once_and_lead_to_each_other_and_to_notebooks(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_some(Store(project / "store"), ("00_each-base", "00_each-instruct", "01_one"))
    assert build_both(project)
    out = project / "site"
    front = parsed(out / "index.html")
    assert [link["href"] for link in front.select("li a")] == ["smoke/index.html", "few/index.html"]
    assert "3 of 8 notebook pages run" in front.get_text() and "0 of 5 notebook pages run" in front.get_text()
    intro = " ".join(parsed(out / "smoke" / "intro.html").get_text().split())
    assert "One value is 0.2, another not run." in intro
    assert "was not run for the preset" in (out / "smoke" / "notebooks" / "02_two.html").read_text()
    base, instruct = (
        parsed(out / "smoke" / "notebooks" / f"00_each-{name}.html") for name in ("base", "instruct")
    )
    assert base.title.get_text().startswith("Each: base")
    # Values of a run are shown only where they are not the notebook's own.
    assert "# Parameters" in base.get_text() and "# Parameters" not in instruct.get_text()
    for name in ("smoke", "few"):
        for path in (out / name).glob("**/[0i]*.html"):
            if path.name != "index.html":
                links = switches(path)
                assert list(links) == ["All presets", "smoke", "few"], path
                assert all((path.parent / href).resolve().is_file() for href in links.values()), path
                assert parsed(path).select_one(".remi-switch [aria-current]").get_text() == name
    assert switches(out / "smoke" / "notebooks" / "01_one.html")["few"] == "../../few/notebooks/01_one.html"
    assert switches(out / "smoke" / "notebooks" / "00_each-secure.html")["few"] == "../../few/index.html"
    assert not (out / "few" / "notebooks" / "00_each-secure.html").exists()
    for name, notebook in (("01_one", "01_one"), ("00_each-base", "00_each")):
        run, source = parsed(out / "few" / "notebooks" / f"{name}.html").select(".remi-launch a")
        path = f"owner/name/HEAD?labpath=notebooks%2F{notebook}.ipynb"
        assert run["href"] == f"https://mybinder.org/v2/gh/{path}" and source["href"] == ADDRESS
    assert sorted(path.name for path in project.iterdir() if "part" in path.name) == []
    assert not build_both(project)
    built: list[str] = []
    monkeypatch.setattr(publishing, "build_book", lambda one, *rest, **more: built.append(one.name) or True)
    run_some(Store(project / "store"), ("00_each-secure",))
    assert build_both(project) and built == ["smoke"]
    assert build_both(project, repository="") and built == ["smoke", "smoke", "few"]
    (project / "book" / "intro.md").write_text("# Another front page\n")
    assert build_both(project) and built[3:] == ["smoke", "few"]


@pytest.mark.parametrize("address", ["http://github.com/a/b", "https://github.com/a", "javascript:alert(1)"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="expected https://github.com/OWNER/NAME"):
        publishing.Edition(repository=address)
    assert cli.main(["book", "--preset", "smoke", "--repository", address]) == 2


def test_one_preset_is_a_book_and_several_are_a_site(tmp_path: Path, monkeypatch, capsys) -> None:
    for name in ("build_book", "build_site"):
        monkeypatch.setattr(f"remi_book.cli.{name}", lambda *_, **__: True)
    out = ["--out", str(tmp_path / "html")]
    assert cli.main(["book", "--preset", "smoke", *out]) == 0
    assert cli.main(["book", "--preset", "micro", "--preset", "gemma-270m", *out]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"book of preset smoke built: {tmp_path / 'html' / 'index.html'}"
    assert said[1].startswith("books of presets micro, gemma-270m built: ")
    wrong = {"smoke smoke": "given twice", "": "--preset NAME is needed", "smoke smolm2": "did you mean"}
    for names, message in wrong.items():
        assert cli.main(["book", *(word for name in names.split() for word in ("--preset", name))]) == 2
        assert message in capsys.readouterr().err


PRINTED = ("intro.html", "notebooks/one.html", "two.html")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Built pages: those in the contents, and one that is not."""
    return shutil.copytree(Path(__file__).with_name("small_pages"), tmp_path / "pages")


def test_pages_stand_in_order_with_names_and_links_of_their_own(folder: Path) -> None:
    page = BeautifulSoup(publishing.one_page(folder, publishing.contents(folder)), "html.parser")
    assert [title.get_text() for title in page.select("h1")] == list(PRINTED)
    names = Counter(tag["id"] for tag in page.select("[id]"))
    assert set(names.values()) == {1} and {label["for"] for label in page.select("label")} <= set(names)
    assert len({radio["name"] for radio in page.select("input")}) == len(PRINTED)
    links = [link["href"] for link in page.select("a")]
    inner = [link[1:] for link in links if link.startswith("#")]
    assert len(inner) == 3 and set(inner) <= set(names)
    assert {"https://example.org/two.html", "data.json"} <= set(links)
    assert [image["src"][:10] for image in page.select("img")] == ["_images/x.", "data:image"]
    assert page.select("script, .headerlink, nav") == []


def test_without_a_browser_that_prints_one_line_says_so(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(publishing, "BROWSERS", ("false",))
    with pytest.raises(RemiError, match="printed no PDF"):
        publishing.print_book(folder)
    monkeypatch.setattr(publishing.shutil, "which", lambda _: None)
    assert publishing.print_book(folder) == []
    assert pdf_line(folder).startswith("no PDF: none of false") and "\n" not in pdf_line(folder)
    assert not list(folder.rglob("*.pdf")) and len(list(folder.iterdir())) == 4
