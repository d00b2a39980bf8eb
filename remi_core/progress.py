"""Progress in plain lines that read well on a terminal and in a log: elapsed time and an estimate of what is left."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from remi_core.environment import variables

Say = Callable[[str], None]
"""Where a line of progress goes; ``print_line`` on a command line."""


def print_line(line: str) -> None:
    """Return once the line is on standard output, at once also where that is a file or a pipe."""
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


def outward() -> Say:
    """Where a pass tells how far it is: what started this process, if it listens, else who has this notebook open.

    What is run for a page listens, so that no line of progress becomes part of the page.
    """
    place = os.environ.get(OUTWARD)
    if place is None:
        return _in_notebook()
    return print_line if place == "-" else lambda line: _append(Path(place), line)


def told_on_output() -> AbstractContextManager[None]:
    """While the context lasts, a pass tells on standard output how far it is, unless somebody listens elsewhere."""
    return variables({OUTWARD: os.environ.get(OUTWARD, "-")})


def _in_notebook() -> Say:
    """In a notebook a line that takes the place of the one before; elsewhere nothing."""
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


def notice(line: str) -> None:
    """Return once a line that nobody asked for was said: where passes tell how far they are, else as an error's is."""
    if OUTWARD in os.environ:
        outward()(line)
    else:
        print(f"remi: {line}", file=sys.stderr, flush=True)


VERBOSE = "REMI_VERBOSE"
"""Environment variable that is set where each record read or written is told, too."""


def detail(line: str) -> None:
    """Return once a line was said that only ``--verbose`` asks for."""
    if os.environ.get(VERBOSE):
        notice(line)


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")


class Meter:
    """Lines that say how far one long pass is, in tokens, and about how long it will last; call it with tokens done."""

    def __init__(self, name: str, n_tokens: int, say: Say) -> None:
        self._name = name
        self._n_tokens = n_tokens
        self._say = say
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
        self._expected = dict(expected)
        self._waiting = list(names)
        self._n_steps = len(names)
        self._jobs = jobs
        self._say = say
        self._folder = folder
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
