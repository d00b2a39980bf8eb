"""The built book as one printable page, and as a PDF where there is a Chromium to print it."""

from __future__ import annotations

import posixpath
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bs4 import BeautifulSoup, Tag

from remi_core.errors import RemiError
from remi_core.storage.store import written_whole

PDF = "remi-book.pdf"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync "
    # Mathematics is set by a script: the clock of the page may run this far ahead before it is printed.
    "--no-pdf-header-footer --virtual-time-budget=120000"
).split()
LONGEST = 600
"""Seconds after which a browser that has not printed is stopped."""

NAMING = ("id", "name", "for", "aria-labelledby", "aria-describedby")
"""Attributes whose values must not meet those of another page."""


def print_book(folder: Path) -> Path | None:
    """The PDF of the built pages in ``folder``, beside them; None where there is no Chromium.

    Raises:
        RemiError: if the browser fails or prints nothing.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return None
    page = folder / ".print.html"
    page.write_text(one_page(folder), encoding="utf-8")
    try:
        with written_whole(folder / PDF) as part:
            command = [browser, *FLAGS, f"--print-to-pdf={part}", page.as_uri()]
            done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
            if done.returncode or not part.is_file():
                lines = done.stderr.strip().splitlines() or ["no message"]
                raise RemiError(f"{browser} printed no PDF of {folder}: {lines[-1]}")
    except subprocess.TimeoutExpired:
        raise RemiError(f"{browser} printed no PDF of {folder} within {LONGEST} seconds") from None
    finally:
        page.unlink()
    return folder / PDF


def one_page(folder: Path) -> str:
    """HTML of all pages of a built book in the order of its contents, links between them kept inside."""
    front = _parsed(folder / "intro.html")
    links = front.select("nav.bd-links a.reference.internal[href]")
    listed = [str(link["href"]).partition("#")[0] for link in links]
    pages = list(dict.fromkeys(["intro.html", *(name for name in listed if (folder / name).is_file())]))
    articles = "".join(_article(_parsed(folder / name), name, pages) for name in pages)
    body = f'<main class="bd-main"><div class="bd-article">{articles}</div></main>'
    return f'<!DOCTYPE html><html lang="en" data-theme="light">{front.head}<body>{body}</body></html>'


def _parsed(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def _article(page: BeautifulSoup, name: str, pages: Sequence[str]) -> str:
    article = page.select_one("article")
    if article is None:
        raise RemiError(f"{name} has no article: it is no page of a built book")
    for tag in article.select("script, .headerlink"):
        tag.decompose()
    for tag in article.find_all(True):
        _rename(tag, name, pages)
    article["id"], article["style"] = _inside(name, ""), "break-before:page"
    return str(article)


def _rename(tag: Tag, name: str, pages: Sequence[str]) -> None:
    """Makes names the page's own, and addresses those of the whole."""
    for key in NAMING:
        if tag.has_attr(key):
            tag[key] = " ".join(_inside(name, word) for word in str(tag[key]).split())
    for key in ("href", "src"):
        address = str(tag.get(key, ""))
        if not address or ":" in address.partition("/")[0]:
            continue
        path, _, fragment = address.partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
        tag[key] = f"#{_inside(target, fragment)}" if target in pages else target


def _inside(name: str, fragment: str) -> str:
    """The name that a place of a page has in the whole."""
    return f"{name.removesuffix('.html').replace('/', '-')}--{fragment}"
