"""Progress with time left, memory, and the processes that work side by side."""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import psutil


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


def machine() -> str:
    """The machine in words: system, processor type and number of processors; no name and no path."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"


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
    if not path.exists():
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    (line,) = [line for line in path.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


class Watched:
    """The largest resident set of any process that this one has started, as far as it was seen."""

    def __init__(self) -> None:
        self.peak = 0

    def look(self) -> None:
        """Look at the processes that run now."""
        # A process may end between the two lines, or be one that has no memory left.
        with suppress(psutil.Error, OSError, ValueError):
            for child in psutil.Process().children(recursive=True):
                known = Path(f"/proc/{child.pid}/status").exists()
                self.peak = max(self.peak, peak_bytes(child.pid) if known else child.memory_info().rss)


@contextmanager
def watched_children() -> Iterator[Watched]:
    """What the processes started within hold at most, looked at every now and then."""
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


# Progress in plain lines that read well on a terminal and in a log: elapsed time and an estimate of what is left.

Say = Callable[[str], None]
"""Where a line of progress goes; ``print_line`` on a command line."""


def print_line(line: str) -> None:
    """Print the line to standard output, at once also where that is a file or a pipe."""
    print(line, flush=True)


def clock(seconds: float) -> str:
    """Time as ``MM:SS``, or ``H:MM:SS`` from an hour on."""
    whole = max(0, round(seconds))
    minutes, hours = whole // 60 % 60, whole // 3600
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes:02d}:{whole % 60:02d}"


OUTWARD = "REMI_PROGRESS"
"""Environment variable that says where a pass tells how far it is: a file, or ``-`` for standard output."""

TOLD_EVERY = 10.0
"""Seconds between two lines of one pass; a shorter pass says nothing."""


def progress_sink() -> Say:
    """Where a pass tells how far it is: what started this process, if it listens, else who has this notebook open.

    What is run for a page listens, so that no line of progress becomes part of the page. In a notebook a line takes
    the place of the one before; elsewhere nobody hears it.
    """
    place = os.environ.get(OUTWARD)
    if place == "-":
        return print_line
    if place is not None:

        def append(line: str) -> None:
            with open(place, "a", encoding="utf-8") as stream:
                stream.write(line + "\n")

        return append
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if not hasattr(shell, "kernel"):
        return lambda line: None
    shown: list = []

    def say(line: str) -> None:
        from IPython.display import display

        if shown:
            shown[0].update({"text/plain": line}, raw=True)
        else:
            shown.append(display({"text/plain": line}, raw=True, display_id=True))

    return say


def told_on_output() -> AbstractContextManager[None]:
    """While the context lasts, a pass tells on standard output how far it is, unless somebody listens elsewhere."""
    return variables({OUTWARD: os.environ.get(OUTWARD, "-")})


def notice(line: str) -> None:
    """Say a line that nobody asked for: where passes tell how far they are, else where errors go."""
    if OUTWARD in os.environ:
        progress_sink()(line)
    else:
        print(f"remi: {line}", file=sys.stderr, flush=True)


VERBOSE = "REMI_VERBOSE"
"""Environment variable that is set where each record read or written is told, too."""


def detail(line: str) -> None:
    """Say a line that only ``--verbose`` asks for."""
    if os.environ.get(VERBOSE):
        notice(line)


class Meter:
    """Lines that say how far one long pass is, in tokens, and about how long it will last; call it with tokens done."""

    def __init__(self, name: str, n_tokens: int, say: Say) -> None:
        self._name, self._n_tokens, self._say = name, n_tokens, say
        self._begin = self._told = time.monotonic()

    def __call__(self, done: int) -> None:
        """Say so many tokens are done, unless that was said within the last seconds."""
        now = time.monotonic()
        if now - self._told < TOLD_EVERY:
            return
        self._told, elapsed = now, now - self._begin
        left = elapsed / done * (self._n_tokens - done)
        self._say(
            f"{self._name}: {done:,} of {self._n_tokens:,} tokens; {clock(elapsed)} elapsed, about {clock(left)} left"
        )


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


# Worker processes that end with the process that started them, within seconds where it is interrupted.

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
    signal.signal(signal.SIGINT, lambda *_: None)

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
