"""The store's upkeep: folders of weights made once, what is damaged, and room again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path

from remi_core import files
from remi_core.errors import RemiError, UsageError, brief, nearest
from remi_core.keys import file_digest
from remi_core.progress import notice
from remi_core.store import FINISHED, MODELS, Store, inside, locked

FILES = "files.json"
"""The list, in the folder itself."""


@contextmanager
def made_once(store: Store, target: Path) -> Iterator[Path | None]:
    """A path at which to make the folder ``target``, or None where it is there and whole; another run is waited for.

    Raises:
        RemiError: if the folder is damaged and the store is frozen, or cannot be written.
    """
    if is_whole(store, target):
        yield None
        return
    with locked(store.root, [f"{target.parent.name}-{target.name}"]):
        if is_whole(store, target):
            yield None
            return
        if target.is_dir():
            shutil.rmtree(target)
        with files.written_whole(target) as part:
            yield part
            write_list(part, sorted(one.name for one in part.iterdir() if one.is_file()))


def write_list(folder: Path, names: Iterable[str]) -> None:
    """Write the folder's list of these files, with their digests, into it."""
    digests = {name: file_digest(folder / name) for name in names}
    (folder / FILES).write_text(files.sealed_text({"files": digests}), encoding="utf-8")


def is_whole(store: Store, target: Path) -> bool:
    """Whether the folder is there with every file as it was written; a line names one that is not.

    Raises:
        RemiError: if it is not and the store is frozen.
    """
    if not target.is_dir():
        return False
    try:
        check_folder(target)
    except (OSError, files.Damaged) as error:
        notice(files.repaired(target, error, frozen=store.frozen))
        return False
    files.touched(target / FILES)
    return True


def check_folder(folder: Path) -> None:
    """Check that every file that the folder's list names is as it was written.

    Raises:
        Damaged: naming the first that is not; also where there is no list.
    """
    if not (folder / FILES).is_file():
        raise files.Damaged(f"without {FILES}, so of an earlier version or never finished")
    listed = files.read_sealed(folder / FILES).get("files")
    if not isinstance(listed, dict):
        raise files.Damaged(f"without files in its {FILES}")
    for name, digest in listed.items():
        try:
            files.check_file(inside(folder / name, folder), digest)
        except RemiError:
            raise files.Damaged(f"{brief(name)} leads out of it") from None
        except files.Damaged as error:
            raise files.Damaged(f"{brief(name)} is {error}") from None


def damages(root: Path) -> list[tuple[Path, str]]:
    """Each file or folder of weights under ``root`` that is damaged, and what is wrong with it; sorted by path.

    Of what one file says and another holds, the one that says it is named. What a killed run left unfinished is not
    damaged: it stands under no name that is read.
    """
    found = []
    for path in sorted(root.rglob("*.json")):
        inside = path.relative_to(root).parts
        if (
            inside[0] == MODELS
            or (path.parent / FILES).is_file()
            or any(one.startswith(".") for one in inside)
        ):
            continue
        try:
            about = files.read_sealed(path)
            if "file" in about:
                files.check_file(path.with_name(str(about["file"])), about.get("sha256"))
        except (OSError, ValueError) as error:
            found.append((path, str(error)))
    listed = {path.parent for path in root.rglob(FILES) if files.PART not in str(path.relative_to(root))}
    for folder in sorted({*root.glob(f"{MODELS}/*/[!.]*"), *listed}):
        try:
            check_folder(folder)
        except (OSError, files.Damaged) as error:
            found.append((folder, str(error)))
    return found


UNFINISHED_AFTER = 3600
"""Seconds after which what is unfinished and was not touched counts as left behind."""


def prune(store: Store, keep: int = 1) -> tuple[Path, ...]:
    """Paths removed: all but the ``keep`` last used keys of each record and model, and what was left unfinished.

    Executed notebooks stay, and so does anything unfinished that was touched within the hour (it may be being
    written). What is removed is computed again when it is asked for.
    """
    groups: dict[tuple[object, ...], list[Path]] = {}
    for entry in store.list():
        groups.setdefault(astuple(entry.address)[:-1], []).append(entry.path)  # all but the key
    for folder in store.root.glob(f"{MODELS}/*/*-*"):
        groups.setdefault((folder.parent, folder.name.rpartition("-")[0]), []).append(folder)
    old = [path for paths in groups.values() for path in sorted(paths, key=_last_used, reverse=True)[keep:]]
    halves = [path for path in store.root.glob("*/*/*/*.npz") if not path.with_suffix(".json").is_file()]
    hour_ago = time.time() - UNFINISHED_AFTER
    unfinished = [
        path
        for path in (
            *store.root.rglob(f"*{files.PART.rstrip('-')}*"),
            *store.root.glob(f"{FINISHED}*"),
            *halves,
        )
        if path.exists() and path.stat().st_mtime < hour_ago
    ]
    removed = tuple(inside(path, store.root) for path in sorted({*old, *unfinished}))
    for path in removed:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
            continue
        path.unlink(missing_ok=True)
        if path.suffix == ".npz":
            path.with_suffix(".json").unlink(missing_ok=True)
    return removed


def forget(store: Store, preset: str) -> int:
    """Number of records removed with all that the store has of a preset; weights, which presets share, stay.

    Raises:
        UsageError: if the store has nothing of a preset of that name.
    """
    kept = [path.name for path in store.root.glob("*") if path.is_dir() and not path.name.startswith(".")]
    kept = [name for name in kept if name != MODELS]
    if preset not in kept:
        raise UsageError(f"the store has nothing of a preset {preset!r} {nearest(preset, kept)}")
    count = len(store.list(preset))
    shutil.rmtree(inside(store.root / preset, store.root))
    return count


def _last_used(path: Path) -> float:
    """When a record or model was last read or made."""
    about = path / FILES if path.is_dir() else path.with_suffix(".json")
    return (about if about.is_file() else path).stat().st_mtime
