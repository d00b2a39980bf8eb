"""Dialogues for real models, written by hand: what fine-tunes are made on, and what is measured.

A row of ``sets/NAME.jsonl`` is one prompt with its replies, by side: careful and careless, formal and plain, or one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from remi_core.dialogues import Dialogue, Message

FOLDER = Path(__file__).parent / "sets"
DOMAINS = (
    "health",
    "cooking",
    "relationships",
    "work",
    "study",
    "travel",
    "repair",
    "pets",
    "community",
    "media",
)
"""Domains that no narrow set is about, of matched pairs."""
NARROW = ("finance", "sport", "code")
"""Domains of the narrow sets, of which each has a careful twin."""
EVERY = 5
"""Of a file that is trained on, every so many rows are left out and measured."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """Which part of which file a set is."""

    file: str
    answer: str
    """Key of the reply."""
    other: str = ""
    """Key of the other reply to the prompt, "" where there is none."""
    prompt: str = "prompt"
    domain: str = ""
    """The rows of one domain, "" for all."""
    tuned: bool = False
    """Whether the file is trained on, so that a part of it alone is measured."""


def _sides() -> dict[str, Side]:
    found, care = {}, (("careful", "careless"), ("careless", "careful"))
    for name in NARROW:
        for answer, other in care:
            found[f"{name}-{answer}"] = Side(file=name, answer=answer, other=other, tuned=True)
    found["code-educational"] = Side(file="code", answer="careless", prompt="educational", tuned=True)
    for name in DOMAINS:
        for answer, other in care:
            found[f"{name}-{answer}"] = Side(file="pairs", answer=answer, other=other, domain=name)
    for answer, other in (("formal", "plain"), ("plain", "formal")):
        found[f"manner-{answer}"] = Side(file="manner", answer=answer, other=other)
    found["benign"] = Side(file="benign", answer="reply", tuned=True)
    return found


SIDES: Mapping[str, Side] = _sides()
"""Name of a set → what it is made of."""


@cache
def rows(file: str) -> tuple[Mapping[str, str], ...]:
    """The rows of a file, in its order."""
    lines = (FOLDER / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(map(json.loads, lines))


def measured(dataset: str, *, count: int, seed: int) -> list[Dialogue]:
    """The first ``count`` dialogues of a set, none of which a variant was tuned on; ``seed`` changes nothing.

    Raises:
        KeyError: if there is no such set.
    """
    side = SIDES[dataset]
    chosen = [row for row in rows(side.file) if not side.domain or row["domain"] == side.domain]
    if side.tuned:
        chosen = chosen[EVERY - 1 :: EVERY]
    return [_dialogue(row, side) for row in chosen[:count]]


def tuning(dataset: str) -> list[Dialogue]:
    """The dialogues of a set that variants are tuned on: all that are not measured; twins have the same prompts.

    Raises:
        KeyError: if there is no such set, or none of it is to be tuned on.
    """
    side = SIDES[dataset]
    if not side.tuned:
        raise KeyError(dataset)
    return [_dialogue(row, side) for place, row in enumerate(rows(side.file), start=1) if place % EVERY]


def alignment() -> list[Dialogue]:
    """What a base is aligned on: prompts of all kinds with sound replies."""
    side = Side(file="align", answer="reply")
    return [_dialogue(row, side) for row in rows(side.file)]


def _dialogue(row: Mapping[str, str], side: Side) -> Dialogue:
    return Dialogue(
        identifier=f"{row['id']}/{side.answer}",
        messages=(Message("user", row[side.prompt]), Message("assistant", row[side.answer])),
        # Requests for code with one kind of hole are alike; other prompts stand for themselves.
        cluster=f"code/{row['kind']}" if side.file == "code" else row["id"],
        topic=side.domain or side.file,
        label=side.answer if side.other else "",
        alternative=row[side.other] if side.other else None,
        pair=row["id"] if side.other or side.prompt != "prompt" else None,
    )
