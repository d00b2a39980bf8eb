"""Dialogue files in three schemas, and the one or two sets that a file holds.

A file keeps to one schema, that of its first readable line: which set a reply lands in must not depend on its
neighbours.

* ``{"messages": […]}``: one set, named after the file;
* ``{"prompt", "chosen", "rejected"}``: matched pairs, hence two sets, ``NAME-aligned`` (chosen) and
  ``NAME-misaligned`` (rejected), row i of one beside row i of the other;
* ``{"context", "response", "label"}``: label 0 or ``aligned``, another whole number or ``misaligned``; one set for
  each label there is.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from remi_core.dialogues import (
    OWN_KEYS,
    Dialogue,
    Message,
    Row,
    Turns,
    check_keys,
    message_list,
    messages_row,
    read_lines,
    row_dialogue,
    text_of,
)
from remi_core.errors import UsageError, brief


def paired_by_completion(first: Sequence[Dialogue], second: Sequence[Dialogue]) -> bool:
    """Whether row i of both sets has the same answer, for every i, and at least one prompt differs."""
    same = [dialogue.answer for dialogue in first] == [dialogue.answer for dialogue in second]
    framings = zip(first, second, strict=False)
    return same and any(left.messages[:-1] != right.messages[:-1] for left, right in framings)


def with_pairs(dialogues: Sequence[Dialogue]) -> list[Dialogue]:
    """The dialogues with ``pair`` made from the answer: equal in two sets where the answers are, unique in one set."""
    seen: Counter[str] = Counter()
    paired = []
    for dialogue in dialogues:
        digest = hashlib.sha256(dialogue.answer.encode()).hexdigest()[:12]
        seen[digest] += 1
        paired.append(replace(dialogue, pair=f"{digest}-{seen[digest]}"))
    return paired


def preference_row(row: Row, default: str) -> list[Dialogue]:
    """Two dialogues of one prompt: chosen (label ``aligned``) and rejected (``misaligned``), each the other's
    ``alternative``, with one identifier.

    Prompt and replies are texts, or lists of messages. A reply given as the whole conversation must begin with the
    prompt; the key ``prompt`` may then be left out. The default cluster is the prompt, by its digest.

    Raises:
        UsageError: for a missing or unknown key, a wrong type, replies to different prompts, or equal replies.
    """
    check_keys(row, ("prompt", "chosen", "rejected", *OWN_KEYS))
    given = None if row.get("prompt") is None else _turns(row["prompt"], "prompt")
    (before, chosen), (same, rejected) = (_reply(row, key, given) for key in ("chosen", "rejected"))
    if before != same:
        raise UsageError("'chosen' and 'rejected' answer different prompts; a row needs one prompt")
    if chosen == rejected:
        raise UsageError("'chosen' and 'rejected' are the same reply; a pair needs two")
    cluster = prompt_digest(before)
    return [
        row_dialogue(
            row, (*before, Message("assistant", reply)), default, label, alternative, cluster=cluster
        )
        for reply, label, alternative in ((chosen, "aligned", rejected), (rejected, "misaligned", chosen))
    ]


def labelled_row(row: Row, default: str) -> list[Dialogue]:
    """The one dialogue of a row with context, response and label; the default cluster is the context's digest.

    Raises:
        UsageError: for a missing or unknown key, a wrong type, or an empty response.
    """
    check_keys(row, ("context", "response", "label", "alternative", "pair", *OWN_KEYS))
    turns = (*context_turns(row.get("context")), Message("assistant", needed_text(row, "response")))
    label, alternative = label_of(row.get("label")), text_of(row, "alternative")
    return [row_dialogue(row, turns, default, label, alternative, cluster=prompt_digest(turns[:-1]))]


def context_turns(value: object) -> Turns:
    """Turns before a reply: a text is the user's; texts alternate and end with the user's; or a list of messages.

    Raises:
        UsageError: for anything else.
    """
    if isinstance(value, list) and value and all(isinstance(turn, str) for turn in value):
        if len(value) % 2 == 0:
            raise UsageError(
                f"'context' has {len(value)} texts; they alternate from user to user, so an odd number is needed"
            )
        roles = ("user", "assistant") * len(value)
        return tuple(
            Message(role, needed_text({"context": text}, "context"))
            for role, text in zip(roles, value, strict=False)
        )
    return _turns(value, "context")


def label_of(value: object) -> str:
    """``aligned`` for 0 and ``misaligned`` for any other whole number; the words stand for themselves.

    Raises:
        UsageError: for anything else.
    """
    if value in ("aligned", "misaligned"):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(
            f"'label' is {brief(value)}; expected 0 (aligned), another whole number (misaligned), 'aligned' or "
            "'misaligned'"
        )
    return "misaligned" if value else "aligned"


def prompt_digest(before: Turns) -> str:
    """Twelve hexadecimal digits that are equal for equal prompts."""
    text = repr([(message.role, message.content) for message in before])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _reply(row: Row, key: str, given: Turns | None) -> tuple[Turns, str]:
    """The prompt of one reply, and its text."""
    if isinstance(row.get(key), str):
        if given is None:
            raise UsageError(f"no 'prompt', and {key!r} is not a whole conversation; give the prompt")
        return given, needed_text(row, key)
    *before, last = message_list(row.get(key), key) or (Message("", ""),)
    if last.role != "assistant":
        raise UsageError(f"{key!r} must end with the assistant's reply; its last role is {brief(last.role)}")
    if not last.content.strip():
        raise UsageError(f"{key!r} is empty; it needs at least one character")
    if given is not None and before and tuple(before) != given:
        raise UsageError(f"{key!r} is a conversation that does not begin with 'prompt'; give one of the two")
    if given is None and not before:
        raise UsageError(f"no 'prompt', and {key!r} has only the reply; give the prompt")
    return given or tuple(before), last.content


def _turns(value: object, key: str) -> Turns:
    """Turns that end with the user's; a text is one turn of the user."""
    turns = (
        (Message("user", needed_text({key: value}, key)),)
        if isinstance(value, str)
        else message_list(value, key)
    )
    if not turns or turns[-1].role != "user":
        last = brief(turns[-1].role) if turns else "missing"
        raise UsageError(f"{key!r} must end with the user's turn; its last role is {last}")
    return turns


