"""Files that appear whole or not at all, are sealed by a digest, and hold no pickles."""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Generic, TypeVar
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from remi_core.errors import RemiError, brief
from remi_core.keys import canonical_json, file_digest, text_digest
from remi_core.progress import notice

# Archives of arrays as ``numpy.savez`` writes them, without holding a large array in memory; no pickles.

MAPPED_FROM = 1 << 24
"""Bytes from which an array stays on disk when it is read: 16 MB. A map costs an open file, so small ones get none."""

_COPIED_AT_ONCE = 1 << 20
_LOCAL_HEADER = 30
"""Bytes of a zip member's own header before its name, whose lengths stand at 26 and 28."""


class RowFile:
    """Rows of one shape and type on disk, written in any order, in a ``.npy`` file; none of them stays in memory."""

    def __init__(self, path: Path, n_rows: int) -> None:
        self._path = path
        self._n_rows = n_rows
        self._stream: FileIO | None = None
        self._start = 0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="rows")
        self._last: Future[None] | None = None

    def write(self, indices: Sequence[int], rows: np.ndarray) -> None:
        """Wait until the rows before these are written; write these beside whatever the caller does next.

        The first ones set shape and type. What goes wrong is raised by the next call, or by ``finish``.
        """
        self._wait()
        self._last = self._writer.submit(self._write, indices, np.ascontiguousarray(rows))

    def _wait(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def _write(self, indices: Sequence[int], rows: np.ndarray) -> None:
        if self._stream is None:
            shape = (self._n_rows, *rows.shape[1:])
            empty = np.lib.format.open_memmap(self._path, mode="w+", dtype=rows.dtype, shape=shape)
            self._start = empty.offset
            del empty
            self._stream = self._path.open("r+b", buffering=0)
        for index, row in zip(indices, rows, strict=True):
            # Written, not mapped: pages of a map would count as this process's memory.
            written = os.pwrite(self._stream.fileno(), row, self._start + index * row.nbytes)
            if written < row.nbytes:
                raise OSError(
                    f"{self._path}: {written} of {row.nbytes} bytes of row {index} written; is the disk full?"
                )

    def finish(self) -> np.memmap:
        """All rows, read-only, as long as the file is there.

        Raises:
            OSError: if the last rows could not be written.
        """
        try:
            self._wait()
        finally:
            self._writer.shutdown()
        self._stream.close()
        return np.load(self._path, mmap_mode="r", allow_pickle=False)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the arrays to a new archive; one that is mapped whole from a file is copied in small pieces.

    Raises:
        ValueError: if an array holds objects.
    """
    with ZipFile(path, "w", ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                file = array.filename if isinstance(array, np.memmap) else None
                after = Path(file).stat().st_size - array.offset if file is not None else -1
                # Not a part of what is in the file, or a copy of it.
                if after == array.nbytes and array.flags.c_contiguous:
                    np.lib.format.write_array_header_1_0(
                        member, np.lib.format.header_data_from_array_1_0(array)
                    )
                    with open(file, "rb") as source:
                        source.seek(array.offset)
                        shutil.copyfileobj(source, member, _COPIED_AT_ONCE)
                else:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read-only arrays by name; those of ``MAPPED_FROM`` bytes or more are read from the disk as they are used.

    Only of the others the checksum is compared.

    Raises:
        OSError: if there is no such file.
        ValueError: if it is no archive of arrays as ``write_npz`` writes them.
    """
    arrays = {}
    try:
        with ZipFile(path) as archive, np.load(path, allow_pickle=False) as stored:
            for member in archive.infolist():
                if member.compress_type != ZIP_STORED:
                    raise ValueError(f"{member.filename} is compressed, which no record is")
                name = member.filename.removesuffix(".npy")
                large = member.file_size >= MAPPED_FROM
                arrays[name] = _mapped(path, member) if large else stored[name]
                arrays[name].setflags(write=False)
    except OSError:
        raise
    except Exception as error:  # of a damaged archive zipfile, zlib and numpy raise nearly anything
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return arrays


def _mapped(path: Path, member: ZipInfo) -> np.ndarray:
    with path.open("rb") as stream:
        stream.seek(member.header_offset)
        header = stream.read(_LOCAL_HEADER)
        lengths = (int.from_bytes(header[start : start + 2], "little") for start in (26, 28))
        stream.seek(member.header_offset + _LOCAL_HEADER + sum(lengths))
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError(f"{member.filename} is of an unknown format")
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(stream)
        if dtype.hasobject:
            raise ValueError(f"{member.filename} holds objects, which only a pickle could bring back")
        order = "F" if by_column else "C"
        return np.memmap(path, dtype, "r", offset=stream.tell(), shape=shape, order=order).view(np.ndarray)


# A folder in the store for what is being measured, gone at the end; what a killed process left goes at the next.

PREFIX = ".scratch-"
LOCK = ".lock"


@contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """An empty folder under ``root`` while the context lasts; those whose process is gone are removed first.

    It lies beside what will be kept, since a system's own temporary folder is often small, or main memory.
    """
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(f"{PREFIX}*{LOCK}"):
        with left.open("a") as held:
            # Held by a process that lives, or on a file system without locks, where nobody can tell.
            with suppress(OSError):
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left.with_suffix(""), ignore_errors=True)
                left.unlink(missing_ok=True)
    # The lock is held before the folder exists, and the system lets go of it with the process.
    number, name = tempfile.mkstemp(dir=root, prefix=PREFIX, suffix=LOCK)
    folder = Path(name).with_suffix("")
    with os.fdopen(number, "w") as lock:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
            Path(name).unlink(missing_ok=True)


