"""Archives of arrays as ``numpy.savez`` writes them, without holding a large array in memory; no pickles."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BufferedIOBase, FileIO
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np

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
        """Return once the rows before these are written; these are, beside whatever the caller does next.

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
    """Return once the arrays lie in a new archive; one that is mapped whole from a file is copied in small pieces.

    Raises:
        ValueError: if an array holds objects.
    """
    with ZipFile(path, "w", ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                if isinstance(array, np.memmap) and _is_whole(array):
                    _copy(array, member)
                else:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def _is_whole(array: np.memmap) -> bool:
    """Whether the array is all that follows ``offset`` in its file, not a part of it or a copy."""
    size = array.filename is not None and Path(array.filename).stat().st_size - array.offset
    return array.flags.c_contiguous and size == array.nbytes


def _copy(array: np.memmap, member: BufferedIOBase) -> None:
    np.lib.format.write_array_header_1_0(member, np.lib.format.header_data_from_array_1_0(array))
    with open(array.filename, "rb") as source:
        source.seek(array.offset)
        shutil.copyfileobj(source, member, _COPIED_AT_ONCE)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read-only arrays by name; those of ``MAPPED_FROM`` bytes or more are read from the disk as they are used.

    Only of the others the checksum is compared.

    Raises:
        OSError: if there is no such file.
        ValueError: if it is no archive of arrays as ``write_npz`` writes them.
    """
    try:
        return _read(path)
    except OSError:
        raise
    except Exception as error:  # of a damaged archive zipfile, zlib and numpy raise nearly anything
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _read(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    with ZipFile(path) as archive, np.load(path, allow_pickle=False) as stored:
        for member in archive.infolist():
            if member.compress_type != ZIP_STORED:
                raise ValueError(f"{member.filename} is compressed, which no record is")
            name = member.filename.removesuffix(".npy")
            large = member.file_size >= MAPPED_FROM
            arrays[name] = _mapped(path, member) if large else stored[name]
            arrays[name].setflags(write=False)
    return arrays


def _mapped(path: Path, member: ZipInfo) -> np.ndarray:
    with path.open("rb") as stream:
        stream.seek(member.header_offset)
        header = stream.read(_LOCAL_HEADER)
        lengths = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        stream.seek(member.header_offset + _LOCAL_HEADER + sum(lengths))
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError(f"{member.filename} is of an unknown format")
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(stream)
        if dtype.hasobject:
            raise ValueError(f"{member.filename} holds objects, which only a pickle could bring back")
        order = "F" if by_column else "C"
        return np.memmap(path, dtype, "r", offset=stream.tell(), shape=shape, order=order).view(np.ndarray)
