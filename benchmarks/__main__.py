"""``remi bench``: what the measurements cost, against the limit, the released protocol and the peers."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import rows
from benchmarks.suite import Setting, chosen, run_suite
from remi_book.cli import Command, Positive, StoreFolder, invoke, new_app, open_store, outcome
from remi_core.errors import UsageError

app = new_app()


@app.command(cls=Command)
def bench(
    as_json: Annotated[bool, typer.Option("--json", help="print the benchmark as JSON")] = False,
    only: Annotated[
        list[str], typer.Option(metavar="NAME", help="a case, its kind or its model; may be repeated")
    ] = (),
    runs: Annotated[int, Positive(help="runs of each way; fewer than 5 are not judged")] = 5,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="where to write it")] = None,
    store_folder: StoreFolder = None,
) -> int:
    """Measure what the measurements cost, and write benchmarks/bench-MACHINE.json."""
    cases = chosen(only)
    path = (out or rows.bench_path()).expanduser().resolve()
    if out is not None and not path.parent.is_dir():
        raise UsageError(f"--out {out}: no folder {path.parent}")
    measured = run_suite(
        Setting(open_store(store_folder), runs), cases, partial(print, file=sys.stderr, flush=True)
    )
    rows.write(measured, path)
    # A target that is missed is a row and no failure.
    print(json.dumps(measured, indent=1, ensure_ascii=False, allow_nan=False) if as_json else table(measured))
    return 0


def table(measured: Mapping[str, object]) -> str:
    """The rows as a plain table: name, target, ratio with its spread, and whether it is met."""
    from tabulate import tabulate

    words = {True: "met", False: "missed", None: "not judged"}
    cells = []
    for row in measured["rows"]:
        low, high = row["spread"] or (None, None)
        spread = "" if low == high else f" ({low:.3g} … {high:.3g})"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}{spread}"
        cells.append([row["name"], row["target"], ratio, words[row["met"]], row["note"]])
    headings = ("row", "target", "ratio", "", "note")
    return tabulate(cells, headers=headings, maxcolwidths=[32, 36, 22, 12, 44], disable_numparse=True)


def main(words: Sequence[str]) -> int:
    """Exit code of ``remi bench`` with these words; mistakes and failures are one line, as of every command."""
    return outcome(lambda: invoke(app, "remi bench", words), ["bench", *words])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
