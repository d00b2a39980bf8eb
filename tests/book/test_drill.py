"""The quick half of the drills: what breaks is survived, a planted bug is found, and nothing outlives the command."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from conftest import PROGRAMS, python
from warm_kernel import write_notebook

from remi_core.errors import RemiError, UsageError
from remi_core.store import Store
from remi_lab.presets import read_preset
from remi_lab.processes import peak_bytes, watched_children
from remi_lab.upkeep import damages
from tests.drill import __main__ as drill_command
from tests.drill import disk, kills
from tests.drill.disk import drill_flips, drill_full
from tests.drill.kills import Victim, drill_kills, run_through, small_run
from tests.drill.rows import Row
from tests.drill.work import work

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc is read")


def disk_rows(folder: Path, *, before: str = "", **given: object) -> list[Row]:
    """Rows of the drill of the disk in a process of its own, which it leaves broken."""
    found = python("-c", before + PROGRAMS["drill of the disk"], str(folder), json.dumps(given)).stdout
    return [Row(**row) for row in json.loads(found)]


@LINUX
def test_a_disk_that_fails_at_any_step_loses_nothing_finished(tmp_path) -> None:
    rows = disk_rows(tmp_path, every=8)
    assert [row.drill.split()[1] for row in rows] == ["ENOSPC", "EIO", "EACCES", "kill"]
    for row in rows:
        assert row.failures == [] and row.held == row.tried > 10


@LINUX
def test_writing_in_place_is_found_by_kills(tmp_path) -> None:
    (row,) = disk_rows(tmp_path, before=PROGRAMS["in place"], faults=["kill -9"], every=4)
    assert row.held < row.tried and any("not JSON any more" in failure for failure in row.failures)


def test_killed_runs_are_gone_on_with_to_the_same_end(tmp_path) -> None:
    row = drill_kills(small_run(), tmp_path, count=2)
    assert (row.tried, row.held, row.failures) == (2, 2, [])


ADDS = "import sys, time; time.sleep(0.2); open(sys.argv[1], 'a').write('x'); time.sleep(0.3)"


def victim(code: str) -> Victim:
    return Victim(
        name="victim",
        words=lambda root: ["-c", code, root / "one"],
        state=lambda root: {"one": (root / "one").read_text()},
    )


def test_a_run_that_does_anew_what_it_had_done_or_fails_is_found(tmp_path) -> None:
    row = drill_kills(victim(ADDS), tmp_path, count=3, seed=1)
    assert row.tried == 3 and row.held < 3 and "differ, first one" in row.failures[0]
    with pytest.raises(RemiError, match="(?s)victim failed: .*ZeroDivisionError"):
        run_through(victim("1 / 0"), tmp_path)


ENDS = """
import os, pathlib, signal, subprocess, sys, time
def end(*_):
    {}
    os.write(2, b"remi: interrupted; what is finished is kept; to go on: again\\n")
    os._exit(130)
signal.signal(signal.SIGTERM, end)
one = pathlib.Path(sys.argv[1])
time.sleep(1.5)
one.write_text("x")
"""
WRONG = {
    "": "",
    "os.write(2, b'and another\\n')": "ended with 130 and 2 lines",
    "subprocess.Popen(['sleep', '9'], stderr=subprocess.DEVNULL)": "left behind: process sleep 9",
    "pathlib.Path(os.environ['TMPDIR'], 'left').touch()": "left behind: .*left",
    "one.with_name('two').touch()": "differ, first two",
}


@LINUX
@pytest.mark.parametrize("last", WRONG)
def test_a_command_that_is_asked_to_end_and_does_more_or_less_is_found(last, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(kills, "PATIENCE", 0.3)
    monkeypatch.setattr(kills, "LISTENS", 0.6)
    asked = replace(
        victim(ENDS.format(last or "pass")), state=lambda root: dict.fromkeys(map(str, os.listdir(root)), "")
    )
    for attempt in map(str, range(3)):  # on a busy machine it may be met before it listens, or have ended
        (tmp_path / attempt).mkdir()
        row = drill_kills(asked, tmp_path / attempt, count=1, by=("SIGTERM",))
        if row.tried and "ended with -15" not in "".join(row.failures):
            break
    assert row.tried == 1 and (re.search(WRONG[last], row.failures[0]) if last else row.held)


FILLS = """
import os, pathlib, subprocess, sys
root = pathlib.Path(sys.argv[1]).parent
try:
    for number in range(5):
        (root / f"{number}").write_text("x")
    subprocess.run([sys.executable, "-c", f"open({str(root / 'last')!r}, 'w').write('x')"], check=True, stderr=-3)
except (OSError, subprocess.CalledProcessError) as error:
    sys.exit(f"remi: {error}{WHAT}")
