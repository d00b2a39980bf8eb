"""The book's pages: executed ones as they ran, stubs for the others, a strict build, nothing built twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from notebook_files import write_notebook

from remi_book import publishing
from remi_book.publishing import (
    NOT_RUN,
    build_book,
    contents_of,
    page_text,
    pages_listed,
    stub_text,
    without_missing_glue,
)
from remi_book.running import plan, run_notebook
from remi_book.site import build_site
from remi_core.errors import RemiError, UsageError
from remi_core.files import write_sealed
from remi_core.store import Store
from remi_lab.presets import ORGANISM_VARIANTS, TRIPLET, get_preset

SMOKE = get_preset("smoke")
INTRO = """# Front page

One value is {glue:text}`notebooks/01_one.ipynb::x:.1f`, another {glue:text}`notebooks/02_two.ipynb::y:.2f`.
See {ref}`two`, {numref}`fig-two` and {doc}`notebooks/00_each-base`.

```{glue:figure} z
:doc: notebooks/02_two.ipynb
```
"""
TOC = {
    "format": "jb-book",
    "root": "intro",
    "chapters": [{"file": f"notebooks/{name}"} for name in ("00_each-base", "01_one", "02_two")],
}
CONFIG = {
    "title": "Test",
    "only_build_toc_files": True,
    "execute": {"execute_notebooks": "off"},
    "sphinx": {"config": {"numfig": True}},
}
VARIANT = 'preset: str = "smoke"\nvariant: str = "instruct"\n'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A book of one page and three notebooks, of which 01 and 00 for base were run."""
    for module in ("running", "publishing"):
        monkeypatch.setattr(f"remi_book.{module}.project_root", lambda: tmp_path)
    pages = tmp_path / "book"
    pages.mkdir()
    (pages / "intro.md").write_text(INTRO)
    (pages / "_toc.yml").write_text(json.dumps(TOC))
    (pages / "_config.yml").write_text(json.dumps(CONFIG))
    folder = tmp_path / "notebooks"
    write_notebook(folder / "00_each.ipynb", ["variant"], parameters=VARIANT, title="Each")
    write_notebook(
        folder / "01_one.ipynb", ["from myst_nb import glue", "glue('x', 0.25, display=False)"], title="One"
    )
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


def test_a_book_is_built_strictly_with_stubs_and_only_once(project: Path) -> None:
    store, out = Store(project / "store"), project / "book" / "_build" / "html"
    run_some(store, ("00_each-base", "01_one"))
    lines: list[str] = []
    assert build_book(SMOKE, store, out, say=lines.append), lines
    front = " ".join(BeautifulSoup((out / "intro.html").read_text(), "html.parser").get_text().split())
    assert "One value is 0.2, another not run." in front
    assert "was not run for the preset" in (out / "notebooks" / "02_two.html").read_text()
    assert "<title>Each: base" in (out / "notebooks" / "00_each-base.html").read_text()
    assert not build_book(SMOKE, store, out)
    (project / "book" / "intro.md").write_text(INTRO + "\nMore.\n")
    assert build_book(SMOKE, store, out)
    assert sorted(path.name for path in out.parent.iterdir()) == ["html"]


def test_a_warning_fails_and_leaves_the_old_book(project: Path) -> None:
    out = project / "html"
    out.mkdir()
    (out / publishing.MARKER).write_text("{}")
    (out / "old").write_text("")
    (project / "book" / "intro.md").write_text("# Front page\n\n{ref}`nowhere`\n")
    lines: list[str] = []
    with pytest.raises(RemiError, match="did not build"):
        build_book(SMOKE, Store(project / "store"), out, say=lines.append)
    assert any("intro.md:3" in line and "nowhere" in line for line in lines)
    assert (out / "old").is_file()


