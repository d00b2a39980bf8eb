"""Two runs on one store: the second waits for the first and shares what it made; a killed one blocks nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from remi_core.store import FOLDER, Store, locked
from remi_lab.upkeep import FILES, is_whole, made_once

OBTAIN = """
import sys, time
from pathlib import Path
import numpy as np
from remi_core.store import Address, Store
store, log = Store(Path(sys.argv[1])), Path(sys.argv[2])
def compute():
    with log.open("a") as stream: stream.write("computed\\n")
    time.sleep(1)
    return {"total": np.arange(3)}, {}
record = store.obtain(Address("smoke", 0, "base", "sequence", "general", "0123456789abcdef"), compute)
print(record.arrays["total"].tolist())
"""
HOLD = """
import sys, time
from pathlib import Path
from remi_core.store import locked
with locked(Path(sys.argv[1]), ["one"]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_runs_at_once_measure_a_record_once(tmp_path) -> None:
    words = [sys.executable, "-c", OBTAIN, str(tmp_path / "store"), str(tmp_path / "log")]
    runs = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [run.communicate()[0] for run in runs] == ["[0, 1, 2]\n"] * 2
    assert (tmp_path / "log").read_text() == "computed\n"


def test_a_lock_of_a_killed_run_blocks_nobody(tmp_path, capsys) -> None:
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "held\n"
        os.kill(run.pid, signal.SIGKILL)
    with locked(tmp_path, ["one"]) as waited:
        assert not waited
    assert (tmp_path / FOLDER / "one.lock").is_file() and capsys.readouterr().err == ""


def test_who_waits_says_so_and_knows_it(tmp_path, capsys) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD.replace("600", "1"), str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout.readline() == "held\n"
        with locked(tmp_path, ["two", "one"]) as waited:
            assert waited
    assert capsys.readouterr().err == "remi: waiting for another run that makes one\n"


def test_where_no_lock_can_be_made_work_goes_on(tmp_path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("filelock._unix.os.open", refuse)
    with locked(tmp_path, ["one"]) as waited:
        assert not waited


def make(store: Store, target: Path) -> bool:
    """Whether the folder of weights had to be made."""
    with made_once(store, target) as part:
        if part is not None:
            part.mkdir()
            (part / "model.safetensors").write_bytes(b"weights")
        return part is not None


def test_a_folder_of_weights_is_made_once_and_again_where_it_is_damaged(tmp_path, capsys) -> None:
    store, target = Store(tmp_path), tmp_path / "models" / "0" / "secure-aaaaaaaa"
    assert [make(store, target), make(store, target)] == [True, False]
    (target / "model.safetensors").write_bytes(b"Weights")
    with pytest.raises(Exception, match="'model.safetensors' is changed .*refused with --frozen"):
        is_whole(Store(tmp_path, frozen=True), target)
    assert make(store, target) and is_whole(store, target)
    (target / FILES).unlink()
    assert make(store, target) and not make(store, target)
    (target / "model.safetensors").unlink()
    assert make(store, target)
    assert capsys.readouterr().err.count("made again") >= 3
