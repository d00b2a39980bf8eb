"""Room again: what a store holds that was superseded, or never finished, removed."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from remi_core.storage.containment import inside
from remi_core.storage.model_folders import FILES
from remi_core.storage.store import FINISHED, MODELS, Store
from remi_core.storage.writing import PART

UNFINISHED_AFTER = 3600
"""Seconds after which what is unfinished and was not touched counts as left behind."""


def prune(store: Store, keep: int = 1) -> tuple[Path, ...]:
    """Paths removed: all but the ``keep`` last used keys of each record and model, and what was left unfinished.

    Executed notebooks stay, and so does anything unfinished that was touched within the hour (it may be being
    written). What is removed is computed again when it is asked for.
    """
    groups: dict[tuple[object, ...], list[Path]] = {}
    for entry in store.list():
        a = entry.address
        groups.setdefault((a.preset, a.seed, a.variant, a.measurement, a.dataset), []).append(entry.path)
    for folder in store.root.glob(f"{MODELS}/*/*-*"):
        groups.setdefault((folder.parent, folder.name.rpartition("-")[0]), []).append(folder)
    old = [path for paths in groups.values() for path in sorted(paths, key=_last_used, reverse=True)[keep:]]
    halves = [path for path in store.root.glob("*/*/*/*.npz") if not path.with_suffix(".json").is_file()]
    hour_ago = time.time() - UNFINISHED_AFTER
    unfinished = [
        path
        for path in (
            *store.root.rglob(f"*{PART.rstrip('-')}*"),
            *store.root.glob(f"{FINISHED}*"),
            *halves,
        )
        if path.exists() and path.stat().st_mtime < hour_ago
    ]
    removed = tuple(inside(path, store.root) for path in sorted({*old, *unfinished}))
    for path in removed:
        _remove(path)
    return removed


def _last_used(path: Path) -> float:
    """When a record or model was last read or made."""
    about = path / FILES if path.is_dir() else path.with_suffix(".json")
    return (about if about.is_file() else path).stat().st_mtime


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
        if path.suffix == ".npz":
            path.with_suffix(".json").unlink(missing_ok=True)
