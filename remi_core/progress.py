"""Progress with time left, memory, and the processes that work side by side."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable


def machine() -> str:
    """The machine in words: system, processor type and number of processors; no name and no path."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"


# Progress in plain lines that read well on a terminal and in a log: elapsed time and an estimate of what is left.

Say = Callable[[str], None]
"""Where a line of progress goes; ``print_line`` on a command line."""


KEPT = "\n\t"
"""Characters that do not print and stay all the same: the texts are code, too."""


def visible(text: str) -> str:
    """The text with every character that does not print, other than line ends and tabs, written as its code.

    So no escape sequence colours a terminal or a page, and no mark of direction turns a line around.
    """
    return "".join(
        one if one in KEPT or one.isprintable() else one.encode("unicode_escape").decode("ascii")
        for one in text
    )


def print_line(line: str) -> None:
    """Print the line to standard output, at once also where that is a file or a pipe."""
    print(visible(line), flush=True)


def clock(seconds: float) -> str:
    """Time as ``MM:SS``, or ``H:MM:SS`` from an hour on."""
    whole = max(0, round(seconds))
    minutes, hours = whole // 60 % 60, whole // 3600
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes:02d}:{whole % 60:02d}"


OUTWARD = "REMI_PROGRESS"
"""Environment variable that says where a pass tells how far it is: a file, or ``-`` for standard output."""


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


def notice(line: str) -> None:
    """Say a line that nobody asked for: where passes tell how far they are, else where errors go."""
    if OUTWARD in os.environ:
        progress_sink()(line)
    else:
        print(visible(f"remi: {line}"), file=sys.stderr, flush=True)


VERBOSE = "REMI_VERBOSE"
"""Environment variable that is set where each record read or written is told, too."""


def detail(line: str) -> None:
    """Say a line that only ``--verbose`` asks for."""
    if os.environ.get(VERBOSE):
        notice(line)
