"""``remi bench``: what the measurements cost, against the limit, the released protocol and the peers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from remi_book.cli import outcome
from remi_book.commands.parser import add_store, new_parser, open_store, positive
from remi_core.errors import UsageError

HELP = "measure what the measurements cost, and write benchmarks/bench-MACHINE.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the choice of cases, the number of runs, the file and the format."""
    parser.add_argument("--json", action="store_true", help="print the benchmark as JSON")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="a case, its kind or its model (repeatable)",
    )
    parser.add_argument(
        "--runs",
        type=positive,
        default=5,
        metavar="N",
        help="runs of each way (default 5; fewer are not judged)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write it")
    add_store(parser)


def run(arguments: argparse.Namespace) -> int:
    """0, once the file is written; a target that is missed is a row and no failure.

    Raises:
        UsageError: for a case that does not exist, or a file in a folder that does not exist.
    """
    from benchmarks import suite as suite_module
    from benchmarks.processes import Setting
    from remi_book import benchmark_files

    cases = suite_module.chosen(arguments.only)
    path = (arguments.out or benchmark_files.bench_path()).expanduser().resolve()
    if arguments.out is not None and not path.parent.is_dir():
        raise UsageError(f"--out {arguments.out}: no folder {path.parent}")
    setting = Setting(open_store(arguments), arguments.runs)
    found = suite_module.run_suite(setting, cases, partial(print, file=sys.stderr, flush=True))
    benchmark_files.write(found, path)
    print(
        json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
        if arguments.json
        else as_table(found)
    )
    return 0


def as_table(found: Mapping[str, object]) -> str:
    """The rows as a plain table: name, target, ratio with its spread, and whether it is met."""
    from tabulate import tabulate

    words = {True: "met", False: "missed", None: "not judged"}
    cells = [
        [row["name"], row["target"], _ratio(row), words[row["met"]], row["note"]] for row in found["rows"]
    ]
    headings = ("row", "target", "ratio", "", "note")
    return tabulate(cells, headers=headings, maxcolwidths=[32, 36, 22, 12, 44], disable_numparse=True)


def _ratio(row: Mapping[str, object]) -> str:
    if row["ratio"] is None:
        return ""
    low, high = row["spread"]
    return f"{row['ratio']:.3g}" if low == high else f"{row['ratio']:.3g} ({low:.3g} … {high:.3g})"


def main(words: Sequence[str]) -> int:
    """Exit code of ``remi bench`` with these words; mistakes and failures are one line, as of every command."""

    def act() -> int:
        parser = new_parser(prog="remi bench", description=HELP)
        add_arguments(parser)
        return run(parser.parse_args(words))

    return outcome(act, ["bench", *words])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