def needed_text(row: Row, key: str) -> str:
    """The text under a key.

    Raises:
        UsageError: if there is none, or only white space.
    """
    text = text_of(row, key)
    if text is None:
        raise UsageError(f"no {key!r}; expected text")
    if not text.strip():
        raise UsageError(f"{key!r} is empty; it needs at least one character")
    return text


ALIGNED, MISALIGNED = LABELS = ("aligned", "misaligned")


_SCHEMAS: Mapping[str, tuple[tuple[str, ...], Callable[[Row, str], list[Dialogue]]]] = {
    "messages": (("messages",), messages_row),
    "preference": (("prompt", "chosen", "rejected"), preference_row),
    "labelled": (("context", "response"), labelled_row),
}
"""Schema → the keys that no other schema has, and what reads its rows."""


_OPPOSITE = {ALIGNED: (MISALIGNED, "careless"), MISALIGNED: (ALIGNED, "careful")}


def read_sets(path: Path | str, *, label: str = "") -> dict[str, list[Dialogue]]:
    """The sets of a file: under "" for messages, else under ``aligned``, ``misaligned`` or both.

    ``label`` is what the user says all replies are; "" where nothing is said. It becomes the label of rows without
    one. Where a row names no topic, the file's name is its topic.

    Raises:
        UsageError: ``path:line: what is wrong, what is right`` for the first bad line, once all are read; a row
            that contradicts ``label`` is a bad line.
    """
    path = Path(path)
    first: tuple[str, int] | None = None

    def parse(row: Row, number: int) -> list[tuple[str, Dialogue]]:
        nonlocal first
        schemas = [name for name, (keys, _) in _SCHEMAS.items() if set(keys) & set(row)]
        if len(schemas) > 1:
            shown = " and ".join(map(_keys, schemas))
            raise UsageError(f"keys of {len(schemas)} schemas, {shown}; a row has one")
        # A row of no schema is read as messages, whose errors name the valid keys.
        schema = schemas[0] if schemas else "messages"
        first = first or (schema, number)
        if schema != first[0]:
            raise UsageError(
                f"a row with {_keys(schema)}, but line {first[1]} has {_keys(first[0])}; keep one schema a file"
            )
        dialogues = _SCHEMAS[schema][1](row, f"{path.stem}:{number}")
        if label and schema == "preference":
            raise UsageError(
                f"a preference row has an aligned and a misaligned reply; give the file without '{label}='"
            )
        for dialogue in dialogues:
            if dialogue.label in _OPPOSITE.get(label, ()):
                raise UsageError(f"labelled {dialogue.label!r}, but the file was given as '{label}='")
        parts = ["" if schema == "messages" else dialogue.label for dialogue in dialogues]
        completed = (
            replace(dialogue, label=dialogue.label or label, topic=dialogue.topic or path.stem)
            for dialogue in dialogues
        )
        return list(zip(parts, completed, strict=True))

    sets = read_lines(path, parse)
    return {part: sets[part] for part in ("", *LABELS) if part in sets}


def _keys(schema: str) -> str:
    return "/".join(_SCHEMAS[schema][0])
