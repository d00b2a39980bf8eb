"""``remi drill``: the package broken in every way that is known, and what was left of it."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from remi_book.cli import Command, StoreFolder, invoke, new_app, open_store, outcome
from remi_core.errors import RemiError, UsageError, nearest
from remi_core.files import written_whole
from remi_core.keys import library_versions
from remi_core.progress import clock, machine, print_line
from remi_core.store import Store, project_root
from remi_lab.presets import get_preset
from tests.drill.disk import drill_disk, drill_flips, drill_full
from tests.drill.kills import (
    PRUNE,
    WITHOUT_LOCKS,
    Victim,
    book_build,
    deposit,
    drill_kills,
    fine_tune,
    notebook_run,
    organism_tune,
    pretraining,
    run_through,
)
from tests.drill.memory_ends import drill_memory
from tests.drill.rows import Row

FLIPS = 200


def _flips(store: Store, folder: Path) -> list[Row]:
    victim, root = notebook_run(store), folder / "store"
    victim.prepare(root)
    run_through(victim, root)
    return [drill_flips(root, count=FLIPS)]


def _ends(store: Store, folder: Path) -> list[Row]:
    victims = enumerate((notebook_run(store), *_shown(store, folder)))
    both = ("SIGTERM", "SIGHUP")
    return [drill_kills(victim, _own(folder, f"{number}"), count=10, by=both) for number, victim in victims]


def _full(store: Store, folder: Path) -> list[Row]:
    victims = enumerate(_shown(store, folder))
    return [drill_full(victim, _own(folder, f"{number}"), count=10) for number, victim in victims]


def _shown(store: Store, folder: Path) -> tuple[Victim, Victim]:
    return book_build(folder / "project"), deposit(store, folder / "measured")


def _own(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


DRILLS: Mapping[str, Callable[[Store, Path], list[Row]]] = {
    "disk": lambda store, folder: drill_disk(folder),
    "files": _flips,
    "memory": lambda store, folder: [drill_memory(get_preset("smoke"), store, folder, dataset="general")],
    "run": lambda store, folder: [drill_kills(notebook_run(store), folder, count=30)],
    "prune": lambda store, folder: [drill_kills(notebook_run(store), folder, count=10, by=(PRUNE,))],
    "locks": lambda store, folder: [
        drill_kills(
            replace(notebook_run(store, begin=WITHOUT_LOCKS), name="remi run, no flock"),
            folder,
            count=10,
            by=("SIGKILL", "SIGTERM"),
        )
    ],
    "full": _full,
    "ends": _ends,
    "finetune": lambda store, folder: [drill_kills(fine_tune(store), folder, count=10)],
    "tune": lambda store, folder: [drill_kills(organism_tune(store), folder, count=3)],
    "pretrain": lambda store, folder: [drill_kills(pretraining(store), folder, count=10)],
}
"""Name → a drill in an empty folder; the store has the models, or gets them."""


def _write(path: Path, name: str, rows: Sequence[Row]) -> None:
    before = _read(path) if path.is_file() else {}
    about = {"machine": machine(), "versions": library_versions()}
    drills = before["drills"] if before and about.items() <= before.items() else {}
    drills |= {name: [vars(row) for row in rows]}
    about |= {"made": date.today().isoformat(), "recipe": "make drill"}
    about["drills"] = {known: drills[known] for known in DRILLS if known in drills}
    with written_whole(path) as part:
        part.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, object]:
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
    """Kill runs, break disks, flip bits, end memory; write what held to stored/drill.json (an hour)."""
    for name in only:
        if name not in DRILLS:
            raise UsageError(f"--only {name}: no such drill {nearest(name, DRILLS)}")
    path = (out or project_root() / "stored" / "drill.json").expanduser().resolve()
    if not path.parent.is_dir():
        raise UsageError(f"--out {out}: no folder {path.parent}")
    names, store, rows = [name for name in DRILLS if name in (only or DRILLS)], open_store(store_folder), []
    # Beside the store: weights are linked into the stores that are broken, not copied.
    store.root.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names, start=1):
        print_line(f"[{number}/{len(names)}] drill {name}")
        with tempfile.TemporaryDirectory(dir=store.root, prefix=".drill-") as folder:
            own = DRILLS[name](store, Path(folder))
        for row in own:
            print_line(f"    {row.drill}: {row.held} of {row.tried} held, {clock(row.seconds)}")
        _write(path, name, own)
        rows += own
    failures = [f"{row.drill}: {failure}" for row in rows for failure in row.failures]
    for line in failures:
        print_line(line)
    return 1 if failures else 0


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(outcome(lambda: invoke(app, "remi drill", words), ["drill", *words]))
