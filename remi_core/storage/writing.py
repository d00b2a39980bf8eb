"""Files and folders that appear whole or not at all, also where the process is killed or the power fails."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from remi_core.errors import RemiError

PART = ".part-"
"""What the name of a folder holds in which something is being made."""

_ROOM, _RIGHT, _DISK = "make room there", "make the folder writable, or name another", "look after the disk"
ADVICE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EACCES: _RIGHT,
    errno.EPERM: _RIGHT,
    errno.EROFS: _RIGHT,
    errno.EIO: _DISK,
}
"""Error of the system → what to do about it."""

_FOREIGN = re.compile(
    r"\(os error (\d+)\)|PytorchStreamWriter failed|iostream error|unexpected pos \d+|requested and \d+ written"
)
"""How libraries that write by themselves name a failed write: with the system's number, or without."""


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A path that does not exist yet; what is made there (file or folder) is flushed and renamed to ``target``.

    On an exception nothing appears at ``target``, and what was there stays.

    Raises:
        RemiError: if the disk is full, the folder read-only or the disk broken; says what to do.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made_in = {"dir": target.parent, "prefix": f".{target.name}{PART}"}
        with tempfile.TemporaryDirectory(**made_in, ignore_cleanup_errors=True) as folder:
            part = Path(folder) / target.name
            yield part
            flush(part)
            if part.is_dir() and target.exists():
                os.replace(target, Path(folder) / "replaced")  # a folder cannot be renamed onto a full one
            os.replace(part, target)
            flush(target.parent, deep=False)
    except Exception as error:
        reason = refused(error)
        if reason is None:
            raise
        raise RemiError(f"{target} cannot be written ({reason}; what is finished is kept)") from error


def moved_whole(part: Path, target: Path) -> None:
    """Return once a file that is finished lies at ``target`` and not at ``part``, flushed before and after."""
    flush(part)
    os.replace(part, target)
    flush(target.parent, deep=False)


def flush(path: Path, *, deep: bool = True) -> None:
    """Return once a file, or a folder with all that is in it (``deep``) or its own list alone, is on the disk."""
    inside = sorted(path.rglob("*")) if deep and path.is_dir() else []
    for one in (*reversed(inside), path):
        if one.is_symlink():
            continue
        descriptor = os.open(one, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some systems of shared disks have no such call for folders.
            if error.errno != errno.EINVAL or not one.is_dir():
                raise
        finally:
            os.close(descriptor)


def refused(error: BaseException) -> str | None:
    """Why a write failed and what to do about it, if it is the disk's or the folder's doing; else None."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        found = _FOREIGN.search(str(error))
        if found is None:
            return None
        number = int(found[1]) if found[1] else errno.ENOSPC
    return f"{os.strerror(number)}: {ADVICE[number]}" if number in ADVICE else None


def touched(path: Path) -> None:
    """Return once the file counts as used now, where that may be written down at all."""
    with suppress(OSError):
        path.touch()
