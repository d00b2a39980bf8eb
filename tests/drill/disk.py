"""The drill of the disk: a small run broken at every step of writing, by every fault, and gone on with."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from remi_book.cli import outcome
from remi_lab.upkeep import damages
from tests.drill.faults import FAULTS, KILL, Breaker, forked, install
from tests.drill.rows import Row, differences, state_of
from tests.drill.work import work


def drill_disk(folder: Path, *, faults: Sequence[str] = FAULTS, every: int = 1) -> list[Row]:
    """A row a fault: of each ``every``-th step of the small run, whether the fault in it was survived.

    It was if the run ended with one line (or was killed), nothing at its final place is damaged, and the same run
    again makes what was not finished, and only that, and ends in the bytes of an unbroken one.
    """
    whole = folder / "whole"
    breaker = Breaker(whole)
    n_steps = _counted(breaker, folder)
    expected = state_of(whole)
    rows, note = [], f"{n_steps} steps: making, opening, writing, flushing, renaming, removing"
    for fault in faults:
        started, row = time.monotonic(), Row(f"disk: {fault} at every step of writing", note=note)
        for at in range(1, n_steps + 1, every):
            row.judge(_broken(folder, fault, at, expected))
        row.seconds = round(time.monotonic() - started, 1)
        rows.append(row)
    return rows


def _counted(breaker: Breaker, folder: Path) -> int:
    """Steps of an unbroken run."""

    def act() -> int:
        install(breaker)
        work(breaker.root, said=lambda line: None)
        breaker.armed = False
        (folder / "steps").write_text(str(breaker.n_steps))
        return 0

    assert forked(act) == 0
    return int((folder / "steps").read_text())


def _broken(folder: Path, fault: str, at: int, expected: dict[str, str]) -> str | None:
    """What was not as it should be, in words."""
    root = folder / "broken"
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
    """Exit code, lines on stderr and what was said, of the small run in a process of its own."""
    with tempfile.TemporaryDirectory() as beside:
        said, errors = Path(beside) / "said", Path(beside) / "errors"

        def act() -> int:
            os.dup2(os.open(errors, os.O_CREAT | os.O_WRONLY), sys.stderr.fileno())
            # Not buffered: what was said before a kill counts.
            log = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            install(breaker)
            return outcome(
                lambda: work(root, said=lambda line: os.write(log, f"{line}\n".encode())) or 0, ["drill"]
            )

        code = forked(act)
        return code, errors.read_text().splitlines(), said.read_text().splitlines()


if __name__ == "__main__":
    chosen = {"every": int(sys.argv[2])} if len(sys.argv) > 2 else {}
    print(json.dumps([vars(row) for row in drill_disk(Path(sys.argv[1]), **chosen)]))
