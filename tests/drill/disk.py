"""The drills of disk and files: a small run broken at every step of writing, and single bits flipped in a store.

Failures are put in at every step of writing: making, opening, writing, flushing, renaming, removing. Each flipped bit
is found, or changes nothing that is read.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from remi_core.errors import RemiError
from remi_core.files import ADVICE, read_sealed
from remi_core.progress import OUTWARD
from remi_core.store import Address, Store
from remi_lab.processes import variables
from remi_lab.upkeep import damages
from tests.drill.kills import Victim, ended, gone_on, left_behind, run_through
from tests.drill.rows import HARMLESS, Row, differences, state_of
from tests.drill.work import work

KILL = "kill -9"
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EACCES": errno.EACCES}
FAULTS = (*ERRORS, KILL)
LASTING = ("ENOSPC", "EACCES")
"""Errors that every later step meets as well, as a full disk is full for all."""

_AUDITED = {"os.mkdir": "make", "os.rename": "rename", "os.remove": "remove", "os.rmdir": "remove"}
_open, _fsync = io.open, os.fsync


@dataclass
class Breaker:
    """Counts the steps of writing under ``root``, from 1, and breaks number ``at``; none where that is 0."""

    root: Path
    fault: str = ""
    at: int = 0
    n_steps: int = 0
    tally: int | None = None
    """Descriptor of a file in which all processes of a command count together, a byte a step."""

    def step(self, kind: str, path: object) -> None:
        """Return where the step may be taken.

        Raises:
            OSError: the fault, in its turn.
        """
        if not str(path).startswith(str(self.root)):
            return
        if self.tally is not None:
            os.write(self.tally, b".")
            self.n_steps = os.fstat(self.tally).st_size
        else:
            self.n_steps += 1
        due = self.n_steps >= self.at if self.fault in LASTING else self.n_steps == self.at
        # A full disk does not hinder removing.
        if not self.at or not due or (self.fault == "ENOSPC" and kind == "remove"):
            return
        if self.fault == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(ERRORS[self.fault], os.strerror(ERRORS[self.fault]), str(path))


class _Breakable(io.FileIO):
    """A file whose every write is a step; one that fails has written half."""

    breaker: Breaker

    def write(self, data: bytes) -> int:
        try:
            self.breaker.step("write", self.name)
        except OSError:
            super().write(bytes(data)[: len(data) // 2])
            raise
        return super().write(data)


def install(breaker: Breaker) -> None:
    """Return with every step of this process counted; for a process that ends with the drill."""

    def audited(event: str, arguments: tuple) -> None:
        if event in _AUDITED:
            breaker.step(_AUDITED[event], arguments[1 if event == "os.rename" else 0])
        elif event == "open" and not isinstance(arguments[0], int):
            if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                breaker.step("open", arguments[0])

    def opened(file: object, mode: str = "r", buffering: int = -1, *rest: object, **named: object) -> object:
        plain = isinstance(file, int) or not set(mode) & set("wxa") or buffering == 0
        if plain or not str(file).startswith(str(breaker.root)):
            return _open(file, mode, buffering, *rest, **named)
        raw = _Breakable(os.fspath(file), mode.replace("b", "").replace("t", ""))
        raw.breaker = breaker
        stream = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
        return stream if "b" in mode else io.TextIOWrapper(stream, named.get("encoding"))

    def fsync(descriptor: int) -> None:
        breaker.step("flush", os.readlink(f"/proc/self/fd/{descriptor}"))
        _fsync(descriptor)

    sys.addaudithook(audited)
    os.fsync = fsync
    io.open = builtins.open = opened


def drill_disk(folder: Path, *, faults: Sequence[str] = FAULTS, every: int = 1) -> list[Row]:
    """A row a fault: of each ``every``-th step of the small run, whether the fault in it was survived.

    It was if the run ended with one line (or was killed), nothing at its final place is damaged, and the same run
    again makes what was not finished, and only that, and ends in the bytes of an unbroken one.
    """
    whole = folder / "whole"
    _, _, said = _run(whole, Breaker(whole))
    n_steps, expected = int(said[-1].removeprefix("steps ")), state_of(whole)
    note = f"{n_steps} steps: making, opening, writing, flushing, renaming, removing"
    return [
        Row(f"disk: {fault} at every step of writing", note=note).count(
            _broken(folder / "broken", fault, at, expected) for at in range(1, n_steps + 1, every)
        )
        for fault in faults
    ]


def _broken(root: Path, fault: str, at: int, expected: dict[str, str]) -> str | None:
    code, lines, before = _run(root, Breaker(root, fault, at))
    place = f"{fault} at step {at}"
    if (code != -9) if fault == KILL else (code not in (0, 1) or len(lines) != code):
        return f"{place}: ended with {code} and {len(lines)} lines: {' / '.join(lines)[:200]}"
    if damages(root):
        return f"{place}: {damages(root)[0]}"
    code, lines, after = _run(root, Breaker(root))
    finished = {line.removeprefix("done ") for line in before if line.startswith("done ")}
    again = {line.removeprefix("made ") for line in after if line.startswith("made ")}
    different = differences(state_of(root), expected)
    shutil.rmtree(root)
    if code or lines:
        return f"{place}: gone on with, it ended with {code}: {' / '.join(lines)[:200]}"
    if finished & again:
        return f"{place}: made again though finished: {', '.join(sorted(finished & again))}"
    return f"{place}: {different}" if different else None


def _run(root: Path, breaker: Breaker) -> tuple[int, list[str], list[str]]:
    """Exit code, lines on stderr and what was said, of the small run in a copy of this process, and its steps.

    The code is negative where a signal ended it.
    """
    # Not before: what the full disk begins with must not import the command's own module.
    from remi_book.cli import outcome

    with tempfile.TemporaryDirectory() as beside:
        said, errors = Path(beside) / "said", Path(beside) / "errors"
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            return code, errors.read_text().splitlines(), said.read_text().splitlines()
        try:
            os.dup2(os.open(errors, os.O_CREAT | os.O_WRONLY), sys.stderr.fileno())
            # Not buffered: what was said before a kill counts.
            log = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            install(breaker)
            code = outcome(
                lambda: work(root, said=lambda line: os.write(log, f"{line}\n".encode())) or 0, ["drill"]
            )
            os.write(log, f"steps {breaker.n_steps}\n".encode())
            os._exit(code)
        except BaseException:
            os._exit(70)


FULL = """
import os
from pathlib import Path
from tests.drill.disk import Breaker, install
tally = os.open({tally!r}, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
install(Breaker(Path({root!r}), "ENOSPC", {at}, tally=tally))
"""


def drill_full(victim: Victim, folder: Path, *, count: int, seed: int = 0) -> Row:
    """How often a command ended well on a disk that was full from a random step of writing on, and when gone on with.

    It did if it ended with one line that says to make room, left nothing, and ends as an unbroken one once there is
    room. All its processes count their steps together.
    """
    draw, row, tally = random.Random(seed), Row(f"full disk: {victim.name}"), folder / "steps"

    def broken(root: Path, at: int) -> Victim:
        tally.unlink(missing_ok=True)
        return replace(victim, begin=victim.begin + FULL.format(tally=str(tally), root=str(root), at=at))

    def tries() -> Iterator[str | None]:
        root = folder / "whole"
        victim.prepare(root)
        run_through(broken(root, 0), root)
        n_steps, expected, root = tally.stat().st_size, victim.state(root), folder / "full"
        row.note = f"{n_steps} steps of writing"
        for _ in range(count):
            victim.prepare(root)
            code, lines = ended(broken(root, at := draw.randint(1, n_steps)), root)
            said = code == 1 and len(lines) == 1 and ADVICE[errno.ENOSPC] in lines[0]
            wrong = None if said else f"ended with {code} and {len(lines)} lines: {' / '.join(lines)[:300]}"
            wrong = wrong or left_behind(victim, root) or gone_on(victim, root, expected)
            yield wrong and f"at step {at}: {wrong}"
            for made in (root, *folder.glob(f"{root.name}-*"), victim.environment(root)["TMPDIR"]):
                shutil.rmtree(made)

    return row.count(tries())


def drill_flips(root: Path, *, count: int, seed: int = 0) -> Row:
    """How many of so many flipped bits were found, or harmless: what is read of the store was the same with it.

    Half of the places are drawn from all bytes, half from all files, so that small files have their turn. A flip in a
    record must also be refused by a frozen store and counted as missing by another. Each bit is turned back.
    """
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.stat().st_size]
    sizes, draw = [path.stat().st_size for path in files], random.Random(seed)
    # All is read anew: what was read before the flips would count as known.
    whole = state_of(root)

    def flips() -> Iterator[str | None]:
        for number in range(count):
            path = draw.choices(files, sizes)[0] if number % 2 else draw.choice(files)
            place, bit = draw.randrange(path.stat().st_size), draw.randrange(8)
            times = path.stat()
            _flip(path, place, bit)
            failure = _judged(root, path, whole)
            yield failure and f"{path.relative_to(root)}, byte {place}, bit {bit}: {failure}"
            _flip(path, place, bit)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    note = f"{len(files)} files, {sum(sizes):,} bytes"
    with variables({OUTWARD: os.devnull}):  # each damaged record would be named
        return Row("files: one bit flipped at a random place", note=note).count(flips())


def _flip(path: Path, place: int, bit: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ (1 << bit)]))


def _judged(root: Path, path: Path, whole: dict[str, str]) -> str | None:
    found = [place for place, _ in damages(root)]
    if not found:
        try:
            same = state_of(root) == whole
        except ValueError:
            return "not found, though it cannot be read"
        return HARMLESS if same else "changed what is read, and was not found"
    if not any(path.with_suffix("") == place.with_suffix("") or place in path.parents for place in found):
        return f"found elsewhere: {found[0]}"
    if path.suffix != ".npz":
        return None
    address = Address(**read_sealed(path.with_suffix(".json"))["address"])
    if Store(root, frozen=False).load(address) is not None:
        return "found, and read all the same"
    try:
        Store(root, frozen=True).load(address)
    except RemiError:
        return None
    return "not refused by a frozen store"
