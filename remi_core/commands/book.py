"""``remi book``: the pages of a preset, with stubs for what was not run."""

from __future__ import annotations

import argparse
from pathlib import Path

from remi_core.book import build_book, default_out
from remi_core.commands.parser import add_frozen, add_preset, add_store, chosen_preset, open_store, positive
from remi_core.pipeline import plan
from remi_core.pipeline import run as run_steps

HELP = "build the book of a preset; pages not run are stubs that say so"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add preset, folder and whether to run first."""
    add_preset(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the pages (default: book/_build/html)"
    )
    parser.add_argument(
        "--run", dest="run_first", action="store_true", help="first run what is missing, like `remi run`"
    )
    parser.add_argument("--jobs", type=positive, metavar="N", help="with --run: notebooks side by side")
    add_frozen(parser)
    add_store(parser)


def run(arguments: argparse.Namespace) -> int:
    """0, once the book stands in its folder."""
    preset = chosen_preset(arguments)
    store = open_store(arguments)
    out = (arguments.out or default_out()).expanduser().resolve()
    if arguments.run_first:
        todo = [step for step in plan(preset, store) if not step.done]
        run_steps(preset, store, todo, jobs=arguments.jobs)
    built = build_book(preset, store, out)
    print(f"book of preset {preset.name} {'built' if built else 'up to date'}: {out / 'index.html'}")
    return 0
