"""The store's upkeep: folders of weights made once, what is damaged, and room again."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple
from difflib import get_close_matches
from pathlib import Path

from filelock import FileLock, Timeout

from remi_core import files
from remi_core.errors import RemiError, UsageError, brief, nearest
from remi_core.keys import file_digest
from remi_core.progress import notice
from remi_core.sources import DIGESTS, GGUF, UNPACKED
from remi_core.store import FINISHED, FOLDER, MODELS, NOTEBOOKS, Store, inside, locked

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


_LEFTOVER = re.compile(rf"\..+{re.escape(files.PART)}[a-z0-9_]{{8}}")
"""Names of folders in which a file or folder is made; no name that a user may choose begins with a point."""


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
    listed = {path.parent for path in root.rglob(FILES)}
    listed = {one for one in listed if not any(map(_LEFTOVER.fullmatch, one.relative_to(root).parts))}
    for folder in sorted({*root.glob(f"{MODELS}/*/[!.]*"), *listed}):
        try:
            check_folder(folder)
        except (OSError, files.Damaged) as error:
            found.append((folder, str(error)))
    return found


def find_record(store: Store, name: str) -> Path:
    """Path of what is said of one record: ``name`` is as a card or ``remi store list`` has it, or a part of one alone.

    Raises:
        UsageError: if no record is called so, or several are; in one line, with the nearest names.
    """
    paths = {path.relative_to(store.root).as_posix()[:-4]: path for path in store.root.glob("*/*/*/*.npz")}
    asked = name.removesuffix(".npz").removesuffix(".json")
    found = [asked] if asked in paths else [one for one in sorted(paths) if asked in one]
    if len(found) == 1:
        return inside(paths[found[0]], store.root).with_suffix(".json")
    close = found or get_close_matches(asked, paths, n=3, cutoff=0.3)
    told = f"{len(found)} records are called so" if found else "no such record"
    near = ", ".join(brief(one) for one in close[:3]) + (" …" if len(close) > 3 else "")
    hint = f"nearest: {near}; " if close else ""
    raise UsageError(f"store show: {brief(name)}: {told} ({hint}`remi store list` names all)")


def read_record(about: Path, root: Path) -> dict[str, object]:
    """What is said of a record, and under ``arrays`` its arrays, once both are as they were written.

    Raises:
        RemiError: naming what is wrong.
    """
    try:
        content = files.read_sealed(inside(about, root))
        files.check_file(about.with_suffix(".npz"), content["sha256"])
        return content | {"arrays": files.read_npz(about.with_suffix(".npz"))}
    except (OSError, ValueError, KeyError) as error:
        raise RemiError(f"{about.relative_to(root)}: {error}") from None


def unpacked_files(store: Store) -> dict[Path, str]:
    """Folder → the GGUF file that the core unpacked into it; "" where that is not known."""
    named = {folder: folder / UNPACKED for folder in sorted(store.root.glob(f"{GGUF}/[!.]*"))}
    return {
        folder: path.read_text(encoding="utf-8") if path.is_file() else "" for folder, path in named.items()
    }


def _digested(path: Path) -> str:
    """The first file whose digest is kept there; "" where that cannot be read."""
    try:
        return str(files.read_sealed(path)["files"][0][0])
    except (OSError, ValueError):
        return ""


UNFINISHED_AFTER = 3600
"""Seconds after which what is unfinished and was not touched counts as left behind."""


def prune(store: Store, keep: int = 1, *, dry_run: bool = False) -> tuple[Path, ...]:
    """Paths removed, or that would be: all but the ``keep`` last used keys of each record and model, and leftovers.

    Leftovers are what a process that is gone was making, and what is kept of weights that are gone: of a GGUF file
    unpacked, and digests. Executed notebooks stay, and so does what a live run holds or touched within the hour. What
    is removed is computed again when it is asked for.

    Raises:
        RemiError: if something cannot be removed, with the number of those that were.
    """
    groups: dict[tuple[object, ...], list[Path]] = {}
    for entry in store.list():
        groups.setdefault(astuple(entry.address)[:-1], []).append(entry.path)  # all but the key
    for folder in store.root.glob(f"{MODELS}/*/[!.]*-*"):
        groups.setdefault((folder.parent, folder.name.rpartition("-")[0]), []).append(folder)
    unpacked = unpacked_files(store)
    for folder, source in unpacked.items():
        groups.setdefault((GGUF, source), []).append(folder)
    old = [path for paths in groups.values() for path in sorted(paths, key=_last_used, reverse=True)[keep:]]
    # Leftover → the lock that a run holds which goes on with it.
    left = {path: "" for path in store.root.glob("*/*/*/*.npz") if not path.with_suffix(".json").is_file()}
    left |= {path: path.name for path in store.root.glob(f"{FINISHED}*")}
    sources = unpacked | {path: _digested(path) for path in store.root.glob(f"{DIGESTS}/*.json")}
    left |= {path: "" for path, source in sources.items() if not source or not Path(source).is_file()}
    left |= {
        path: f"{path.parent.parent.name}-{path.name.removesuffix('.part.ipynb')}"
        for path in store.root.glob(f"*/{NOTEBOOKS}/*.part.ipynb")
    }
    hour_ago = time.time() - UNFINISHED_AFTER
    dead = [path for path, lock in left.items() if path.stat().st_mtime < hour_ago and _is_free(store, lock)]
    dead += [
        path
        for path in store.root.rglob(f".*{files.PART}*")
        if _LEFTOVER.fullmatch(path.name) and files.is_left(path)
    ]
    chosen = tuple(inside(path, store.root) for path in sorted({*old, *dead}))
    for count, path in enumerate(() if dry_run else chosen):
        try:
            for one in (path, path.with_suffix(".json")) if path.suffix == ".npz" else (path,):
                if one.is_dir():
                    shutil.rmtree(one)
                elif one.exists():
                    one.unlink()
        except OSError as error:
            raise RemiError(
                f"{count} of {len(chosen)} removed; {path} cannot be removed: {error.strerror}"
            ) from error
    return chosen


def _is_free(store: Store, lock: str) -> bool:
    """Whether no run holds the lock of that name; one without a name nobody holds."""
    path = store.root / FOLDER / f"{lock}.lock"
    if not path.exists():
        return True
    try:
        with FileLock(path).acquire(blocking=False):
            return True
    except Timeout:
        return False


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
