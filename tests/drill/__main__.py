"""``remi drill``: the package broken in every way that is known, and what was left of it."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from remi_book.cli import Command, StoreFolder, invoke, new_app, open_store, outcome
from remi_book.publishing import DRILL
from remi_core.errors import RemiError, UsageError, nearest
from remi_core.files import written_whole
from remi_core.keys import library_versions
from remi_core.progress import Say, clock, machine, print_line
from remi_core.store import Store, project_root
from remi_lab.presets import get_preset
from tests.drill.disk import drill_disk, drill_flips
from tests.drill.kills import drill_kills, fine_tune, notebook_run, organism_tune, pretraining, run_through
from tests.drill.memory_ends import drill_memory
from tests.drill.rows import Row

FLIPS = 200


def _flips(store: Store, folder: Path) -> list[Row]:
    victim, root = notebook_run(store), folder / "store"
    victim.prepare(root)
    run_through(victim, root)
    return [drill_flips(root, count=FLIPS)]


DRILLS: Mapping[str, Callable[[Store, Path], list[Row]]] = {
    "disk": lambda store, folder: drill_disk(folder),
    "files": _flips,
    "memory": lambda store, folder: [drill_memory(get_preset("smoke"), store, folder, dataset="general")],
    "run": lambda store, folder: [drill_kills(notebook_run(store), folder, count=30)],
    "finetune": lambda store, folder: [drill_kills(fine_tune(store), folder, count=10)],
    "tune": lambda store, folder: [drill_kills(organism_tune(store), folder, count=3)],
    "pretrain": lambda store, folder: [drill_kills(pretraining(store), folder, count=10)],
}
"""Name → a drill in an empty folder; the store has the models, or gets them."""


def chosen(names: Sequence[str]) -> list[str]:
    """The drills named, in the one order; all where none is."""
    for name in names:
        if name not in DRILLS:
            raise UsageError(f"--only {name}: no such drill {nearest(name, DRILLS)}")
    return [name for name in DRILLS if not names or name in names]


def run_drills(names: Sequence[str], store: Store, path: Path, say: Say) -> list[Row]:
    """The rows of the drills named, written to ``path``; those of drills that were not run stay."""
    rows = []
    # Beside the store: weights are linked into the stores that are broken, not copied.
    store.root.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names, start=1):
        say(f"[{number}/{len(names)}] drill {name}")
        with tempfile.TemporaryDirectory(dir=store.root, prefix=".drill-") as folder:
            own = DRILLS[name](store, Path(folder))
        for row in own:
            say(f"    {row.drill}: {row.held} of {row.tried} held, {clock(row.seconds)}")
        rows += own
        _write(path, name, own)
    return rows


def _write(path: Path, name: str, rows: Sequence[Row]) -> None:
    before = read_drill(path) if path.is_file() else {}
    about = {"machine": machine(), "versions": library_versions(), "made": date.today().isoformat()}
    same = before.get("machine") == about["machine"] and before.get("versions") == about["versions"]
    drills = (before["drills"] if same else {}) | {name: [vars(row) for row in rows]}
    about["recipe"] = "make drill"
    about["drills"] = {known: drills[known] for known in DRILLS if known in drills}
    with written_whole(path) as part:
        part.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_drill(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if {"machine", "versions", "made", "recipe", "drills"} <= found.keys():
            return found
    except (ValueError, AttributeError):
        pass
    raise RemiError(f"{path} is no outcome of drills; delete it, or name another file with --out")


app = new_app()


@app.command(cls=Command)
def drill(
    only: Annotated[list[str], typer.Option(metavar="DRILL", help="only this drill; may be repeated")] = (),
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="where to write it")] = None,
    store_folder: StoreFolder = None,
) -> int:
    """Kill runs, break disks, flip bits, end memory; write what held to stored/drill.json (half an hour)."""
    names = chosen(only)
    path = (out or project_root() / "stored" / DRILL).expanduser().resolve()
    if not path.parent.is_dir():
        raise UsageError(f"--out {out}: no folder {path.parent}")
    rows = run_drills(names, open_store(store_folder), path, print_line)
    failures = [f"{row.drill}: {failure}" for row in rows for failure in row.failures]
    for line in failures:
        print_line(line)
    return 1 if failures else 0


def main(words: Sequence[str]) -> int:
    """Exit code of ``remi drill`` with these words; mistakes and failures are one line, as of every command."""
    return outcome(lambda: invoke(app, "remi drill", words), ["drill", *words])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
