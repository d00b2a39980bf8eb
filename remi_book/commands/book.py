"""``remi book``: the pages of a preset, or of several side by side, with stubs for what was not run."""

from __future__ import annotations

import argparse
from pathlib import Path

from remi_book.commands.parser import (
    add_frozen,
    add_presets,
    add_show_text,
    add_store,
    chosen_presets,
    heed_show_text,
    open_store,
    positive,
)
from remi_book.publishing import Edition, build_book, default_out
from remi_book.running import plan
from remi_book.running import run as run_of_running
from remi_book.site import build_site

HELP = "build the book of a preset; pages not run are stubs that say so"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add presets, folder, whether to run first, and where the repository is public."""
    add_presets(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the pages (default: book/_build/html)"
    )
    parser.add_argument(
        "--run", dest="run_first", action="store_true", help="first run what is missing, like `remi run`"
    )
    parser.add_argument("--jobs", type=positive, metavar="N", help="with --run: notebooks side by side")
    parser.add_argument(
        "--repository",
        default="",
        metavar="URL",
        help="public address of the repository, https://github.com/OWNER/NAME: notebook pages then link to Binder",
    )
    parser.add_argument(
        "--pdf",
        action="store_true",
        help="print each book to one PDF beside it, where Chromium is found",
    )
    add_show_text(parser)
    add_frozen(parser)
    add_store(parser)


def run(arguments: argparse.Namespace) -> int:
    """0, once the book, or the books with one page in front, stand in their folder."""
    heed_show_text(arguments)
    presets, store = chosen_presets(arguments), open_store(arguments)
    edition = Edition(repository=arguments.repository)
    out = (arguments.out or default_out()).expanduser().resolve()
    if arguments.run_first:
        for preset in presets:
            todo = [step for step in plan(preset, store) if not step.done]
            run_of_running(preset, store, todo, jobs=arguments.jobs)
    if len(presets) == 1:
        built = build_book(presets[0], store, out, edition=edition)
    else:
        built = build_site(presets, store, out, repository=edition.repository)
    names = ", ".join(preset.name for preset in presets)
    which = f"book of preset {names}" if len(presets) == 1 else f"books of presets {names}"
    print(f"{which} {'built' if built else 'up to date'}: {out / 'index.html'}")
    if arguments.pdf:
        for folder in [out] if len(presets) == 1 else [out / preset.name for preset in presets]:
            print(pdf_line(folder))
    return 0


def pdf_line(out: Path) -> str:
    """What became of the PDF of the book in a folder, in one line."""
    from remi_book.publishing import BROWSERS, print_book

    printed = print_book(out)
    if printed is None:
        return f"no PDF: none of {', '.join(BROWSERS)} is installed; the pages are whole without it"
    return f"PDF of {printed.stat().st_size / 2**20:.1f} MiB: {printed}"
