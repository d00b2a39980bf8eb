"""Mends the accessibility faults that theme and libraries leave in finished HTML, and names figures and tables.

Each mend is one small function on a parsed page; it returns how much it changed. The rules meant are
WCAG 2.2 and the best practices of axe-core.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from bs4 import BeautifulSoup
from sphinx.application import Sphinx

SKIPPED_FOLDERS = {"_static", "_sources"}


ATTRIBUTES: Mapping[str, Mapping[str, str | None]] = {
    # The accessible name of the search button contains its visible words (WCAG 2.5.3).
    "button.search-button-field[aria-label]": {"aria-label": "Search Ctrl + K"},
    # An icon does not repeat the name of its button.
    "button.theme-switch-button [title]": {"title": None},
    # The book's sidebar is a named landmark, so all content lies in some landmark.
    "#pst-primary-sidebar, .bd-sidebar-primary": {"role": "complementary", "aria-label": "Book sidebar"},
    # Citation lists carry no list role, since docutils gives them no list items.
    "div.citation-list[role=list], div.citation[role=doc-biblioentry]": {"role": None},
    # An alternative text that is only a file path is emptied, so that the tests can see it is missing.
    'img[alt*="_images/"]': {"alt": ""},
}
"""Selector → the attributes that its elements get; None for those that they lose."""


def mend_attributes(page: BeautifulSoup) -> int:
    """Elements get the ``ATTRIBUTES`` of their selector."""
    mended = [(tag, wanted) for selector, wanted in ATTRIBUTES.items() for tag in page.select(selector)]
    for tag, wanted in mended:
        for name, value in wanted.items():
            if value is None:
                del tag[name]
            else:
                tag[name] = value
    return len(mended)


def mend_summaries(page: BeautifulSoup) -> int:
    """A summary is named by its own text; the sign that unfolds pages in the contents by the page above it."""
    summaries = [tag for tag in page.select("details > summary[aria-label]") if tag.get_text(strip=True)]
    for summary in summaries:
        del summary["aria-label"]
    signs = [tag for tag in page.select("nav li > details > summary") if not tag.get_text(strip=True)]
    for sign in signs:
        above = sign.find_parent("li").find("a")
        sign["aria-label"] = f"Pages below {above.get_text(strip=True) if above else 'this one'}"
    return len(summaries) + len(signs)


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


def add_anchors(page: BeautifulSoup) -> int:
    """Figures and tables of notebooks get a name by their place on the page, and a link to it in their caption."""
    places = {"figure": "figure.remi-figure", "table": ".cell_output table.remi-table:not(.remi-plain)"}
    found = [
        (kind, each) for kind, where in places.items() for each in enumerate(page.select(where), start=1)
    ]
    for kind, (number, shown) in found:
        shown["id"] = f"{kind}-{number}"
        link = page.new_tag("a", attrs={"class": "headerlink", "href": f"#{shown['id']}"}, string="#")
        link["title"] = f"Link to this {kind}"
        (shown.find(("caption", "figcaption")) or shown).append(link)
    return len(found)


MENDS: tuple[Callable[[BeautifulSoup], int], ...] = (
    mend_attributes,
    mend_summaries,
    mend_table_headings,
    add_anchors,
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
