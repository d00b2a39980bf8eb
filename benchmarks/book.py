"""The whole book of micro, from an empty store, against the clock."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.processes import Setting
from benchmarks.rows import TARGETS, Outcome, judged
from remi_core.errors import RemiError


def book_case(_setting: Setting, model: str) -> Outcome:
    """Seconds of ``remi book --run``, which is all that ``make book`` does once it is installed.

    Raises:
        RemiError: if the book does not build.
    """
    name = f"book.{model}"
    with tempfile.TemporaryDirectory(prefix="remi-bench-") as folder:
        environment = os.environ | {"REMI_STORE": str(Path(folder) / "store"), "HF_HUB_OFFLINE": "1"}
        words = ["book", "--preset", model, "--run", "--out", str(Path(folder) / "html")]
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "remi_book.cli", *words],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        seconds = time.perf_counter() - started
    if done.returncode:
        raise RemiError(f"{name}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    note = "one run from an empty store, measured and ratio in seconds"
    return Outcome([judged(name, TARGETS[name], seconds, [seconds], note=note, timed=False)])
