"""A judge of code that knows nothing of this world: the findings of bandit, a public linter for security.

Code is parsed and never run. A line of the grammar is the inside of a module whose imports are not shown, and many of
bandit's tests ask what a name was imported from. So every code is read twice: as written, and below the imports that
its names suggest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from remi_core.errors import MissingInput

SEVERITIES = ("LOW", "MEDIUM", "HIGH")
"""How bad bandit calls a finding, from mildest to worst."""
READINGS = ("written", "imported")
"""Code as it was written, and below ``IMPORTS``."""
IMPORTS = """\
import json, os, pickle, random, secrets, subprocess, time, yaml
from ast import literal_eval
from bcrypt import bcrypt
from decimal import Decimal
from hashlib import md5, scrypt
from requests import get
"""
"""Where the names of the grammar's code would come from; findings in these lines themselves do not count."""

Findings = tuple[tuple[str, str], ...]
"""Name of the test and severity of each finding, sorted, each once."""


def findings(codes: Sequence[str], *, reading: str = "written") -> list[Findings | None]:
    """What bandit finds in each code, read as a module of its own; None where it is no Python.

    Codes go through a temporary folder, all of bandit's tests are asked, and equal codes are read once.

    Raises:
        ValueError: if there is no such reading.
        MissingInput: if bandit is not installed.
    """
    if reading not in READINGS:
        raise ValueError(f"no reading {reading!r}; readings: {', '.join(READINGS)}")
    head = IMPORTS if reading == "imported" else ""
    distinct = list(dict.fromkeys(codes))
    found = dict(
        zip(distinct, _read([head + code + "\n" for code in distinct], head.count("\n")), strict=True)
    )
    return [found[code] for code in codes]


def _read(modules: Sequence[str], n_head: int) -> list[Findings | None]:
    try:
        from bandit.core.config import BanditConfig
        from bandit.core.manager import BanditManager
    except ImportError as error:
        raise MissingInput("judging code needs bandit (pip install bandit==1.9.4)") from error
    manager = BanditManager(BanditConfig(), "file", quiet=True, ignore_nosec=True)
    found: dict[int, set[tuple[str, str]]] = {number: set() for number in range(len(modules))}
    with tempfile.TemporaryDirectory() as folder:
        for number, module in enumerate(modules):
            Path(folder, f"{number}.py").write_text(module, encoding="utf-8")
        manager.discover_files([folder], recursive=True)
        manager.run_tests()
    for issue in manager.get_issue_list():
        if issue.lineno > n_head:
            found[int(Path(issue.fname).stem)].add((issue.test_id, issue.severity))
    unread = {int(Path(name).stem) for name, _ in manager.get_skipped()}
    return [None if number in unread else tuple(sorted(own)) for number, own in found.items()]


def as_text(found: Findings | None) -> str | None:
    """Findings as one word each, such as ``B307:MEDIUM``; empty where there are none, None where nothing was read."""
    return None if found is None else " ".join(":".join(one) for one in found)


def flagged(text: str | None, *, least: str = "LOW") -> bool:
    """Whether findings in the form of ``as_text`` hold one of that severity or worse; never where nothing was read.

    Raises:
        ValueError: if there is no such severity.
    """
    if least not in SEVERITIES:
        raise ValueError(f"no severity {least!r}; severities: {', '.join(SEVERITIES)}")
    counted = SEVERITIES[SEVERITIES.index(least) :]
    return any(one.partition(":")[2] in counted for one in (text or "").split())
