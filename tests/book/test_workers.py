"""Nothing outlives the command: an interruption ends workers and kernels within seconds, a killed one leaves none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from notebook_files import write_notebook

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
