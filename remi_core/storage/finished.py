"""Batches of a long pass that are finished, kept on disk until the pass has ended: a killed one goes on behind them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from remi_core.fingerprint import file_digest
from remi_core.progress import notice
from remi_core.storage.npz import read_npz, write_npz
from remi_core.storage.seals import Damaged, check_file, read_sealed, write_sealed
from remi_core.storage.writing import written_whole

Part = TypeVar("Part")

EVERY = 10.0
"""Seconds of measuring after which what was finished is written: a pass that takes less writes nothing."""

MOST_BYTES = 1 << 26
"""Bytes that wait to be written at most: 64 MB, so that a pass does not fill the memory with them."""


class FinishedBatches(Generic[Part]):
    """What was measured of each batch, in the order in which it was measured, in a folder of one pass.

    ``spell`` gives a batch's part as arrays, ``read`` takes it from them; what comes back is equal bit by bit.
    """

    def __init__(
        self,
        folder: Path,
        *,
        spell: Callable[[Part], Mapping[str, np.ndarray]],
        read: Callable[[Mapping[str, np.ndarray]], Part],
    ) -> None:
        self._folder = folder
        self._spell = spell
        self._read = read
        self._waiting: list[tuple[Sequence[int], Mapping[str, np.ndarray]]] = []
        self._n_files = 0
        self._began = self._written = time.monotonic()
        self._seconds_before = 0.0

    @property
    def seconds(self) -> float:
        """Time that went into the batches of the runs before."""
        return self._seconds_before

    def restored(self) -> Iterator[tuple[list[int], Part, int]]:
        """Dialogues, part, and size that batches were cut to, of each batch finished before; the first file that is
        damaged is named, and what follows it is measured again."""
        while (about := self._folder / f"{self._n_files:05d}.json").is_file():
            try:
                content = read_sealed(about)
                path = about.with_name(str(content["file"]))
                check_file(path, content["sha256"])
                arrays = read_npz(path)
            except (OSError, Damaged) as error:
                notice(f"{about}: {error}: measured again from here on")
                return
            self._n_files += 1
            self._seconds_before = float(content["seconds"])
            for number, group in enumerate(content["groups"]):
                own = {
                    name.partition("/")[2]: value
                    for name, value in arrays.items()
                    if name.partition("/")[0] == str(number)
                }
                yield group, self._read(own), int(content["ran"])

    def add(self, group: Sequence[int], part: Part, *, ran: int) -> None:
        """Return once a batch is kept, on disk if the last writing is some seconds ago; ``ran`` is the budget now."""
        self._waiting.append((list(group), dict(self._spell(part))))
        n_bytes = sum(array.nbytes for _, own in self._waiting for array in own.values())
        if time.monotonic() - self._written >= EVERY or n_bytes > MOST_BYTES:
            self._write(ran)

    def _write(self, ran: int) -> None:
        path = self._folder / f"{self._n_files:05d}.npz"
        arrays = {
            f"{number}/{name}": value
            for number, (_, own) in enumerate(self._waiting)
            for name, value in own.items()
        }
        with written_whole(path) as whole:
            write_npz(whole, arrays)
            digest = file_digest(whole)
        content = {"file": path.name, "sha256": digest, "groups": [group for group, _ in self._waiting]}
        self._written = time.monotonic()
        seconds = self._seconds_before + self._written - self._began
        write_sealed(path.with_suffix(".json"), {**content, "ran": ran, "seconds": round(seconds, 3)})
        self._waiting, self._n_files = [], self._n_files + 1
