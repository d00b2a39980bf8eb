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


BUGS = {
    "no flush": lambda _path, *, deep=True: None,
    "no flush of content": lambda path, *, deep=True: None if deep else flush(path, deep=False),
    "no rename": lambda source, target: Path(target).write_bytes(Path(source).read_bytes()),
}


@pytest.mark.parametrize(
    ("bug", "words"),
    [
        ("no flush", "not flushed before the rename"),
        ("no flush of content", "not flushed before the rename"),
        ("no flush", "not flushed after the rename"),
        ("no rename", "not renamed"),
    ],
)
def test_a_writer_that_leaves_out_a_step_is_found(tmp_path, monkeypatch, bug, words) -> None:
    if bug == "no rename":
        monkeypatch.setattr(files, "os", type("os", (), {**vars(os), "replace": staticmethod(BUGS[bug])}))
    else:
        monkeypatch.setattr(files, "flush", BUGS[bug])
    assert any(words in line for line in breaches(write_file, tmp_path, monkeypatch))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "make room there"),
        (OSError(errno.EIO, "Input/output error"), "look after the disk"),
        (PermissionError(errno.EACCES, "Permission denied"), "make the folder writable"),
    ],
)
def test_a_failed_write_is_one_line_and_leaves_what_was_there(tmp_path, fault, words) -> None:
    target = tmp_path / "one.txt"
    target.write_text("before")
    with pytest.raises(RemiError, match=rf"one\.txt cannot be written .*{words}.*; what is finished is kept"):
        with written_whole(target) as part:
            part.write_text("half")
            raise fault
    assert target.read_text() == "before" and [path.name for path in tmp_path.iterdir()] == ["one.txt"]


LIBRARIES = {
    "safetensors": lambda part: save_file({"one": torch.zeros(3000)}, part),
    "torch": lambda part: torch.save({"one": torch.zeros(3000)}, part),
    "numpy": lambda part: np.save(part, np.zeros(3000), allow_pickle=False),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_that_write_by_themselves_are_understood(tmp_path, library) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(RemiError, match="cannot be written .*make room there"):
            with written_whole(tmp_path / "one.npy") as part:
                LIBRARIES[library](part)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.iterdir()) == []


def test_another_failure_keeps_its_own_words(tmp_path) -> None:
    with pytest.raises(ZeroDivisionError), written_whole(tmp_path / "one"):
        1 / 0  # noqa: B018
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError), written_whole(tmp_path / "file" / "one"):
        pass