def test_another_folder_is_not_overwritten(project: Path) -> None:
    (project / "html").mkdir()
    (project / "html" / "thesis.txt").write_text("mine")
    for presets, build in ((SMOKE, build_book), ((SMOKE,), build_site)):
        with pytest.raises(UsageError, match="not a book of ours"):
            build(presets, Store(project / "store"), project / "html", say=lambda line: None)
    assert (project / "html" / "thesis.txt").read_text() == "mine"


def test_a_page_in_the_contents_without_a_notebook_is_named(project: Path) -> None:
    (project / "notebooks" / "02_two.ipynb").unlink()
    with pytest.raises(RemiError, match="names notebooks/02_two"):
        build_book(SMOKE, Store(project / "store"), project / "html")


def test_contents_with_parts_list_the_same_pages(project: Path) -> None:
    flat, chapters = pages_listed(contents_of([])), TOC["chapters"]
    parts = {"root": "intro", "parts": [{"chapters": chapters[:2]}, {"chapters": chapters[2:]}]}
    (project / "book" / "_toc.yml").write_text(json.dumps(parts))
    assert pages_listed(contents_of([])) == flat == ["00_each-base", "01_one", "02_two"]


def test_a_notebook_that_runs_once_a_variant_gives_a_page_for_each_of_the_preset(project: Path) -> None:
    chapters = [{"file": "notebooks/00_each"}, {"file": "notebooks/01_one"}]
    (project / "book" / "_toc.yml").write_text(json.dumps(TOC | {"chapters": chapters}))
    few = replace(SMOKE, variants={name: SMOKE.variants[name] for name in TRIPLET})
    for preset, names in ((SMOKE, ORGANISM_VARIANTS), (few, TRIPLET)):
        store, folder = Store(project / "store"), project / f"source-{len(names)}"
        publishing.assemble(preset, store, plan(preset, store), folder)
        pages = [f"00_each-{name}" for name in names]
        assert pages_listed(yaml.safe_load((folder / "_toc.yml").read_text())) == [*pages, "01_one"]
        assert sorted(path.stem for path in (folder / "notebooks").glob("00_*")) == sorted(pages)


def executed(source: Path, target: Path, given: dict[str, object]) -> Path:
    """A copy of a notebook as papermill leaves it: with an injected cell and its record beside."""
    notebook = nbformat.read(source, as_version=4)
    injected = nbformat.v4.new_code_cell("injected", metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(2, injected)
    nbformat.write(notebook, target)
    write_sealed(target.with_suffix(".json"), {"parameters": given})
    return target


@pytest.mark.parametrize(("variant", "shown"), [("instruct", 0), ("base", 1)])
def test_injected_values_show_only_where_they_differ_from_the_defaults(
    project: Path, variant: str, shown: int
) -> None:
    source = project / "notebooks" / "00_each.ipynb"
    target = executed(source, project / "out.ipynb", {"preset": "smoke", "variant": variant})
    cells = json.loads(page_text(target, source=source, variant=variant))["cells"]
    assert sum("injected" in "".join(cell["source"]) for cell in cells) == shown


def test_pages_of_one_notebook_have_titles_and_labels_of_their_own(project: Path) -> None:
    source = project / "notebooks" / "02_two.ipynb"
    target = executed(source, project / "out.ipynb", {})
    notebook = json.loads(page_text(target, source=source, variant="secure"))
    assert "".join(notebook["cells"][0]["source"]) == "(two-secure)=\n# Two: secure"
    assert notebook["cells"][-1]["metadata"]["mystnb"]["figure"]["name"] == "fig-two-secure"
    assert "(two-secure)=" in stub_text(source, preset="smoke", variant="secure")


def test_only_missing_values_are_replaced() -> None:
    text = "{glue:text}`notebooks/01_a.ipynb::x:.2f` {glue:text}`../notebooks/02_b.ipynb::y` {glue}`z`"
    assert (
        without_missing_glue(text, {"02_b"})
        == f"{{glue:text}}`notebooks/01_a.ipynb::x:.2f` {NOT_RUN} {{glue}}`z`"
    )
    assert without_missing_glue(text, set()) == text