# Files and folders that appear whole or not at all, also where the process is killed or the power fails.

PART = ".part-"
"""What the name of a folder holds in which something is being made."""

ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room there"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make the folder writable, or name another"),
    errno.EIO: "look after the disk",
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
        for left in target.parent.glob(f".{glob.escape(target.name)}{PART}*"):
            if is_left(left):
                shutil.rmtree(left, ignore_errors=True)
        made_in = {"dir": target.parent, "prefix": f".{target.name}{PART}"}
        with (
            tempfile.TemporaryDirectory(**made_in, ignore_cleanup_errors=True) as folder,
            _opened(Path(folder)) as held,
        ):
            # Others see by it that a process works here; the system lets go of it with the process.
            with suppress(OSError):
                fcntl.flock(held, fcntl.LOCK_SH)
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


LEFT_AFTER = 60
"""Seconds after which a folder that nobody holds is not one that was just made."""
_UNLOCKED_AFTER = 24 * 3600
"""The same, of the last change in it, where the file system has no locks to ask."""


def is_left(part: Path) -> bool:
    """Whether a folder of ``written_whole`` was left behind by a process that is gone."""
    try:
        age = time.time() - part.stat().st_mtime
        with _opened(part) as folder:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        return False  # held, or its owner has just finished
    except OSError:
        return age > _UNLOCKED_AFTER
    return age > LEFT_AFTER


@contextmanager
def _opened(place: Path) -> Iterator[int]:
    number = os.open(place, os.O_RDONLY)
    try:
        yield number
    finally:
        os.close(number)


def flush(path: Path, *, deep: bool = True) -> None:
    """Put a file, or a folder with all that is in it (``deep``) or its own list alone, on the disk."""
    inside = sorted(path.rglob("*")) if deep and path.is_dir() else []
    for place in (*reversed(inside), path):
        if place.is_symlink():
            continue
        with _opened(place) as number:
            try:
                os.fsync(number)
            except OSError as error:
                # Some systems of shared disks have no such call for folders.
                if error.errno != errno.EINVAL or not place.is_dir():
                    raise


def refused(error: BaseException) -> str | None:
    """Why a write failed and what to do about it, if it is the disk's or the folder's doing; else None."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        named = _FOREIGN.search(str(error))
        if named is None:
            return None
        number = int(named[1]) if named[1] else errno.ENOSPC
    return f"{os.strerror(number)}: {ADVICE[number]}" if number in ADVICE else None


def touched(path: Path) -> None:
    """Mark the file as used now, where that may be written down at all."""
    with suppress(OSError):
        path.touch()


# Files that tell when they are not what was written: JSON with its own digest and that of the file beside it.

FORMAT = 2
"""Raised where files of an earlier version must not be read any more; the first had no digests."""

SEAL = "seal"


class Damaged(ValueError):
    """What is wrong with a file, in words: cut short, changed, or of another version."""


class Foreign(Damaged):
    """The file is of another version of this package."""


def sealed_text(content: Mapping[str, object]) -> str:
    """The content as JSON, with the version of the format and the digest of all of it."""
    # As it will be read: keys are text then, and what is no list becomes one.
    plain = json.loads(json.dumps({"format": FORMAT, **content}))
    return json.dumps({**plain, SEAL: _digest(plain)}, indent=1) + "\n"


def write_sealed(path: Path, content: Mapping[str, object]) -> None:
    """Write the content to ``path``, whole and sealed."""
    with written_whole(path) as part:
        part.write_text(sealed_text(content), encoding="utf-8")


def read_sealed(path: Path) -> dict[str, object]:
    """The content of a sealed file, without the seal.

    Raises:
        Damaged: if it is not what was written, or of another version.
        OSError: if it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise Damaged("not JSON any more (too deep)") from None
    except ValueError as error:
        raise Damaged(f"not JSON any more ({error})") from None
    if not isinstance(content, dict):
        raise Damaged("not what was written")
    seal = content.pop(SEAL, None)
    whole = seal == _digest(content)
    if content.get("format") != FORMAT and (seal is None or whole):
        raise Foreign(f"of format {brief(content.get('format', 1))}, not {FORMAT}")
    if not whole:
        raise Damaged("changed since it was written")
    del content["format"]
    return content


