"""The log of a run: one JSON line an event, each step with its start, seconds, peak memory and outcome."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from remi_core.credentials import without_credentials
from remi_core.escaping import as_line
from remi_core.fingerprint import library_versions
from remi_core.machine import machine
from remi_core.memory import peak_bytes, watched_children

DONE, FAILED, INTERRUPTED = "done", "failed", "interrupted"


@dataclass(frozen=True)
class RunLog:
    """A file that processes add lines to; where it cannot be written, the run goes on without."""

    path: Path

    def add(self, row: Mapping[str, object]) -> None:
        """Return once the row is the file's last line."""
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(dict(row), ensure_ascii=False) + "\n")

    @contextmanager
    def run(self, about: Mapping[str, object]) -> Iterator[None]:
        """Lines before and after all steps: what is run on what, and how it ended."""
        self.add(
            {"event": "run", "start": _now(), **about, "machine": machine(), "versions": library_versions()}
        )
        with self._timed({"event": "end"}):
            yield

    @contextmanager
    def step(self, name: str, *, in_children: bool) -> Iterator[None]:
        """Lines before and after a step, whose memory is that of the largest process started within, or of this one."""
        self.add({"event": "start", "step": name, "start": _now()})
        with watched_children() as watched:
            row = {"event": "step", "step": name}
            with self._timed(row, lambda: watched.peak if in_children else peak_bytes()):
                yield

    @contextmanager
    def _timed(self, row: Mapping[str, object], peak=None) -> Iterator[None]:
        start, began, outcome = _now(), time.monotonic(), {"outcome": DONE}
        try:
            yield
        except BaseException as error:
            word = FAILED if isinstance(error, Exception) else INTERRUPTED
            reason = as_line(without_credentials(f"{type(error).__name__}: {error}"))
            outcome = {"outcome": word, "reason": reason}
            raise
        finally:
            measured = {"peak_memory": peak()} if peak else {}
            seconds = round(time.monotonic() - began, 2)
            self.add({**row, "start": start, "seconds": seconds, **measured, **outcome})


def log_name() -> str:
    """A name for the log of a run that begins now in this process."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
