"""Words, figures and tables that a reader of a built book sees on each page without opening anything.

``python scripts/page_sizes.py FOLDER`` of a built book; exit 1 where a page or the book exceeds its limit. Parts that
open on a click, code, formulas and what a picture's alternative text says do not count; tables and captions do."""

from __future__ import annotations

import sys
from pathlib import Path

from bs4 import BeautifulSoup, Tag

HIDDEN = (
    "details, dialog, script, style, svg, nav, .cell_input, .hide, .admonition.dropdown, .math, .headerlink, "
    ".toggle-button, .sr-only, [hidden]"
)
MAX_WORDS, MAX_FIGURES, MAX_BOOK = 2_500, 8, 80_000
"""Words and figures of a chapter, and words of the whole book."""
UNREAD = ("genindex", "search", "py-modindex", "_modules")
"""Pages that Sphinx makes for looking things up."""


def size(article: Tag) -> tuple[int, int, int]:
    """Words, figures and tables of a page's article in the open."""
    for part in article.select(HIDDEN):
        part.decompose()
    counted = (len(article.select(name)) for name in ("figure img, .cell_output img, figure object", "table"))
    return len(article.get_text(" ").split()), *counted


def main(words: list[str]) -> int:
    """Print a line for each page, and say what exceeds its limit."""
    if len(words) != 1 or not Path(words[0]).is_dir():
        print("usage: python scripts/page_sizes.py FOLDER (of a built book)", file=sys.stderr)
        return 2
    root, whole, over = Path(words[0]), 0, []
    print(f"{'words':>7} {'figures':>8} {'tables':>7}  page")
    for path in sorted(root.rglob("*.html")):
        name = path.relative_to(root).with_suffix("").as_posix()
        article = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").select_one("article")
        if article is None or name.split("/")[0] in UNREAD:
            continue
        read, figures, tables = size(article)
        whole += read
        print(f"{read:7,} {figures:8} {tables:7}  {name}")
        if name.startswith("notebooks/"):
            over += [f"{name}: {read:,} words, at most {MAX_WORDS:,}"] * (read > MAX_WORDS)
            over += [f"{name}: {figures} figures, at most {MAX_FIGURES}"] * (figures > MAX_FIGURES)
    over += [f"the book: {whole:,} words, at most {MAX_BOOK:,}"] * (whole > MAX_BOOK)
    print(f"{whole:7,} words in all")
    print("\n".join(over) or "every page is within its limits", file=sys.stderr)
    return int(bool(over))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
