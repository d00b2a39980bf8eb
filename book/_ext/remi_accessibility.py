"""Mends the accessibility faults that theme and libraries leave in finished HTML.

Each mend is one small function on a parsed page; it returns how much it changed. The rules meant are
WCAG 2.2 and the best practices of axe-core.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from sphinx.application import Sphinx

SKIPPED_FOLDERS = {"_static", "_sources"}


def mend_search_label(page: BeautifulSoup) -> int:
    """The accessible name of the search button contains its visible words (WCAG 2.5.3)."""
    buttons = page.select("button.search-button-field[aria-label]")
    for button in buttons:
        button["aria-label"] = "Search Ctrl + K"
    return len(buttons)


def mend_hidden_titles(page: BeautifulSoup) -> int:
    """Icons do not repeat the name of their button; a summary is named by its own text where it has any."""
    icons = page.select("button.theme-switch-button [title]")
    summaries = [one for one in page.select("details > summary[aria-label]") if one.get_text(strip=True)]
    for icon in icons:
        del icon["title"]
    for summary in summaries:
        del summary["aria-label"]
    return len(icons) + len(summaries)


def mend_contents_toggles(page: BeautifulSoup) -> int:
    """A sign that unfolds the pages below another one in the contents is named by that page."""
    signs = [one for one in page.select("nav li > details > summary") if not one.get_text(strip=True)]
    for sign in signs:
        above = sign.find_parent("li").find("a")
        sign["aria-label"] = f"Pages below {above.get_text(strip=True) if above else 'this one'}"
    return len(signs)


def mend_landmarks(page: BeautifulSoup) -> int:
    """The book's sidebar is a named landmark, so all content lies in some landmark."""
    sidebars = page.select("#pst-primary-sidebar, .bd-sidebar-primary")
    for sidebar in sidebars:
        sidebar["role"], sidebar["aria-label"] = "complementary", "Book sidebar"
    return len(sidebars)


def mend_bibliography_roles(page: BeautifulSoup) -> int:
    """Citation lists carry no list role, since docutils gives them no list items."""
    parts = page.select("div.citation-list[role=list], div.citation[role=doc-biblioentry]")
    for part in parts:
        del part["role"]
    return len(parts)


def mend_table_headings(page: BeautifulSoup) -> int:
    """Empty headings become cells; the others say whether they head a column or a row."""
    changed = 0
    for heading in page.select("th"):
        if not heading.get_text(strip=True):
            heading.name = "td"
        elif not heading.has_attr("scope"):
            heading["scope"] = "col" if heading.find_parent("thead") else "row"
        else:
            continue
        changed += 1
    return changed


def mend_image_text(page: BeautifulSoup) -> int:
    """An alternative text that is only a file path is emptied, so that the tests can see it is missing."""
    images: list[Tag] = [image for image in page.select("img[alt]") if "_images/" in str(image["alt"])]
    for image in images:
        image["alt"] = ""
    return len(images)


MENDS: tuple[Callable[[BeautifulSoup], int], ...] = (
    mend_search_label,
    mend_hidden_titles,
    mend_contents_toggles,
    mend_landmarks,
    mend_bibliography_roles,
    mend_table_headings,
    mend_image_text,
)


def mend_page(path: Path) -> int:
    """Number of changes made to one HTML file; a file without faults is left untouched."""
    page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    changed = sum(mend(page) for mend in MENDS)
    if changed:
        path.write_text(str(page), encoding="utf-8")
    return changed


def mend_book(app: Sphinx, error: Exception | None) -> None:
    """Mends every page of a finished HTML build."""
    if error is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir)
    for path in sorted(folder.rglob("*.html")):
        if not SKIPPED_FOLDERS & set(path.relative_to(folder).parts):
            mend_page(path)


def setup_accessibility(app: Sphinx) -> None:
    """Connects the mends to a Sphinx application, after all that still write HTML."""
    app.connect("build-finished", mend_book, priority=900)
