"""A folder in the store for what is being measured, gone at the end; what a killed process left goes at the next."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".scratch-"
LOCK = ".lock"


@contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """An empty folder under ``root`` while the context lasts; those whose process is gone are removed first.

    It lies beside what will be kept, since a system's own temporary folder is often small, or main memory.
    """
    root.mkdir(parents=True, exist_ok=True)
    remove_left(root)
    # The lock is held before the folder exists, and the system lets go of it with the process.
    number, name = tempfile.mkstemp(dir=root, prefix=PREFIX, suffix=LOCK)
    folder = Path(name).with_suffix("")
    with os.fdopen(number, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
            Path(name).unlink(missing_ok=True)


def remove_left(root: Path) -> None:
    """Return once every folder of a process that no longer runs is removed."""
    for lock in root.glob(f"{PREFIX}*{LOCK}"):
        with lock.open("a") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
