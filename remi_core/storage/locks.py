"""Locks by name in a folder: what one run makes, another that needs it waits for; the system frees a killed one's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from remi_core.progress import notice
from remi_core.storage.containment import inside
from remi_core.storage.writing import ADVICE

FOLDER = ".locks"


@contextmanager
def locked(root: Path, names: Iterable[str]) -> Iterator[bool]:
    """Whether another process had to be waited for; while the context lasts, none has any of the names.

    Names are taken in one order by all, so that no two wait for each other. Where no lock can be made, as on a disk
    that is full or read-only, there is none: what follows says so when it writes.
    """
    waited = False
    with ExitStack() as held:
        for name in sorted(set(names)):
            try:
                path = inside(root / FOLDER / f"{name}.lock", root)
                path.parent.mkdir(parents=True, exist_ok=True)
                lock = FileLock(path)
                waited |= _taken(held, lock, name)
            except OSError as error:
                if error.errno not in ADVICE:
                    raise
        yield waited


def _taken(held: ExitStack, lock: FileLock, name: str) -> bool:
    """Whether the lock, now ours, was another's before."""
    try:
        held.enter_context(lock.acquire(blocking=False))
        return False
    except Timeout:
        notice(f"waiting for another run that makes {name}")
    held.enter_context(lock.acquire())
    return True