"""


@LINUX
def test_a_full_disk_is_met_by_all_processes_and_advice_that_lacks_is_found(tmp_path) -> None:
    for name, what, held in (("says", "; make room there", 3), ("says nothing", "", 0)):
        code = FILLS.replace("{WHAT}", what)
        fills = replace(victim(code), state=lambda root: dict.fromkeys(map(str, os.listdir(root)), ""))
        (tmp_path / name).mkdir()
        row = drill_full(fills, tmp_path / name, count=3)
        assert (row.tried, row.held) == (3, held) and row.note == "12 steps of writing"


def test_flipped_bits_are_found(tmp_path, monkeypatch) -> None:
    root = tmp_path / "store"
    work(root, said=lambda line: None)
    (root / "drill" / "logs").mkdir()
    (root / "drill" / "logs" / "one.jsonl").write_text('{"event": "run"}\n')
    assert damages(root) == []
    row = drill_flips(root, count=40)
    assert row.failures == [] and row.held == row.tried == 40 and 0 < row.harmless < 20
    assert damages(root) == []  # every bit was turned back
    monkeypatch.setattr("remi_core.files.file_digest", lambda path: "0")
    monkeypatch.setattr(disk, "damages", lambda root: [])
    assert drill_flips(root, count=20).held < 20


def test_a_store_is_checked_by_the_command(tmp_path, capsys) -> None:
    from remi_book.cli import main

    work(tmp_path, said=lambda line: None)
    assert main(["store", "check", "--store", str(tmp_path)]) == 0
    (tmp_path / "drill" / "preset.json").write_text("{}")
    assert main(["store", "check", "--store", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines()[-2] == "drill/preset.json: of format 1, not 2"
    with pytest.raises(UsageError, match="is no preset: of format 1"):
        read_preset(Store(tmp_path).saved_presets()["drill"])


@contextmanager
def running(tmp_path: Path) -> Iterator[tuple[subprocess.Popen, list[psutil.Process]]]:
    """A run whose notebook sleeps, and the processes that it has started."""
    log, script = tmp_path / "kernel", tmp_path / "run.py"
    write_notebook(tmp_path / "notebooks" / "01_sleeps.ipynb", [PROGRAMS["sleeps"].format(log=str(log))])
    script.write_text(
        PROGRAMS["run"].format(folder=str(tmp_path / "notebooks"), store=str(tmp_path / "store"))
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, str(script)], **pipes)
    try:
        while not (log.is_file() and log.read_text()):
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        started = psutil.Process(process.pid).children(recursive=True)
        assert int(log.read_text()) in [one.pid for one in started]
        yield process, started
    finally:
        process.kill()
        process.communicate()


def living(processes: list[psutil.Process], *, seconds: float) -> list[psutil.Process]:
    """Those that still run after at most so many seconds; one that has ended and was not asked about does not."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and processes:
        processes = [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
        time.sleep(0.1)
    return processes


def interrupted(process: subprocess.Popen) -> str:
    """What an interrupted run says; one that does not end says where each of its threads is."""
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=5)[1]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGUSR1)
        time.sleep(1)
        process.kill()
        pytest.fail(f"an interrupted run goes on: {process.communicate()[1]}")


def test_an_interruption_ends_everything_and_says_how_to_go_on(tmp_path) -> None:
    with running(tmp_path) as (process, started):
        said = interrupted(process)
        assert process.returncode == 130 and living(started, seconds=5) == []
    store = tmp_path / "store"
    kept = "remi: interrupted; what is finished is kept; to go on: "
    assert said == f"{kept}remi run --preset smoke --only 01 --store {store}\n"
    (path,) = (store / "smoke" / "logs").iterdir()
    step, last = map(json.loads, path.read_text().splitlines()[-2:])
    assert (step["event"], last["event"]) == ("step", "end")
    assert step["outcome"] == last["outcome"] == "interrupted" and step["reason"] == "KeyboardInterrupt:"
    assert not (store / "smoke" / "notebooks" / "01_sleeps.ipynb").exists()


def test_nothing_outlives_a_killed_run(tmp_path) -> None:
    with running(tmp_path) as (process, started):
        os.kill(process.pid, signal.SIGKILL)
        assert living(started, seconds=20) == []


@LINUX
def test_the_memory_of_a_step_is_that_of_the_process_it_started() -> None:
    size, peaks = 200 * 2**20, []
    # Seen between fork and exec, a process has the memory of the one that starts it, and a busy machine may not look in
    # time: neither happens in every one of five tries.
    for _ in range(5):
        with watched_children() as watched:
            python("-c", f"import time; a = b'1' * {size}; time.sleep(0.6)")
        peaks.append(watched.peak)
    assert any(size < peak < 2 * size for peak in peaks), peaks


def test_a_process_that_was_there_before_the_step_does_not_count_as_its_memory() -> None:
    size = 300 * 2**20
    with subprocess.Popen(
        [sys.executable, "-c", f"a = b'1' * {size}; print('held', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as held:
        assert held.stdout is not None
        held.stdout.readline()
        with watched_children() as watched:
            python("-c", "import time; time.sleep(0.6)")
        assert peak_bytes(held.pid) > size > watched.peak > 0
        held.communicate(b"\n")


def test_the_command_opens_and_names_its_drills() -> None:
    assert set(drill_command.DRILLS) >= {"disk", "memory", "run", "prune", "locks", "full", "ends"}
