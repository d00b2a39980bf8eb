"""All drills one after another, and the file that the book shows."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import date
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
from tests.drill.kills import drill_kills
from tests.drill.rows import Row

FLIPS = 200
ROUNDS = {"run": (10, 3), "finetune": (5, 2), "tune": (3, 1), "pretrain": (5, 2)}
"""Victim → how many kills a round, and how many rounds."""

Drill = Callable[[Store, Path], list[Row]]
"""A drill in an empty folder; the store has the models, or gets them."""


def drill_path() -> Path:
    """Where the outcome is kept."""
    return project_root() / "stored" / DRILL


def kill_round(name: str, store: Store, folder: Path, number: int) -> Row:
    """One round of kills of a victim, with moments of its own."""
    from tests.drill import victims as victims_module  # brings the organism

    victim = {
        "run": lambda: victims_module.notebook_run(store),
        "finetune": lambda: victims_module.fine_tune(store),
        "tune": lambda: victims_module.organism_tune(store),
        "pretrain": victims_module.pretraining,
    }[name]()
    own = folder / f"{name}-{number}"
    own.mkdir()
    return drill_kills(victim, own, count=ROUNDS[name][0], seed=number)


def _kills(name: str) -> Drill:
    return lambda store, folder: [
        joined([kill_round(name, store, folder, number) for number in range(ROUNDS[name][1])])
    ]


def joined(rows: Sequence[Row]) -> Row:
    """The rounds of one drill as one row."""
    return Row(
        drill=rows[0].drill,
        tried=sum(row.tried for row in rows),
        held=sum(row.held for row in rows),
        failures=[failure for row in rows for failure in row.failures],
        seconds=round(sum(row.seconds for row in rows), 1),
        note=rows[0].note,
    )


def _disk(_store: Store, folder: Path) -> list[Row]:
    return drill_disk(folder)


def _flips(store: Store, folder: Path) -> list[Row]:
    from tests.drill import victims as victims_module
    from tests.drill.kills import run_through

    victim, root = victims_module.notebook_run(store), folder / "store"
    victim.prepare(root)
    run_through(victim, root)
    return [drill_flips(root, count=FLIPS)]


def _memory(store: Store, folder: Path) -> list[Row]:
    from tests.drill.memory_ends import drill_memory  # brings torch

    return [drill_memory(get_preset("smoke"), store, folder, dataset="general")]


DRILLS: Mapping[str, Drill] = {
    "disk": _disk,
    "files": _flips,
    "memory": _memory,
    **{name: _kills(name) for name in ROUNDS},
}
"""Drill → function that does it."""


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
    for number, name in enumerate(names, start=1):
        say(f"[{number}/{len(names)}] drill {name}")
        with tempfile.TemporaryDirectory(dir=_beside(store), prefix=".drill-") as folder:
            own = DRILLS[name](store, Path(folder))
        for row in own:
            say(f"    {row.drill}: {row.held} of {row.tried} held, {clock(row.seconds)}")
        rows += own
        write(path, {name: own})
    return rows


def _beside(store: Store) -> Path:
    """The store's folder: weights are linked into the stores that are broken, not copied."""
    store.root.mkdir(parents=True, exist_ok=True)
    return store.root


def write(path: Path, rows: Mapping[str, Sequence[Row]]) -> None:
    """Return once the rows of these drills are in the file, beside those of others on the same machine and versions."""
    before = read_drill(path) if path.is_file() else {}
    about = {"machine": machine(), "versions": library_versions(), "made": date.today().isoformat()}
    same = before.get("machine") == about["machine"] and before.get("versions") == about["versions"]
    drills = dict(before["drills"]) if same else {}
    drills |= {name: [vars(row) for row in own] for name, own in rows.items()}
    found = {
        **about,
        "recipe": "make drill",
        "drills": {name: drills[name] for name in DRILLS if name in drills},
    }
    with written_whole(path) as part:
        part.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


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
