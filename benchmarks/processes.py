"""Fresh processes for what must not share one: peaks of memory, and libraries that are installed elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from remi_core.errors import RemiError
from remi_core.store import Store, project_root

ENVIRONMENT = "REMI_PEERS"
"""Interpreters in which peers are installed, where they are in none of the folders that ``make peers`` fills."""
FOLDERS = (".venv-peers", ".venv-nnterp")
STEADY = MappingProxyType({"MALLOC_MMAP_THRESHOLD_": str(1 << 16)})
"""What glibc is told where two peaks are compared: a freed array goes back at once. Else what it keeps, which differs
from run to run by more than the rows are about, would count for either side."""


@dataclass(frozen=True)
class Setting:
    """What a benchmark is run with."""

    store: Store
    runs: int


def ask(
    setting: Setting,
    asked: dict[str, object],
    *,
    python: str = sys.executable,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, object]:
    """What a fresh process answers, with further environment variables.

    Raises:
        RemiError: with its last line, if it fails.
    """
    request = asked | {"store": str(setting.store.root), "runs": setting.runs}
    environment = os.environ | {
        "PYTHONPATH": str(project_root()),
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
        **variables,
    }
    done = subprocess.run(
        [python, "-m", "benchmarks.child", json.dumps(request)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        raise RemiError(f"{asked['do']} of {asked['way']}: {lines[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def added_peak(setting: Setting, way: str, model: str, *, count: int, python: str = sys.executable) -> int:
    """Bytes that a way adds at its peak to what a fresh process held before it."""
    asked = {"do": "memory", "way": way, "model": model, "count": count}
    return int(ask(setting, asked, python=python, variables=STEADY)["added"])


def interpreter_with(peer: str) -> str | None:
    """The first interpreter that has a peer: this one, those of ``REMI_PEERS``, those of ``make peers``."""
    named = [name for name in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if name]
    made = [str(project_root() / folder / "bin" / "python") for folder in FOLDERS]
    return next((one for one in (sys.executable, *named, *made) if _has(one, peer)), None)


@lru_cache(maxsize=32)
def _has(python: str, peer: str) -> bool:
    """Whether it can be imported there; a version that does not fit its neighbours cannot."""
    if not Path(python).is_file():
        return False
    done = subprocess.run([python, "-W", "ignore", "-c", f"import {peer}"], capture_output=True, check=False)
    return done.returncode == 0
