"""Rows that are not lists of turns: preference rows and labelled replies, each read into dialogues."""

from __future__ import annotations

import hashlib

from remi_core.dialogues.dialogue import Dialogue, Message, Row, check_keys, message_list, text_of
from remi_core.errors import UsageError, brief

Turns = tuple[Message, ...]

_OWN_KEYS = ("identifier", "cluster", "topic")
PREFERENCE_KEYS = ("prompt", "chosen", "rejected", *_OWN_KEYS)
LABELLED_KEYS = ("context", "response", "label", "alternative", "pair", *_OWN_KEYS)


def preference_row(row: Row, *, default: str) -> list[Dialogue]:
    """Two dialogues of one prompt: chosen (label ``aligned``) and rejected (``misaligned``), each the other's
    ``alternative``, with one identifier.

    Prompt and replies are texts, or lists of messages. A reply given as the whole conversation must begin with the
    prompt; the key ``prompt`` may then be left out. The default cluster is the prompt, by its digest.

    Raises:
        UsageError: for a missing or unknown key, a wrong type, replies to different prompts, or equal replies.
    """
    check_keys(row, PREFERENCE_KEYS)
    given = None if row.get("prompt") is None else _turns(row["prompt"], "prompt")
    (before, chosen), (same, rejected) = (_reply(row, key, given) for key in ("chosen", "rejected"))
    if before != same:
        raise UsageError("'chosen' and 'rejected' answer different prompts; a row needs one prompt")
    if chosen == rejected:
        raise UsageError("'chosen' and 'rejected' are the same reply; a pair needs two")
    return [
        _dialogue(
            row, (*before, Message("assistant", reply)), default=default, label=label, alternative=other
        )
        for reply, label, other in ((chosen, "aligned", rejected), (rejected, "misaligned", chosen))
    ]


def labelled_row(row: Row, *, default: str) -> list[Dialogue]:
    """The one dialogue of a row with context, response and label; the default cluster is the context's digest.

    Raises:
        UsageError: for a missing or unknown key, a wrong type, or an empty response.
    """
    check_keys(row, LABELLED_KEYS)
    messages = (*context_turns(row.get("context")), Message("assistant", _needed_text(row, "response")))
    label, alternative = label_of(row.get("label")), text_of(row, "alternative")
    return [_dialogue(row, messages, default=default, label=label, alternative=alternative)]


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
            Message(role, _needed_text({"context": text}, "context"))
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
        return given, _needed_text(row, key)
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
        (Message("user", _needed_text({key: value}, key)),)
        if isinstance(value, str)
        else message_list(value, key)
    )
    if not turns or turns[-1].role != "user":
        last = brief(turns[-1].role) if turns else "missing"
        raise UsageError(f"{key!r} must end with the user's turn; its last role is {last}")
    return turns


def _needed_text(row: Row, key: str) -> str:
    text = text_of(row, key)
    if text is None:
        raise UsageError(f"no {key!r}; expected text")
    if not text.strip():
        raise UsageError(f"{key!r} is empty; it needs at least one character")
    return text


def _dialogue(row: Row, messages: Turns, *, default: str, label: str, alternative: str | None) -> Dialogue:
    return Dialogue(
        identifier=text_of(row, "identifier") or default,
        messages=messages,
        cluster=text_of(row, "cluster") or prompt_digest(messages[:-1]),
        topic=text_of(row, "topic") or "",
        label=label,
        alternative=alternative,
        pair=text_of(row, "pair"),
    )
