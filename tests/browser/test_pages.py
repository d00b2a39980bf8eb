"""Every page of the built book in a browser: errors, other hosts, mathematics, figures, access, phone, search, links.

Needs Chromium at /usr/bin/chromium, playwright and a built book (`make book`); skipped with the reason without.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browsing import HTML, IDLE, IN_EVERY_LOOK, NEEDED, faults_to_see
from bs4 import BeautifulSoup

COUNT = "document.querySelectorAll('%s').length"
MATHS_READY = f"() => {COUNT % 'mjx-container'} >= {COUNT % '.math'}"
IMAGES = """() => [...document.querySelectorAll('article img')].map(image => {
    image.loading = 'eager';
    return {source: image.src, text: image.alt, loaded: image.complete && image.naturalWidth > 0};
})"""

pytestmark = NEEDED


def page_names() -> list[str]:
    skipped = {"_static", "_sources", "_images"}
    paths = [path.relative_to(HTML) for path in HTML.rglob("*.html") if path.name != "index.html"]
    # index.html only forwards to the front page.
    return sorted(path.as_posix() for path in paths if not skipped & set(path.parts))


@IN_EVERY_LOOK
@pytest.mark.parametrize("name", page_names())
def test_page_is_whole(reader, visit, name: str, look: dict) -> None:
    page = reader(name, **look)
    page.wait_for_function(MATHS_READY, timeout=20_000)
    page.wait_for_function(IDLE, timeout=60_000)
    for image in page.evaluate(IMAGES):
        assert image["loaded"] and image["text"] and "_images/" not in image["text"], image
    assert page.locator("mjx-merror").count() == 0
    assert page.evaluate("document.documentElement.dataset.theme") == look["color_scheme"]
    assert faults_to_see(page) == [] and visit.faults == []


def test_search_finds_a_word_of_the_book_and_opens_with_the_keyboard(reader, visit) -> None:
    page = reader("search.html?q=erosion")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    assert page.locator("#search-results li a[href*='notation']").count() >= 1
    page = reader("intro.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("register")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    assert visit.faults == []


@cache
def parsed(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@cache
def places(path: Path) -> frozenset[str]:
    return frozenset(str(tag.get("id") or tag.get("name")) for tag in parsed(path).select("[id], a[name]"))


def broken_links(pages: list[Path]) -> Iterator[str]:
    """What links of the pages point at and is not there."""
    for page in pages:
        for link in parsed(page).select("a[href]"):
            parts = urlsplit(str(link["href"]))
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            place = unquote(parts.fragment) if target.suffix == ".html" else ""
            if not target.is_file():
                yield f"{page.name}: no file {link['href']}"
            elif place and place not in places(target):
                yield f"{page.name}: no place {link['href']}"


def test_links_inside_the_book_hold() -> None:
    pages = [path for path in sorted(HTML.rglob("*.html")) if "_static" not in path.parts]
    assert len(pages) > 20
    assert list(broken_links(pages)) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<p id="here"></p><a href="a.html#here"></a><a href="#there"></a>')
    (tmp_path / "b.html").write_text(
        '<a href="a.html#here"></a><a href="c.html"></a><a href="https://x"></a>'
    )
    found = list(broken_links([tmp_path / "a.html", tmp_path / "b.html"]))
    assert found == ["a.html: no place #there", "b.html: no file c.html"]
