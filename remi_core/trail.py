"""What a page has read so far: each record and stored file with where it came from, and by which cell.

A notebook runs in a process of its own, so what the process read is what the page read. Figures take their
passports from here; nothing in it is typed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

Value = TypeVar("Value")

PASSPORT = "application/x-remi-passport+json"
"""Type under which an executed notebook carries a figure's passport; the book makes a file of them."""

PAGE = "<!-- page of the passport -->"
"""Where the book adds what only it knows: which notebook this is, how long it took, and on what."""


@dataclass
class Read:
    """One record, or one stored file, as often as it was read."""

    name: str
    """Place in the store, or below the repository for a file stored there."""
    about: Mapping[str, object]
    """Provenance of the record; recipe, machine and seconds of the file."""
    stored: bool = False
    """Whether it is a stored result and was not computed here."""
    cells: dict[int, set[str]] = field(default_factory=dict)
    """Cells that read it, by their execution count (0 outside a notebook) → the windows that each asked for."""


class Trail:
    """Everything read in this process, in the order in which it was first read."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Nothing; forgets all, as a new page would."""
        self._met: dict[str, Read] = {}
        self._read: dict[str, Read] = {}
        self._paused = False
        self._listening: list[set[tuple[str, str]]] = []

    def load(self, name: str, about: Mapping[str, object], *, stored: bool = False) -> None:
        """Nothing; notes that something was loaded, which is to read it unless the trail is paused."""
        self._met.setdefault(name, Read(name, about, stored))
        if not self._paused:
            self.read(name)

    def read(self, name: str, window: str = "") -> None:
        """Nothing; notes that what was loaded before is read by the present cell, or one window of it."""
        if name not in self._met:
            return  # put there by hand, as tests do: it has no provenance to show
        found = self._read.setdefault(name, self._met[name])
        found.cells.setdefault(present_cell(), set()).update({window} - {""})
        for heard in self._listening:
            heard.add((name, window))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While it lasts, what is loaded is not read: more is loaded at once than was asked for."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def heard(self, compute: Callable[[], Value]) -> tuple[Value, set[tuple[str, str]]]:
        """What ``compute`` gives, and the names and windows that it read: who keeps the value reads them again."""
        own: set[tuple[str, str]] = set()
        self._listening.append(own)
        try:
            return compute(), own
        finally:
            self._listening.remove(own)

    def reads(self) -> list[Read]:
        """All that was read."""
        return list(self._read.values())


def present_cell() -> int:
    """Execution count of the cell that runs; 0 outside a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "execution_count", 0) or 0


TRAIL = Trail()
"""The trail of this process."""
