"""All pages as one: each name once, links inside kept inside, and a clear line where nothing can print it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from remi_book import publishing
from remi_book.cli import pdf_line
from remi_book.publishing import one_page, print_book
from remi_core.errors import RemiError

PAGE = """<html><head><title>T</title></head><body>
<nav class="bd-links"><a class="reference internal" href="notebooks/one.html">One</a>
<a class="reference internal" href="two.html#part">Two</a></nav>
<article class="bd-article"><h1 id="top">{title}<a class="headerlink" href="#top">#</a></h1>
<script>alert(1)</script><input type="radio" name="pick" id="a"/><label for="a">x</label>{links}
</article></body></html>"""
LINKS = {
    "intro.html": '<a href="notebooks/one.html#top">1</a><a href="https://example.org/two.html">out</a>',
    "notebooks/one.html": '<a href="../two.html">2</a><img alt="x" src="../_images/x.svg"/>'
    '<img alt="y" src="data:image/svg+xml;base64,AA=="/>',
    "two.html": '<a href="#top">up</a><a href="data.json">file</a>',
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, links in LINKS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(PAGE.format(title=name, links=links))
    (tmp_path / "elsewhere.html").write_text("not in the contents")
    return tmp_path


def test_pages_stand_in_order_with_names_and_links_of_their_own(folder: Path) -> None:
    page = BeautifulSoup(one_page(folder), "html.parser")
    assert [title.get_text() for title in page.select("h1")] == list(LINKS)
    names = Counter(tag["id"] for tag in page.select("[id]"))
    assert set(names.values()) == {1}
    assert len({radio["name"] for radio in page.select("input")}) == len(LINKS)
    assert all(label["for"] in names for label in page.select("label"))
    links = [link["href"] for link in page.select("a")]
    inner = [link[1:] for link in links if link.startswith("#")]
    assert len(inner) == 3 and set(inner) <= set(names)
    assert {"https://example.org/two.html", "data.json"} <= set(links)
    assert [image["src"][:10] for image in page.select("img")] == ["_images/x.", "data:image"]
    assert page.select("script, .headerlink, nav") == []


def test_without_a_browser_one_line_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing.shutil, "which", lambda _: None)
    assert print_book(folder) is None
    assert pdf_line(folder).startswith("no PDF: none of chromium,") and "\n" not in pdf_line(folder)


def test_a_browser_that_prints_nothing_is_an_error_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "BROWSERS", ("false",))
    with pytest.raises(RemiError, match="printed no PDF"):
        print_book(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "elsewhere.html",
        "intro.html",
        "notebooks",
        "two.html",
    ]
