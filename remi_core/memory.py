"""How much main memory a process held at most, and those that it started."""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

LOOK_EVERY = 0.25
"""Seconds between two looks at the processes that a process started."""


def reset_peak() -> None:
    """Return once the peak counts from now on, where the system can do that (Linux)."""
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


def peak_bytes() -> int:
    """Largest resident set of this process since the last reset."""
    if Path("/proc/self/status").exists():
        return _peak_of("self")
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _peak_of(process: int | str) -> int:
    (line,) = [
        line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmHWM")
    ]
    return int(line.split()[1]) * 1024


class Watched:
    """The largest resident set of any process that this one has started, as far as it was seen."""

    def __init__(self) -> None:
        self.peak = 0

    def look(self) -> None:
        """Return once the processes that run now were looked at."""
        # A process may end between the two lines, or be one that has no memory left.
        with suppress(psutil.Error, OSError, ValueError):
            for child in psutil.Process().children(recursive=True):
                known = Path(f"/proc/{child.pid}/status").exists()
                self.peak = max(self.peak, _peak_of(child.pid) if known else child.memory_info().rss)


@contextmanager
def watched_children() -> Iterator[Watched]:
    """What the processes started within hold at most."""
    watched, over = Watched(), threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_EVERY):
            watched.look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield watched
    finally:
        over.set()
        thread.join()
