"""Written whole or not at all: flushed, renamed, flushed, in this order; a failed write says what to do."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import types
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


def breaches(write: Callable[[Path], None], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a writer does against the order: content flushed, then renamed, then the folder's list flushed."""
    events: list[tuple] = []

    def fsync(descriptor: int) -> None:
        place = Path(f"/proc/self/fd/{descriptor}").resolve()
        events.append(("fsync", str(place), str(place.stat().st_size)))
        FSYNC(descriptor)

    def replace(source: Path, target: Path) -> None:
        events.append(("rename", Path(source), str(target)))
        REPLACE(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write(folder)
    found, renames = [], {event[2]: place for place, event in enumerate(events) if event[0] == "rename"}
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        # Of a file in a folder that was written whole, the folder is what was renamed.
        own = next((one for one in (path, *path.parents) if str(one) in renames), None)
        if own is None:
            found.append("not renamed")
            continue
        at = renames[str(own)]
        flushed = ("fsync", str(events[at][1] / path.relative_to(own)), str(path.stat().st_size))
        if flushed not in events[:at]:
            found.append("not flushed before the rename")
        if not any(event[:2] == ("fsync", str(own.parent)) for event in events[at + 1 :]):
            found.append("folder not flushed after the rename")
    return found if renames or found else ["nothing written"]


@pytest.mark.parametrize("write", [write_record, write_file, write_folder, move_notebook])
def test_content_is_flushed_before_the_rename_and_the_folder_after(write, tmp_path, monkeypatch) -> None:
    assert breaches(write, tmp_path, monkeypatch) == []


def test_a_writer_that_leaves_out_a_step_is_found(tmp_path, monkeypatch) -> None:
    before, after = "not flushed before the rename", "folder not flushed after the rename"
    monkeypatch.setattr(files, "flush", lambda path, *, deep=True: None)
    assert breaches(write_file, tmp_path, monkeypatch) == [before, after]
    monkeypatch.setattr(files, "flush", lambda path, *, deep=True: None if deep else flush(path, deep=False))
    assert breaches(write_file, tmp_path, monkeypatch) == [before]
    (tmp_path / "one.txt").unlink()
    monkeypatch.setattr(files, "os", types.SimpleNamespace(**{**vars(os), "replace": shutil.copyfile}))
    assert breaches(write_file, tmp_path, monkeypatch) == ["not renamed"]


ADVICE = {"ENOSPC": "make room there", "EIO": "look after the disk", "EACCES": "make the folder writable"}


@pytest.mark.parametrize("code", ADVICE)
def test_a_failed_write_is_one_line_and_leaves_what_was_there(tmp_path, code) -> None:
    target = tmp_path / "one.txt"
    target.write_text("before")
    message = rf"one\.txt cannot be written .*{ADVICE[code]}.*; what is finished is kept"
    with pytest.raises(RemiError, match=message), written_whole(target) as part:
        part.write_text("half")
        raise OSError(getattr(errno, code), "it failed")
    # Another failure keeps its own words.
    with pytest.raises(ZeroDivisionError), written_whole(target):
        1 / 0  # noqa: B018
    with pytest.raises(FileExistsError), written_whole(target / "one"):
        pass
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
        refused = pytest.raises(RemiError, match="cannot be written .*make room there")
        with refused, written_whole(tmp_path / "one.npy") as part:
            LIBRARIES[library](part)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.iterdir()) == []
