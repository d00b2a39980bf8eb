"""The drill of the files: single bits are flipped at random places of a store; each is found, or changes nothing."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from remi_core.errors import RemiError
from remi_core.files import read_sealed
from remi_core.progress import OUTWARD, variables
from remi_core.store import Address, Store
from remi_lab.upkeep import damages
from tests.drill.rows import Row, state_of


def drill_flips(root: Path, *, count: int, seed: int = 0) -> Row:
    """How many of so many flipped bits were found, or harmless: what is read of the store was the same with it.

    Half of the places are drawn from all bytes, half from all files, so that small files have their turn. A flip in a
    record must also be refused by a frozen store and counted as missing by another. Each bit is turned back.
    """
    draw, started = random.Random(seed), time.monotonic()
    row = Row("files: one bit flipped at a random place")
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.stat().st_size]
    sizes = [path.stat().st_size for path in files]
    # All is read anew: what was read before the flips would count as known.
    whole = state_of(root)
    with variables({OUTWARD: os.devnull}):  # each damaged record would be named
        for number in range(count):
            path = draw.choices(files, sizes)[0] if number % 2 else draw.choice(files)
            place, bit = draw.randrange(path.stat().st_size), draw.randrange(8)
            times = path.stat()
            _flip(path, place, bit)
            failure, harmless = _judged(root, path, whole)
            where = f"{path.relative_to(root)}, byte {place}, bit {bit}"
            row.judge(failure and f"{where}: {failure}", harmless=harmless)
            _flip(path, place, bit)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    row.seconds = round(time.monotonic() - started, 1)
    row.note = f"{len(files)} files, {sum(sizes):,} bytes"
    return row


def _flip(path: Path, place: int, bit: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ (1 << bit)]))


def _judged(root: Path, path: Path, whole: dict[str, str]) -> tuple[str | None, bool]:
    """What was not as it should be, and whether the flip changed nothing that is read."""
    found = [place for place, _ in damages(root)]
    if not found:
        try:
            same = state_of(root) == whole
        except ValueError:
            return "not found, though it cannot be read", False
        return (None, True) if same else ("changed what is read, and was not found", False)
    if not any(path.with_suffix("") == place.with_suffix("") or place in path.parents for place in found):
        return f"found elsewhere: {found[0]}", False
    if path.suffix == ".npz":
        return _counted_missing(root, path), False
    return None, False


def _counted_missing(root: Path, path: Path) -> str | None:
    address = Address(**read_sealed(path.with_suffix(".json"))["address"])
    if Store(root, frozen=False).load(address) is not None:
        return "found, and read all the same"
    try:
        Store(root, frozen=True).load(address)
    except RemiError:
        return None
    return "not refused by a frozen store"
