"""The quick half of the drills: what breaks is survived, a planted bug is found, and nothing outlives the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from conftest import python
from notebook_files import write_notebook

from remi_core.errors import RemiError, UsageError
from remi_core.store import Store
from remi_lab.presets import read_preset
from remi_lab.upkeep import damages
from tests.drill import disk
from tests.drill.disk import drill_flips
from tests.drill.kills import Victim, drill_kills, run_through, small_run
from tests.drill.rows import Row
from tests.drill.work import work

IN_PLACE = """
import json, sys
from contextlib import contextmanager
from pathlib import Path
from remi_core import files, store
from tests.drill import disk, work

@contextmanager
def in_place(target):
    target.parent.mkdir(parents=True, exist_ok=True)
    yield target

for module in (files, store, work):
    module.written_whole = in_place
print(json.dumps([vars(row) for row in disk.drill_disk(Path(sys.argv[1]), faults=["kill -9"], every=4)]))
"""
EVERY = 8


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A folder in main memory where there is one: thousands of flushes of a disk take minutes."""
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path
    ) as folder:
        yield Path(folder)


def rows_of(*words: str) -> list[Row]:
    return [Row(**row) for row in json.loads(python(*words).stdout)]


@pytest.mark.skipif(sys.platform != "linux", reason="the drill reads /proc")
def test_a_disk_that_fails_at_any_step_loses_nothing_finished(quick: Path) -> None:
    rows = rows_of("-m", "tests.drill.disk", str(quick), str(EVERY))
    assert [row.drill.split()[1] for row in rows] == ["ENOSPC", "EIO", "EACCES", "kill"]
    for row in rows:
        assert row.failures == [] and row.held == row.tried > 10


@pytest.mark.skipif(sys.platform != "linux", reason="the drill reads /proc")
def test_writing_in_place_is_found_by_kills(quick: Path) -> None:
    (row,) = rows_of("-c", IN_PLACE, str(quick))
    assert row.held < row.tried and any("not JSON any more" in failure for failure in row.failures)


def test_killed_runs_are_gone_on_with_to_the_same_end(quick: Path) -> None:
    row = drill_kills(small_run(), quick, count=2)
    assert (row.tried, row.held, row.failures) == (2, 2, [])


ADDS = "import sys, time; time.sleep(0.2); open(sys.argv[1], 'a').write('x'); time.sleep(0.3)"


def victim(code: str) -> Victim:
    return Victim(
        name="victim",
        words=lambda root: [sys.executable, "-c", code, str(root / "one")],
        prepare=Path.mkdir,
        state=lambda root: {"one": (root / "one").read_text()},
    )


def test_a_run_that_does_anew_what_it_had_done_or_fails_is_found(quick: Path) -> None:
    row = drill_kills(victim(ADDS), quick, count=3, seed=1)
    assert row.tried == 3 and row.held < 3 and "differ, first one" in row.failures[0]
    with pytest.raises(RemiError, match="(?s)victim failed: .*ZeroDivisionError"):
        run_through(victim("1 / 0"), quick)


def test_flipped_bits_are_found(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = quick / "store"
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


def test_a_store_is_checked_by_the_command(quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from remi_book.cli import main

    work(quick / "store", said=lambda line: None)
    assert main(["store", "check", "--store", str(quick / "store")]) == 0
    (quick / "store" / "drill" / "preset.json").write_text("{}")
    assert main(["store", "check", "--store", str(quick / "store")]) == 1
    assert capsys.readouterr().out.splitlines()[-2] == "drill/preset.json: of format 1, not 2"
    with pytest.raises(UsageError, match="is no preset: of format 1"):
        read_preset(Store(quick / "store").saved_presets()["drill"])


SECONDS = 5
"""In which an interrupted run must end; one that does not says where each of its threads is."""

SLEEPS = "import os, pathlib, time\npathlib.Path({log!r}).write_text(str(os.getpid()))\ntime.sleep(600)"
RUN = """
import faulthandler, signal, sys
faulthandler.register(signal.SIGUSR1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in its background ignores it
from pathlib import Path
from remi_book import cli, running
import remi_lab.organism.variants as variants
variants.ensure = lambda *_: None
plan = running.plan
cli.plan = lambda preset, store, **given: plan(preset, store, folder=Path({folder!r}), **given)
if __name__ == "__main__":
    sys.exit(cli.main(["run", "--preset", "smoke", "--only", "01", "--store", {store!r}]))
"""


@contextmanager
def running(tmp_path: Path) -> Iterator[tuple[subprocess.Popen, list[psutil.Process]]]:
    log, script = tmp_path / "kernel", tmp_path / "run.py"
    write_notebook(tmp_path / "notebooks" / "01_sleeps.ipynb", [SLEEPS.format(log=str(log))])
    script.write_text(RUN.format(folder=str(tmp_path / "notebooks"), store=str(tmp_path / "store")))
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
    _, left = psutil.wait_procs(processes, timeout=0)
    until = time.monotonic() + seconds
    while time.monotonic() < until and left:
        left = [one for one in left if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
        time.sleep(0.1)
    return left


def interrupted(process: subprocess.Popen) -> str:
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=SECONDS)[1]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGUSR1)
        time.sleep(1)
        process.kill()
        pytest.fail(f"an interrupted run goes on: {process.communicate()[1]}")


def test_an_interruption_ends_everything_and_says_how_to_go_on(tmp_path: Path) -> None:
    with running(tmp_path) as (process, started):
        said = interrupted(process)
        left = living(started, seconds=SECONDS)
    assert process.returncode == 130 and left == []
    store = tmp_path / "store"
    kept = "remi: interrupted; what is finished is kept; to go on: "
    assert said == f"{kept}remi run --preset smoke --only 01 --store {store}\n"
    (path,) = (store / "smoke" / "logs").iterdir()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[-1]["event"] == "end" and rows[-1]["outcome"] == "interrupted"
    assert not (store / "smoke" / "notebooks" / "01_sleeps.ipynb").exists()


def test_nothing_outlives_a_killed_run(tmp_path: Path) -> None:
    with running(tmp_path) as (process, started):
        os.kill(process.pid, signal.SIGKILL)
        assert living(started, seconds=20) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of another process is read from /proc")
def test_the_memory_of_a_step_is_that_of_the_process_it_started() -> None:
    from remi_lab.processes import watched_children

    size = 200 * 2**20
    with watched_children() as watched:
        subprocess.run([sys.executable, "-c", f"import time; a = b'1' * {size}; time.sleep(0.6)"], check=True)
    assert size < watched.peak < 2 * size
