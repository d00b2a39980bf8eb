"""Failures of the disk, put in at every step of writing: making, opening, writing, flushing, renaming, removing."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

KILL = "kill -9"
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EACCES": errno.EACCES}
FAULTS = (*ERRORS, KILL)
LASTING = ("ENOSPC", "EACCES")
"""Errors that every later step meets as well, as a full disk is full for all."""

_AUDITED = {"os.mkdir": "make", "os.rename": "rename", "os.remove": "remove", "os.rmdir": "remove"}
_FREE = ("remove",)
"""Steps that a full disk does not hinder."""

_open, _fsync = io.open, os.fsync


@dataclass
class Breaker:
    """Counts the steps of writing under ``root``, from 1, and breaks number ``at``; none where that is 0."""

    root: Path
    fault: str = ""
    at: int = 0
    n_steps: int = 0
    armed: bool = True

    def step(self, kind: str, path: object) -> None:
        """Return where the step may be taken.

        Raises:
            OSError: the fault, in its turn.
        """
        if not self.armed or not str(path).startswith(str(self.root)):
            return
        self.n_steps += 1
        due = self.n_steps >= self.at if self.fault in LASTING else self.n_steps == self.at
        if not self.at or not due or (self.fault == "ENOSPC" and kind in _FREE):
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
        elif event == "open" and _writes(arguments[2]) and not isinstance(arguments[0], int):
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
    io.open = __builtins__["open"] = opened


def _writes(flags: int) -> bool:
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def forked(act: Callable[[], int]) -> int:
    """Exit code of ``act`` in a copy of this process, negative where a signal ended it."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        os._exit(act())
    except BaseException:
        os._exit(70)
