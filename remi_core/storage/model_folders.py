"""Folders of weights that the package makes in the store: whole, listed with digests, made again where damaged."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from remi_core.errors import RemiError, brief
from remi_core.fingerprint import file_digest
from remi_core.progress import notice
from remi_core.storage.containment import inside
from remi_core.storage.locks import locked
from remi_core.storage.seals import Damaged, check_file, read_sealed, repaired, sealed_text
from remi_core.storage.store import Store
from remi_core.storage.writing import touched, written_whole

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
        with written_whole(target) as part:
            yield part
            write_list(part, sorted(one.name for one in part.iterdir() if one.is_file()))


def write_list(folder: Path, names: Iterable[str]) -> None:
    """Return once the folder's list of these files, with their digests, lies in it."""
    digests = {name: file_digest(folder / name) for name in names}
    (folder / FILES).write_text(sealed_text({"files": digests}), encoding="utf-8")


def is_whole(store: Store, target: Path) -> bool:
    """Whether the folder is there with every file as it was written; a line names one that is not.

    Raises:
        RemiError: if it is not and the store is frozen.
    """
    if not target.is_dir():
        return False
    try:
        check_folder(target)
    except (OSError, Damaged) as error:
        notice(repaired(target, error, frozen=store.frozen))
        return False
    touched(target / FILES)
    return True


def check_folder(folder: Path) -> None:
    """Nothing, if every file that the folder's list names is as it was written.

    Raises:
        Damaged: naming the first that is not; also where there is no list.
    """
    if not (folder / FILES).is_file():
        raise Damaged(f"without {FILES}, so of an earlier version or never finished")
    listed = read_sealed(folder / FILES).get("files")
    if not isinstance(listed, dict):
        raise Damaged(f"without files in its {FILES}")
    for name, digest in listed.items():
        try:
            check_file(inside(folder / name, folder), digest)
        except RemiError:
            raise Damaged(f"{brief(name)} leads out of it") from None
        except Damaged as error:
            raise Damaged(f"{brief(name)} is {error}") from None
