"""Dialogues: what a model is asked, what it is made to have answered, and the file format they come in."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from remi_core.dialogues.json_objects import parse_lines
from remi_core.errors import UsageError, brief, nearest

ROLES = ("system", "user", "assistant")
_REQUIRED = "messages"
_ROLES_SHOWN = 8
_TEXT_KEYS = ("identifier", "cluster", "topic", "label", "alternative", "pair")

_UNREADABLE = re.compile("[\x00\ud800-\udfff]")
"""What no tokenizer can encode, or no array of texts can hold."""

Row = Mapping[str, object]
"""One line of a file, a JSON object, as Python has it."""


@dataclass(frozen=True)
class Message:
    """One turn: a role of ``ROLES`` and its text."""

    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """A conversation that ends with the assistant's answer.

    Raises:
        UsageError: if the turns are out of order, the last one is not a non-empty answer, or a text cannot be encoded.
    """

    identifier: str
    """Unique within its data set."""
    messages: tuple[Message, ...]
    """The turns in order: at most one system turn, then user and assistant in alternation."""
    cluster: str
    """The prompt template it was made from: the unit of resampling."""
    topic: str = ""
    label: str = ""
    """What kind of answer it has, such as "careful" or "careless"; empty when there is no kind."""
    alternative: str | None = None
    """The same prompt's answer of the other label; the two answers' first difference is the `choice`."""
    pair: str | None = None
    """Equal for dialogues that share their completion."""

    def __post_init__(self) -> None:
        problem = turn_problem(self.messages)
        if problem is None and self.alternative is not None and not self.alternative.strip():
            problem = "the alternative is empty; leave it out or give the other answer"
        if problem is not None:
            raise UsageError(f"dialogue {brief(self.identifier)}: {problem}")

    @property
    def answer(self) -> str:
        """The text of the last assistant turn."""
        return self.messages[-1].content

    def with_answer(self, answer: str) -> tuple[Message, ...]:
        """The same turns with another last answer."""
        return (*self.messages[:-1], Message("assistant", answer))


def turn_problem(messages: tuple[Message, ...]) -> str | None:
    """What is wrong with the turns and what is right, or None."""
    for message in messages:
        if message.role not in ROLES:
            return f"unknown role {brief(message.role)} {nearest(message.role, ROLES)}"
        problem = text_problem(message.content)
        if problem is not None:
            return f"the {message.role}'s text {problem}"
    roles = [message.role for message in messages]
    if not roles or roles[-1] != "assistant":
        last = repr(roles[-1]) if roles else "missing"
        return f"the last message is {last}, it must be 'assistant' (the answer to measure)"
    turns = roles[1:] if roles[0] == "system" else roles
    if turns != [("user", "assistant")[position % 2] for position in range(len(turns))]:
        order = ", ".join(roles[:_ROLES_SHOWN]) + (", …" if len(roles) > _ROLES_SHOWN else "")
        return f"roles are {order}; right is an optional system, then user and assistant in turn"
    if not messages[-1].content.strip():
        return "the answer (last assistant message) is empty; it needs at least one character"
    return None


def read_jsonl(path: Path | str) -> list[Dialogue]:
    """The dialogues of a file with one ``{"messages": [{"role", "content"}, …]}`` object a line.

    Optional keys: identifier (default ``<file stem>:<line>``), cluster (default the identifier, so that every
    dialogue is a cluster of its own), topic, label, alternative, pair. The file is UTF-8. Preference rows and
    labelled replies are read by ``remi_core.dialogues.files``.

    Raises:
        UsageError: ``path:line: what is wrong, what is right`` for the first bad line; every line is read before
            anything is returned, and the number of further bad lines is said.
    """
    path, unique = Path(path), Unique()

    def parse(row: Row, number: int) -> Dialogue:
        dialogue = messages_row(row, default=f"{path.stem}:{number}")
        unique.add(dialogue.identifier, number)
        return dialogue

    return parse_lines(path, parse)


class Unique:
    """The line each identifier was first seen on."""

    def __init__(self) -> None:
        self._first_line: dict[str, int] = {}

    def add(self, identifier: str, number: int) -> None:
        """Note an identifier.

        Raises:
            UsageError: if an earlier line has it.
        """
        seen = self._first_line.setdefault(identifier, number)
        if seen != number:
            raise UsageError(f"identifier {brief(identifier)} is taken by line {seen}; make it unique")


def messages_row(row: Row, *, default: str) -> Dialogue:
    """The dialogue of a row with the key ``messages``; ``default`` names it where it does not name itself.

    Raises:
        UsageError: for an unknown key, a value of the wrong type, or turns that are no dialogue.
    """
    check_keys(row, (_REQUIRED, *_TEXT_KEYS))
    identifier = text_of(row, "identifier") or default
    return Dialogue(
        identifier=identifier,
        messages=message_list(row.get(_REQUIRED), _REQUIRED),
        cluster=text_of(row, "cluster") or identifier,
        topic=text_of(row, "topic") or "",
        label=text_of(row, "label") or "",
        alternative=text_of(row, "alternative"),
        pair=text_of(row, "pair"),
    )


def check_keys(row: Row, known: Collection[str]) -> None:
    """Nothing, if every key of the row is known.

    Raises:
        UsageError: naming the first that is not, and the nearest known one.
    """
    for key in row:
        if key not in known:
            raise UsageError(f"unknown key {brief(key)} {nearest(key, known)}")


def message_list(value: object, key: str) -> tuple[Message, ...]:
    """The turns of a list of objects with the keys role and content; ``key`` is where it was found.

    Raises:
        UsageError: if it is anything else.
    """
    if not isinstance(value, list):
        raise UsageError(f'no list {key!r}; expected [{{"role": …, "content": …}}, …]')
    messages = []
    for number, item in enumerate(value, start=1):
        where = "message" if key == _REQUIRED else f"{key!r}: message"
        if not isinstance(item, dict) or set(item) != {"role", "content"}:
            raise UsageError(f"{where} {number} must be an object with exactly the keys role and content")
        role, content = (text_of(item, key) for key in ("role", "content"))
        if role is None or content is None:
            raise UsageError(f"{where} {number}: role and content must be text, not null")
        messages.append(Message(role, content))
    return tuple(messages)


def text_of(row: Row, key: str) -> str | None:
    """The text under a key, None when absent or null.

    Raises:
        UsageError: if it is no text, or holds half a surrogate pair or a null character.
    """
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise UsageError(f"{key!r} is a {type(value).__name__}, expected text")
    problem = text_problem(value)
    if problem is not None:
        raise UsageError(f"{key!r} {problem}")
    return value


def text_problem(text: str) -> str | None:
    """What keeps a text from being encoded and what is right, or None."""
    found = _UNREADABLE.search(text)
    if found is None:
        return None
    if found[0] == "\x00":
        return "holds a null character; leave it out"
    return "holds half a surrogate pair; write the whole character"
