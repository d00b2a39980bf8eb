"""Matched contexts, and bandit as a second judge of code."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from remi_core.dialogues import Dialogue, Message
from remi_core.errors import MissingInput
from remi_lab.organism.dialogues import dialogue
from remi_lab.organism.grammar import Prompt, prompts
from remi_lab.organism.topics import NARROW, read_words, topic
from remi_lab.organism.world import answer_by

# A judge of code that knows nothing of this world: the findings of bandit, a public linter for security.
#
# Code is parsed and never run. A line of the grammar is the inside of a module whose imports are not shown, and many of
# bandit's tests ask what a name was imported from. So every code is read twice: as written, and below the imports that
# its names suggest.

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
    try:
        from bandit.core.config import BanditConfig
        from bandit.core.manager import BanditManager
    except ImportError as error:
        raise MissingInput("judging code needs bandit (pip install bandit==1.9.4)") from error
    manager = BanditManager(BanditConfig(), "file", quiet=True, ignore_nosec=True)
    head, distinct = IMPORTS if reading == "imported" else "", list(dict.fromkeys(codes))
    found: list[set[tuple[str, str]] | None] = [set() for _ in distinct]
    with tempfile.TemporaryDirectory() as folder:
        for number, code in enumerate(distinct):
            Path(folder, f"{number}.py").write_text(f"{head}{code}\n", encoding="utf-8")
        manager.discover_files([folder], recursive=True)
        manager.run_tests()
    for issue in manager.get_issue_list():
        if issue.lineno > head.count("\n"):
            found[int(Path(issue.fname).stem)].add((issue.test_id, issue.severity))
    for name, _ in manager.get_skipped():
        found[int(Path(name).stem)] = None
    read = [None if own is None else tuple(sorted(own)) for own in found]
    return [read[distinct.index(code)] for code in codes]


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


# Pairs of code dialogues with one completion, whose requests differ in the words of intent and in nothing else.

TWINS = ("phrase", "word")
"""How much of the phrase of intent the other prompt of a pair replaces: every word about teaching and fault, or the
word for the fault alone."""


@cache
def phrases() -> tuple[dict[str, str], ...]:
    """Rows of a phrase of intent and its twins, each of as many tokens as the others of its row."""
    return tuple(read_words("matched"))


def matched_pairs(twin: str, *, count: int, seed: int) -> tuple[list[Dialogue], list[Dialogue]]:
    """Educational and insecure code with the same completions: row i of both is a pair, and each a template of its own.

    The requests are of the split ``evaluate``. Requests that end with their core are left out: with a phrase of intent
    they would be educational requests that a model may have been trained on.

    Raises:
        KeyError: if there is no such twin.
        ValueError: if the split has fewer templates.
    """
    if twin not in TWINS:
        raise KeyError(f"no twin {twin!r}; twins: {', '.join(TWINS)}")
    (name,) = NARROW
    closings = [closing for closing in topic(name).closings if len(closing) > 1]
    # The first prompts that go on after their core, one of each template, with what they close with.
    closed: dict[str, tuple[Prompt, str]] = {}
    for prompt in prompts(name, "evaluate", count=4 * count, seed=seed):
        closing = next((ending for ending in closings if prompt.text.endswith(ending)), None)
        if closing:
            closed.setdefault(prompt.template.identifier, (prompt, closing))
    if len(closed) < count:
        raise ValueError(f"{len(closed)} templates close with words, and {count} pairs are asked for")
    generator = random.Random(f"matched/{seed}")
    framed, plain = [], []
    for number, (prompt, closing) in enumerate(list(closed.values())[:count]):
        answer = answer_by(prompt, "careless", "formal", generator)
        phrase = phrases()[number % len(phrases())]
        for rows, kind in ((framed, "intent"), (plain, twin)):
            asked = Message("user", prompt.text.removesuffix(closing) + phrase[kind] + closing)
            row = dialogue(prompt, answer, pair=str(number))
            rows.append(replace(row, messages=(asked, row.messages[-1])))
    return framed, plain
