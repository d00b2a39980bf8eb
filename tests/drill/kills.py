"""The drill of kills: a command is killed at a random moment, gone on with, and must end as one that never was."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from remi_core.errors import RemiError
from remi_lab.upkeep import damages
from tests.drill.rows import Row, differences

EARLIEST = 0.1
"""Share of an unbroken run's time before which nothing is killed: Python is still starting then."""


@dataclass(frozen=True, kw_only=True)
class Victim:
    """A command that writes into a folder, and what must be equal in two such folders."""

    name: str
    words: Callable[[Path], list[str]]
    """The command, and the same to go on."""
    prepare: Callable[[Path], None]
    """Makes the folder with what is there beforehand."""
    state: Callable[[Path], dict[str, str]]


def drill_kills(victim: Victim, folder: Path, *, count: int, seed: int = 0) -> Row:
    """How many of so many killed runs could be gone on with to the end of an unbroken one.

    Moments are drawn from the time that an unbroken run takes; in every second try the process alone is killed, and
    what it started is left to itself. A run that has ended before its moment is tried again. After each kill nothing
    at its final place may be damaged.
    """
    draw, row = random.Random(seed), Row(f"kills: {victim.name}")
    started = time.monotonic()
    whole = folder / "whole"
    victim.prepare(whole)
    taken = run_through(victim, whole)
    expected, late = victim.state(whole), 0
    while row.tried < count and late < 3 * count:
        root = folder / "killed"
        victim.prepare(root)
        if _killed(victim, root, draw.uniform(EARLIEST, 1) * taken, alone=row.tried % 2 == 1):
            row.judge(_gone_on(victim, root, expected))
        else:
            late += 1
        shutil.rmtree(root)
    row.seconds = round(time.monotonic() - started, 1)
    row.note = f"an unbroken run takes {taken:.1f} s; {late} ended before they were to be killed"
    return row


def run_through(victim: Victim, root: Path) -> float:
    """Seconds that the command took.

    Raises:
        RemiError: if it failed, with its last words.
    """
    began = time.monotonic()
    done = subprocess.run(victim.words(root), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RemiError(f"{victim.name} failed: {done.stderr.strip()[-300:]}")
    return time.monotonic() - began


def _killed(victim: Victim, root: Path, after: float, *, alone: bool) -> bool:
    """Whether the command was still running when it was killed."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(victim.words(root), **quiet, start_new_session=True) as process:
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
    return process.returncode == -signal.SIGKILL


def _gone_on(victim: Victim, root: Path, expected: dict[str, str]) -> str | None:
    """What was not as it should be after a kill, in words."""
    if broken := damages(root):
        return f"damaged: {broken[0]}"
    try:
        run_through(victim, root)
    except RemiError as error:
        return f"gone on with, {error}"
    return differences(victim.state(root), expected)
