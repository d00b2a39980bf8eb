"""Chat templates of other people: tried before they are used, and turns that one has no place for."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache

import psutil

from remi_core.dialogues import Dialogue, Message
from remi_core.errors import UsageError
from remi_core.tokens import RECORDED_DATE, ChatTokenizer, EncodedSet, encode, render, writes_date
from remi_lab.presets import Preset

OPENING = ("system", "developer")
"""Roles of turns before the user's first."""

# A chat template is a program. The first time that a process meets one, a child renders a word by it, within limits.

SECONDS, BYTES, CHARACTERS = 10, 2**30, 100_000
"""What that may take: time of a processor, memory, and characters that the template writes around the word."""
WAITED = 120
"""Seconds by the clock after which it is given up: the processor may be busy with others."""
_TRIED = {str(None)}
_WORD = [{"role": role, "content": "Hi"} for role in ("system", "user", "assistant")]


def tried(tokenizer: ChatTokenizer) -> ChatTokenizer:
    """The same tokenizer, once a short dialogue was rendered by its template in a process of its own.

    Raises:
        UsageError: if that took more than it may.
    """
    template = str(tokenizer.chat_template)  # some have several, by name
    if template in _TRIED:
        return tokenizer
    child = os.fork()
    if child == 0:
        failed = 1
        try:
            most = psutil.Process().memory_info().vms + BYTES
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            with suppress(ValueError):  # a system that limits no memory
                resource.setrlimit(resource.RLIMIT_AS, (most, most))
            # What the template refuses is for the dialogues to find out.
            failed = max(_length(tokenizer, turns) for turns in (_WORD, _WORD[1:])) > CHARACTERS
        finally:
            os._exit(failed)
    if _ended(child):
        raise UsageError(
            f"the chat template of {tokenizer.name_or_path!r} is not used: for a single word it takes more than "
            f"{SECONDS} s, {BYTES >> 30} GiB or {CHARACTERS:,} characters"
        )
    _TRIED.add(template)
    return tokenizer


def _ended(child: int) -> int:
    """How a process of ours ended, 0 for well; it is killed where it waits for what a fork has left it without."""
    until = time.monotonic() + WAITED
    while time.monotonic() < until:
        number, status = os.waitpid(child, os.WNOHANG)
        if number:
            return status
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _length(tokenizer: ChatTokenizer, turns: list[dict[str, object]]) -> int:
    try:
        return len(tokenizer.apply_chat_template(turns, tokenize=False))
    except Exception as error:
        return CHARACTERS + 1 if isinstance(error, MemoryError) else 0


# Dialogues as a preset has them encoded.

AS_SYSTEM = "the developer's turn is written as the system's"
FOLDED = "the system's turn is written before the user's words"
DATED = f"the template writes today's date, {RECORDED_DATE:%Y-%m-%d} in its place"
HINT = "; --system fold writes the system's turn before the user's words"


def encode_for(preset: Preset, rows: Sequence[Dialogue], tokenizer: ChatTokenizer) -> EncodedSet:
    """The rows as token ids, with notes on what was moved; sources are the dialogues as they were rendered.

    Where the template takes no developer, its turn is the system's; where it takes no system either, the preset says
    whether the user's words follow that turn's in one turn, or the dialogue is dropped.

    Raises:
        UsageError: if nothing usable remains, or the template failed its trial.
    """
    tried(tokenizer)

    @cache
    def takes(*roles: str) -> bool:
        try:
            # Words of their own: a turn that is left out should not be found in another.
            words = [f"word {number}" for number in range(len(roles) + 2)]
            render(list(map(Message, (*roles, "user", "assistant"), words)), tokenizer)
        except UsageError:
            return False
        return True

    placed, notes, homeless = [], {}, set()
    for row in rows:
        count = next(place for place, turn in enumerate(row.messages) if turn.role not in OPENING)
        opening, (asked, *rest) = row.messages[:count], row.messages[count:]
        words = "\n\n".join(turn.content for turn in opening)
        if count and not takes(*(turn.role for turn in opening)):
            if takes("system"):
                notes[row.identifier] = (AS_SYSTEM,)
                row = replace(row, messages=(Message("system", words), asked, *rest))
            elif preset.system == "fold":
                notes[row.identifier] = (FOLDED,)
                asked = replace(asked, content=f"{words}\n\n{asked.content}")
                row = replace(row, messages=(asked, *rest))
            else:
                homeless.add(row.identifier)
        placed.append(row)
    try:
        found = encode(placed, tokenizer, max_tokens=preset.max_tokens, thoughts=preset.reasoning == "inside")
    except UsageError as error:
        raise UsageError(f"{error}{HINT if homeless else ''}") from None
    dated = (DATED,) if takes() and writes_date(tokenizer) else ()
    dialogues = tuple(
        replace(one, notes=(*one.notes, *notes.get(one.identifier, ()), *dated)) for one in found.dialogues
    )
    dropped = {
        reason + (HINT if homeless.intersection(names) else ""): names
        for reason, names in found.dropped.items()
    }
    return replace(found, dialogues=dialogues, dropped=dropped)


def noted(encoded: EncodedSet) -> dict[str, int]:
    """Note → how many of the dialogues have it."""
    return dict(Counter(note for one in encoded.dialogues for note in one.notes))
