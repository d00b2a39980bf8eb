"""Written whole or not at all: flushed, renamed, flushed, in this order; a failed write says what to do."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from remi_book.running import moved_whole
from remi_core import files
from remi_core.errors import RemiError
from remi_core.files import flush, written_whole
from remi_core.store import Address, Store

FSYNC, REPLACE = os.fsync, os.replace
ADDRESS = Address("micro", 0, "base", "sequence", "code-careful", "0123456789abcdef")


def write_record(folder: Path) -> None:
    Store(folder).save(ADDRESS, {"total": np.zeros(3)}, {})


def write_file(folder: Path) -> None:
    with written_whole(folder / "one.txt") as part:
        part.write_text("1")


def write_folder(folder: Path) -> None:
    with written_whole(folder / "weights") as part:
        part.mkdir()
        (part / "model.bin").write_text("1")


def move_notebook(folder: Path) -> None:
    (folder / "x.part.ipynb").write_text("{}")
    moved_whole(folder / "x.part.ipynb", folder / "x.ipynb")


WRITERS = (write_record, write_file, write_folder, move_notebook)


def breaches(write: Callable[[Path], None], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a writer does against the order: content flushed, then renamed, then the folder's list flushed."""
    events: list[tuple[str, str, int]] = []

    def fsync(descriptor: int) -> None:
        place = os.readlink(f"/proc/self/fd/{descriptor}")
        events.append(("fsync", place, os.stat(place).st_size))
        FSYNC(descriptor)

    def replace(source: Path, target: Path) -> None:
        events.append(("rename", str(source), os.stat(source).st_size))
        events.append(("to", str(target), 0))
        REPLACE(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write(folder)
    final = [path for path in folder.rglob("*") if path.is_file()]
    found = []
    for path in final:
        # Of a file in a folder that was written whole, the folder is what was renamed.
        own = next((one for one in (path, *path.parents) if ("to", str(one), 0) in events), None)
        if own is None:
            found.append(f"{path.name}: not renamed")
            continue
        at = events.index(("to", str(own), 0))
        source = Path(events[at - 1][1])
        flushed = ("fsync", str(source / path.relative_to(own)), path.stat().st_size)
        if flushed not in events[: at - 1]:
            found.append(f"{path.name}: not flushed before the rename")
        if not any(kind == "fsync" and place == str(own.parent) for kind, place, _ in events[at + 1 :]):
            found.append(f"{path.name}: its folder not flushed after the rename")
    assert final
    return found


@pytest.mark.parametrize("write", WRITERS)
def test_content_is_flushed_before_the_rename_and_the_folder_after(write, tmp_path, monkeypatch) -> None:
    assert breaches(write, tmp_path, monkeypatch) == []


def no_flush(_path: Path, *, deep: bool = True) -> None:
    """A planted bug."""


def no_flush_of_content(path: Path, *, deep: bool = True) -> None:
    """A planted bug."""
    if not deep:
        flush(path, deep=False)


def no_rename(source: Path, target: Path) -> None:
    """A planted bug: the content is written where it is wanted."""
    Path(target).write_bytes(Path(source).read_bytes())


@pytest.mark.parametrize(
    ("name", "bug", "words"),
    [
        ("flush", no_flush, "not flushed before the rename"),
        ("flush", no_flush_of_content, "not flushed before the rename"),
        ("flush", no_flush, "not flushed after the rename"),
        ("os.replace", no_rename, "not renamed"),
    ],
)
def test_a_writer_that_leaves_out_a_step_is_found(tmp_path, monkeypatch, name, bug, words) -> None:
    if name == "flush":
        monkeypatch.setattr(files, "flush", bug)
    else:
        monkeypatch.setattr(files, "os", type("os", (), {**vars(os), "replace": staticmethod(bug)}))
    assert any(words in line for line in breaches(write_file, tmp_path, monkeypatch))


def full(_part: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def broken(_part: Path) -> None:
    raise OSError(errno.EIO, "Input/output error")


def forbidden(_part: Path) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize(
    ("fault", "words"),
    [(full, "make room there"), (broken, "look after the disk"), (forbidden, "make the folder writable")],
)
def test_a_failed_write_is_one_line_and_leaves_what_was_there(tmp_path, fault, words) -> None:
    target = tmp_path / "one.txt"
    target.write_text("before")
    with pytest.raises(RemiError, match=rf"one\.txt cannot be written .*{words}.*; what is finished is kept"):
        with written_whole(target) as part:
            part.write_text("half")
            fault(part)
    assert target.read_text() == "before" and [path.name for path in tmp_path.iterdir()] == ["one.txt"]


def tensors(part: Path) -> None:
    save_file({"one": torch.zeros(3000)}, part)


def state(part: Path) -> None:
    torch.save({"one": torch.zeros(3000)}, part)


def arrays(part: Path) -> None:
    np.save(part, np.zeros(3000), allow_pickle=False)


@pytest.mark.parametrize("write", [tensors, state, arrays])
def test_libraries_that_write_by_themselves_are_understood(tmp_path, write) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(RemiError, match="cannot be written .*make room there"):
            with written_whole(tmp_path / "one.npy") as part:
                write(part)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.iterdir()) == []


def test_another_failure_keeps_its_own_words(tmp_path) -> None:
    with pytest.raises(ZeroDivisionError), written_whole(tmp_path / "one"):
        1 / 0  # noqa: B018


def test_a_folder_that_cannot_be_made_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError), written_whole(tmp_path / "file" / "one"):
        pass
