"""What a page shows of the edition it is part of: a switch to the other presets, and where it can be run.

Read from `site.json`: the presets side by side with their pages, the notebook of each page, and the launch address.
Without presets and without an address, pages stay as they are.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from urllib.parse import quote

from bs4 import BeautifulSoup, Tag
from remi_accessibility import SKIPPED_FOLDERS
from remi_results import read_json
from sphinx.application import Sphinx

FILE = "site.json"
PLACE = ".bd-article-container"
ALWAYS = {"search", "genindex"}
"""Pages that every book has and no table of contents lists."""


def other_page(site: dict, name: str, page: str) -> str:
    """Link from a page to the same page of another preset, or to its front page where it has no such page."""
    one = next(one for one in site["presets"] if one["name"] == name)
    up = "../" * (len(PurePosixPath(page).parts))
    there = page if page in {*one["pages"], *ALWAYS} else "index"
    return f"{up}{quote(name)}/{quote(there)}.html"


def switch(page: BeautifulSoup, site: dict, name: str) -> Tag:
    """A navigation of one link a preset, the present one marked; the first leads to the page that links all books."""
    bar = page.new_tag("nav", attrs={"class": "remi-switch d-print-none", "aria-label": "Presets"})
    up = "../" * len(PurePosixPath(name).parts)
    front = page.new_tag("a", attrs={"href": f"{up}index.html"})
    front.string = "All presets"
    bar.append(front)
    for one in site["presets"]:
        link = page.new_tag("a", attrs={"href": other_page(site, one["name"], name)})
        if one["name"] == site["preset"]:
            link["aria-current"] = "true"
        link.string = one["name"]
        bar.append(link)
    return bar


def launch(page: BeautifulSoup, site: dict, notebook: str) -> Tag:
    """A paragraph with a link that opens the page's notebook on Binder, and one to the repository."""
    line = page.new_tag("p", attrs={"class": "remi-launch d-print-none"})
    run = page.new_tag("a", attrs={"href": site["launch"] + quote(notebook, safe="")})
    run.string = "Run this page on Binder"
    source = page.new_tag("a", attrs={"href": site["repository"]})
    source.string = "Source"
    line.extend([run, " · ", source])
    return line


def add_edition(text: str, site: dict, name: str) -> str:
    """HTML of a page with what the edition adds on top of it; the same text where it adds nothing."""
    notebook = site.get("notebooks", {}).get(name)
    if not site["presets"] and not (site["launch"] and notebook):
        return text
    page = BeautifulSoup(text, "html.parser")
    place = page.select_one(PLACE)
    if place is None:
        return text
    if site["launch"] and notebook:
        place.insert(0, launch(page, site, notebook))
    if site["presets"]:
        place.insert(0, switch(page, site, name))
    return str(page)


def show_edition(app: Sphinx, error: Exception | None) -> None:
    """Adds the edition to every page of a finished HTML build."""
    site = read_json(Path(app.srcdir) / FILE, dict)
    if error is not None or app.builder.format != "html" or not site:
        return
    folder = Path(app.outdir)
    for path in sorted(folder.rglob("*.html")):
        relative = path.relative_to(folder)
        if not SKIPPED_FOLDERS & set(relative.parts):
            before = path.read_text(encoding="utf-8")
            after = add_edition(before, site, relative.with_suffix("").as_posix())
            if after != before:
                path.write_text(after, encoding="utf-8")


def setup_site(app: Sphinx) -> None:
    """Connects the switch to a Sphinx application, before the accessibility mends."""
    app.connect("build-finished", show_edition, priority=800)