def check_file(path: Path, digest: object) -> None:
    """Check that the file has this digest; it is read once a process while size and time of change stay.

    Raises:
        Damaged: if it has not, or is missing.
    """
    if not path.is_file():
        raise Damaged("missing")
    if file_digest(path) != digest:
        raise Damaged("changed or cut short since it was written")


def repaired(path: Path, error: Exception, *, frozen: bool) -> str:
    """The line that says what is wrong with a file and that it is made again.

    Raises:
        RemiError: with what is wrong, if nothing may be made again.
    """
    if frozen:
        raise RemiError(f"{path}: {error}; refused with --frozen: without it, it is made again") from None
    return f"{path}: {error}: made again"


def _digest(content: Mapping[str, object]) -> str:
    try:
        return text_digest(canonical_json(content))
    except ValueError:
        return text_digest(json.dumps(content, sort_keys=True))  # a provenance may hold what is not finite


# Batches of a long pass that are finished, kept on disk until the pass has ended: a killed one goes on behind them.

Part = TypeVar("Part")

EVERY = 10.0
"""Seconds of measuring after which what was finished is written: a pass that takes less writes nothing."""

MOST_BYTES = 1 << 26
"""Bytes that wait to be written at most: 64 MB, so that a pass does not fill the memory with them."""


class FinishedBatches(Generic[Part]):
    """What was measured of each batch, in the order in which it was measured, in a folder of one pass.

    ``spell`` gives a batch's part as arrays, ``read`` takes it from them; what comes back is equal bit by bit.
    """

    def __init__(
        self,
        folder: Path,
        *,
        spell: Callable[[Part], Mapping[str, np.ndarray]],
        read: Callable[[Mapping[str, np.ndarray]], Part],
    ) -> None:
        self._folder, self._spell, self._read = folder, spell, read
        self._waiting: list[tuple[Sequence[int], Mapping[str, np.ndarray]]] = []
        self._n_files = 0
        self._began = self._written = time.monotonic()
        self.seconds = 0.0
        """Time that went into the batches of the runs before."""

    def restored(self) -> Iterator[tuple[list[int], Part, int]]:
        """Dialogues, part, and size that batches were cut to, of each batch finished before; the first file that is
        damaged is named, and what follows it is measured again."""
        while (about := self._folder / f"{self._n_files:05d}.json").is_file():
            try:
                content = read_sealed(about)
                path = about.with_name(str(content["file"]))
                check_file(path, content["sha256"])
                arrays = read_npz(path)
            except (OSError, Damaged) as error:
                notice(f"{about}: {error}: measured again from here on")
                return
            self._n_files += 1
            self.seconds = float(content["seconds"])
            for number, group in enumerate(content["groups"]):
                prefix = f"{number}/"
                part = {
                    name.removeprefix(prefix): value
                    for name, value in arrays.items()
                    if name.startswith(prefix)
                }
                yield group, self._read(part), int(content["ran"])

    def add(self, group: Sequence[int], part: Part, *, ran: int) -> None:
        """Keep a batch, on disk if the last writing is some seconds ago; ``ran`` is the budget now."""
        self._waiting.append((list(group), dict(self._spell(part))))
        n_bytes = sum(array.nbytes for _, arrays in self._waiting for array in arrays.values())
        if time.monotonic() - self._written < EVERY and n_bytes <= MOST_BYTES:
            return
        path = self._folder / f"{self._n_files:05d}.npz"
        arrays = {
            f"{number}/{name}": value
            for number, (_, part) in enumerate(self._waiting)
            for name, value in part.items()
        }
        with written_whole(path) as whole:
            write_npz(whole, arrays)
            digest = file_digest(whole)
        content = {"file": path.name, "sha256": digest, "groups": [group for group, _ in self._waiting]}
        self._written = time.monotonic()
        seconds = self.seconds + self._written - self._began
        write_sealed(path.with_suffix(".json"), {**content, "ran": ran, "seconds": round(seconds, 3)})
        self._waiting, self._n_files = [], self._n_files + 1
