"""``remi drill``: the package broken in every way that is known, and what was left of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from remi_book.cli import outcome
from remi_book.commands.parser import add_store, new_parser, open_store
from remi_core.errors import UsageError
from remi_core.progress import print_line

HELP = "kill runs, break disks, flip bits, end memory; write what held to stored/drill.json (half an hour)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the choice of drills, the file and the store."""
    parser.add_argument(
        "--only", action="append", default=[], metavar="DRILL", help="only this drill; may be repeated"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write it")
    add_store(parser)


def run(arguments: argparse.Namespace) -> int:
    """0, once the file is written and all held; 1 after a line for each try that did not.

    Raises:
        UsageError: for a drill that does not exist, or a file in a folder that does not exist.
    """
    from tests.drill import suite as suite_module

    names = suite_module.chosen(arguments.only)
    path = (arguments.out or suite_module.drill_path()).expanduser().resolve()
    if not path.parent.is_dir():
        raise UsageError(f"--out {arguments.out}: no folder {path.parent}")
    rows = suite_module.run_drills(names, open_store(arguments), path, print_line)
    failures = [f"{row.drill}: {failure}" for row in rows for failure in row.failures]
    for line in failures:
        print_line(line)
    return 1 if failures else 0


def main(words: Sequence[str]) -> int:
    """Exit code of ``remi drill`` with these words; mistakes and failures are one line, as of every command."""

    def act() -> int:
        parser = new_parser(prog="remi drill", description=HELP)
        add_arguments(parser)
        return run(parser.parse_args(words))

    return outcome(act, ["drill", *words])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
