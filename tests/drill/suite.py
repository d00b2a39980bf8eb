"""All drills one after another, and the file that the book shows."""

from __future__ import annotations

import json
import operator
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial, reduce
from pathlib import Path

from remi_book.publishing import DRILL
from remi_core.errors import RemiError, UsageError, nearest
from remi_core.files import written_whole
from remi_core.keys import library_versions
from remi_core.progress import Say, clock, machine
from remi_core.store import Store, project_root
from remi_lab.presets import get_preset
from tests.drill.disk import drill_disk
from tests.drill.flips import drill_flips
from tests.drill.kills import drill_kills, run_through
from tests.drill.memory_ends import drill_memory
from tests.drill.rows import Row
from tests.drill.victims import fine_tune, notebook_run, organism_tune, pretraining

FLIPS = 200


def _kills(victim: Callable, count: int, n_rounds: int, store: Store, folder: Path) -> list[Row]:
    """Rounds of kills of a victim, each with moments of its own, as one row."""
    rounds = []
    for number in range(n_rounds):
        own = folder / str(number)
        own.mkdir()
        rounds.append(drill_kills(victim(store), own, count=count, seed=number))
    return [reduce(operator.add, rounds)]


def _flips(store: Store, folder: Path) -> list[Row]:
    victim, root = notebook_run(store), folder / "store"
    victim.prepare(root)
    run_through(victim, root)
    return [drill_flips(root, count=FLIPS)]


DRILLS: Mapping[str, Callable[[Store, Path], list[Row]]] = {
    "disk": lambda store, folder: drill_disk(folder),
    "files": _flips,
    "memory": lambda store, folder: [drill_memory(get_preset("smoke"), store, folder, dataset="general")],
    "run": partial(_kills, notebook_run, 10, 3),
    "finetune": partial(_kills, fine_tune, 5, 2),
    "tune": partial(_kills, organism_tune, 3, 1),
    "pretrain": partial(_kills, pretraining, 5, 2),
}
"""Name → a drill in an empty folder; the store has the models, or gets them."""


def drill_path() -> Path:
    """Where the outcome is kept."""
    return project_root() / "stored" / DRILL


def chosen(names: Sequence[str]) -> list[str]:
    """The drills named, in the one order; all where none is.

    Raises:
        UsageError: naming the nearest, if there is no such drill.
    """
    for name in names:
        if name not in DRILLS:
            raise UsageError(f"--only {name}: no such drill {nearest(name, DRILLS)}")
    return [name for name in DRILLS if not names or name in names]


def run_drills(names: Sequence[str], store: Store, path: Path, say: Say) -> list[Row]:
    """The rows of the drills named, written to ``path``; those of drills that were not run stay.

    Raises:
        RemiError: if the file is there and is no outcome of drills.
    """
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
        write(path, name, own)
    return rows


def write(path: Path, name: str, rows: Sequence[Row]) -> None:
    """Write the rows of a drill into the file, beside those of others on the same machine and versions."""
    before = read_drill(path) if path.is_file() else {}
    about = {"machine": machine(), "versions": library_versions(), "made": date.today().isoformat()}
    same = before.get("machine") == about["machine"] and before.get("versions") == about["versions"]
    drills = (before["drills"] if same else {}) | {name: [vars(row) for row in rows]}
    about["recipe"] = "make drill"
    about["drills"] = {known: drills[known] for known in DRILLS if known in drills}
    with written_whole(path) as part:
        part.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_drill(path: Path) -> dict[str, object]:
    """The stored outcome of drills.

    Raises:
        RemiError: if the file is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if {"machine", "versions", "made", "recipe", "drills"} <= found.keys():
            return found
    except (ValueError, AttributeError):
        pass
    raise RemiError(f"{path} is no outcome of drills; delete it, or name another file with --out")
