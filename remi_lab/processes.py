"""Processes that work side by side: their steps with time left, their memory, and workers that end in time."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import psutil

from remi_core.progress import Say, clock


class Progress:
    """Lines for a number of named steps of which some run side by side.

    ``expected`` holds seconds of earlier runs, by step name; steps without one are taken to last as long as the mean
    of those known or finished. ``folder`` is where the steps tell how far their passes are, a file each.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        expected: Mapping[str, float],
        *,
        jobs: int,
        say: Say,
        folder: Path | None = None,
    ) -> None:
        self._expected, self._waiting, self._n_steps = dict(expected), list(names), len(names)
        self._jobs, self._say, self._folder = jobs, say, folder
        self._heard: dict[Path, int] = {}
        self._started_at: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._begin = time.monotonic()

    def start(self, name: str) -> None:
        """Say that a step starts."""
        self._waiting.remove(name)
        self._started_at[name] = time.monotonic()
        number = self._n_steps - len(self._waiting)
        self._say(f"[{number}/{self._n_steps}] {name} … {self._tail()}")

    def finish(self, name: str) -> None:
        """Say that a step is done, and how long it took."""
        self.hear()
        self._took[name] = time.monotonic() - self._started_at.pop(name)
        self._say(
            f"[{len(self._took)} of {self._n_steps} done] {name} in {clock(self._took[name])}; {self._tail()}"
        )

    def hear(self) -> None:
        """Say what the steps wrote since the last call."""
        for path in sorted(self._folder.iterdir()) if self._folder else ():
            whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
            lines = whole.split("\n") if whole else []
            for line in lines[self._heard.get(path, 0) :]:
                self._say(f"    {line}")
            self._heard[path] = len(lines)

    def seconds_left(self) -> float | None:
        """Estimated seconds until the last step ends; None while nothing is known of any step."""
        known = {**self._expected, **self._took}
        if not known:
            return None
        typical = sum(known.values()) / len(known)
        now = time.monotonic()
        running = sum(
            max(0.0, known.get(name, typical) - (now - start)) for name, start in self._started_at.items()
        )
        return (running + sum(known.get(name, typical) for name in self._waiting)) / self._jobs

    def _tail(self) -> str:
        left = self.seconds_left()
        elapsed = f"{clock(time.monotonic() - self._begin)} elapsed"
        return elapsed if left is None else f"{elapsed}, about {clock(left)} left"


# How much main memory a process held at most, and those that it started.

LOOK_EVERY = 0.25
"""Seconds between two looks at the processes that a process started."""


def reset_peak() -> None:
    """Let the peak count from now on, where the system can do that (Linux)."""
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


def peak_bytes(process: int | str = "self") -> int:
    """Largest resident set of this process since the last reset, or of another by its number (Linux)."""
    path = Path(f"/proc/{process}/status")
    if process == "self" and not path.exists():
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    (line,) = [line for line in path.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@contextmanager
def watched_children() -> Iterator[SimpleNamespace]:
    """The largest resident set (``peak``) of any process started within, as far as it was seen every now and then."""
    watched, over = SimpleNamespace(peak=0), threading.Event()
    before = set(psutil.Process().children(recursive=True))

    def watch() -> None:
        while not over.wait(LOOK_EVERY):
            # A process may end between the two lines, or be one that has no memory left.
            with suppress(psutil.Error, OSError, ValueError):
                for child in set(psutil.Process().children(recursive=True)) - before:
                    known = Path(f"/proc/{child.pid}/status").exists()
                    size = peak_bytes(child.pid) if known else child.memory_info().rss
                    watched.peak = max(watched.peak, size)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield watched
    finally:
        over.set()
        thread.join()


CARDS = ("/dev/nvidiactl", "/dev/kfd")


def has_card() -> bool:
    """Whether this machine has a graphics card that torch computes on (Linux), by the files of its driver."""
    return any(os.path.exists(card) for card in CARDS)


# Worker processes that end with the process that started them, within seconds where it is interrupted.

STOPPED = threading.Event()
"""Set in a worker once the user has interrupted: what fails from then on was ended."""
PATIENCE = 2.0
"""Seconds that interrupted workers have to tidy up."""


@contextmanager
def worker_pool(
    n_workers: int, initializer: Callable[..., None] | None = None, initargs: tuple = ()
) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes that take tasks; all have ended with the context, and where the user interrupts, at once.

    What a task started, such as a notebook's kernel, ends too. Nobody waits for a worker whose starter was killed:
    it ends by itself.
    """
    pool = ProcessPoolExecutor(
        n_workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(initializer, initargs),
    )
    try:
        yield pool
    except BaseException as error:
        if not isinstance(error, Exception):
            # What the workers started ends first, so that they can tidy up.
            workers = multiprocessing.active_children()
            for worker in workers:
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGINT)  # so that it knows why what it started ends
                _kill_children(worker.pid)
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.join(PATIENCE / len(workers))
            for worker in workers:
                if worker.is_alive():
                    _kill_children(worker.pid)
                    worker.kill()
                    worker.join()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(initializer: Callable[..., None] | None, initargs: tuple) -> None:
    # The terminal interrupts all processes at once; the first one tells the others what to do. Not SIG_IGN, which
    # kernels would inherit.
    signal.signal(signal.SIGINT, lambda *_: STOPPED.set())

    def follow() -> None:
        # This process and what it started end once the process that started it has ended.
        multiprocessing.parent_process().join()
        _kill_children(os.getpid())
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def _kill_children(number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(number).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()


# How far one long piece of work is.

TOLD_EVERY = 10.0
"""Seconds between two lines of one piece of work; a pass that is shorter says nothing."""
SOON = 2.0
"""Seconds until the first line of what a command does before it answers."""


class Meter:
    """Lines that say how far one long piece of work is, and about how long it will last; call it with what is done.

    The first line comes when ``after`` so many seconds are over, so shorter work says nothing.
    """

    def __init__(
        self,
        name: str,
        total: int,
        say: Say,
        *,
        unit: str = "tokens",
        after: float = TOLD_EVERY,
    ) -> None:
        self._name, self._total, self._say, self._unit = name, total, say, unit
        self._wait, self._done = after, 0
        self._begin = self._told = time.monotonic()

    def each(self, parts: Iterable[str]) -> Iterator[str]:
        """The parts one by one, each a unit; before each the line, if one is due."""
        for part in parts:
            self(self._done, part)
            yield part
            self._done += 1

    def __call__(self, done: int, part: str = "") -> None:
        """Say so many units are done, and which part is next, unless a line was said within the last seconds."""
        now = time.monotonic()
        if now - self._told < self._wait:
            return
        self._told, self._wait, elapsed = now, TOLD_EVERY, now - self._begin
        left = f", about {clock(elapsed / done * (self._total - done))} left" if done else ""
        at = f" ({part})" if part else ""
        self._say(
            f"{self._name}: {done:,} of {self._total:,} {self._unit}{at}; {clock(elapsed)} elapsed{left}"
        )


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment, which processes that are started inherit, while the context lasts."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
