"""``remi drill``: the package broken in every way that is known, and what was left of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from remi_book.cli import Command, StoreFolder, invoke, new_app, open_store, outcome
from remi_book.publishing import DRILL
from remi_core.errors import UsageError
from remi_core.progress import print_line
from remi_core.store import project_root
from tests.drill import suite

app = new_app()


@app.command(cls=Command)
def drill(
    only: Annotated[list[str], typer.Option(metavar="DRILL", help="only this drill; may be repeated")] = (),
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="where to write it")] = None,
    store_folder: StoreFolder = None,
) -> int:
    """Kill runs, break disks, flip bits, end memory; write what held to stored/drill.json (half an hour)."""
    names = suite.chosen(only)
    path = (out or project_root() / "stored" / DRILL).expanduser().resolve()
    if not path.parent.is_dir():
        raise UsageError(f"--out {out}: no folder {path.parent}")
    rows = suite.run_drills(names, open_store(store_folder), path, print_line)
    failures = [f"{row.drill}: {failure}" for row in rows for failure in row.failures]
    for line in failures:
        print_line(line)
    return 1 if failures else 0


def main(words: Sequence[str]) -> int:
    """Exit code of ``remi drill`` with these words; mistakes and failures are one line, as of every command."""
    return outcome(lambda: invoke(app, "remi drill", words), ["drill", *words])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
