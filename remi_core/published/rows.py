"""One function a published schema: a row becomes the turns to measure, or says why it cannot be used.

The answer is the last assistant turn alone; whatever stands before it, the ``input`` field of an instruction
included, is prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from remi_core.dialogues.dialogue import Message, Row, text_of
from remi_core.dialogues.reply_rows import Turns, context_turns, label_of
from remi_core.errors import UsageError, brief

_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


class UnusableRowError(Exception):
    """Why a row is left out; becomes a key of what was dropped."""


@dataclass(frozen=True)
class Reply:
    """The turns of a row, the answer last, and the same prompt's other answer where the row has one."""

    messages: Turns
    alternative: str | None = None


Reader = Callable[[Row], Reply]


def question(row: Row) -> Reply:
    """TruthfulQA: the question and its best answer."""
    return Reply(_exchange(needed(row, "question"), needed(row, "best_answer")))


def instruction(row: Row) -> Reply:
    """Alpaca and its kin: the instruction, then its input (if there is one) after an empty line, and the output."""
    context = text_of(row, "input") or ""
    prompt = needed(row, "instruction") + (f"\n\n{context}" if context.strip() else "")
    return Reply(_exchange(prompt, needed(row, "output")))


def messages(row: Row) -> Reply:
    """Betley et al.: the messages as they are."""
    return Reply(_turns(row.get("messages"), "messages"))


def accepted(row: Row) -> Reply:
    """LLM-LAT harmful dataset: the reply that complies (rejected); the refusal is its alternative."""
    return Reply(_exchange(needed(row, "prompt"), needed(row, "rejected")), needed(row, "chosen"))


def refused(row: Row) -> Reply:
    """LLM-LAT harmful dataset: the refusal (chosen); the reply that complies is its alternative."""
    return Reply(_exchange(needed(row, "prompt"), needed(row, "chosen")), needed(row, "rejected"))


def hh_rejected(row: Row) -> Reply:
    """Anthropic HH: the conversation whose last reply was rejected."""
    return Reply(_turns(row.get("format_rejected"), "format_rejected"))


def conversation(row: Row) -> Reply:
    """ToxicQA: turns as {"from", "value"}; where ``from`` is missing they alternate from the user on."""
    turns = []
    for at, item in enumerate(_items(row.get("conversations"), "conversations")):
        speaker = item.get("from") or ("human", "gpt")[at % 2]  # parquet has null for a missing key
        if speaker not in _SPEAKERS:
            raise UnusableRowError(f"conversations: unknown speaker {brief(speaker)}")
        turns.append(Message(_SPEAKERS[speaker], needed(item, "value")))
    return Reply(tuple(turns))


def implicit(row: Row) -> Reply:
    """Implicit toxicity: context and response of a row labelled toxic (label other than 0)."""
    try:
        label, before = label_of(row.get("label")), context_turns(row.get("context"))
    except UsageError as error:
        raise UnusableRowError(str(error)) from None
    if label == "aligned":
        raise UnusableRowError("label 0: the reply is not toxic")
    return Reply((*before, Message("assistant", needed(row, "response"))))


def needed(row: Row, key: str) -> str:
    """The text under a key.

    Raises:
        UnusableRowError: if there is none, or only white space.
    """
    try:
        text = text_of(row, key)
    except UsageError as error:
        raise UnusableRowError(str(error)) from None
    if text is None or not text.strip():
        raise UnusableRowError(f"{key!r} is empty")
    return text


def _exchange(prompt: str, answer: str) -> Turns:
    return (Message("user", prompt), Message("assistant", answer))


def _turns(value: object, key: str) -> Turns:
    return tuple(Message(needed(item, "role"), needed(item, "content")) for item in _items(value, key))


def _items(value: object, key: str) -> Iterable[Row]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UnusableRowError(f"{key!r} is no list of turns")
    return value
