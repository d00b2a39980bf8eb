"""Every link inside the built book leads to a page, and to a place on it; the whole is small enough to be published."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browsing import HTML
from bs4 import BeautifulSoup

pytestmark = pytest.mark.skipif(
    not (HTML / "intro.html").exists(), reason=f"no built book in {HTML}: run make book"
)


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
            if not target.is_file():
                yield f"{page.name}: no file {link['href']}"
            elif (
                parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in places(target)
            ):
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
