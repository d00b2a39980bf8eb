"""Dialogues: what a model is asked, what it is made to have answered, and the file format they come in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from remi_core.errors import UsageError, nearest

ROLES = ("system", "user", "assistant")
_REQUIRED = "messages"
_TEXT_KEYS = ("identifier", "cluster", "topic", "label", "alternative", "pair")


@dataclass(frozen=True)
class Message:
    """One turn: a role of ``ROLES`` and its text."""

    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """A conversation that ends with the assistant's answer.

    Raises:
        UsageError: if the turns are out of order, or the last one is not a non-empty answer.
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
        problem = _problem(self.messages)
        if problem is None and self.alternative is not None and not self.alternative.strip():
            problem = "the alternative is empty; leave it out or give the other answer"
        if problem is not None:
            raise UsageError(f"dialogue {self.identifier!r}: {problem}")

    @property
    def answer(self) -> str:
        """The text of the last assistant turn."""
        return self.messages[-1].content

    def with_answer(self, answer: str) -> tuple[Message, ...]:
        """The same turns with another last answer."""
        return (*self.messages[:-1], Message("assistant", answer))


def _problem(messages: tuple[Message, ...]) -> str | None:
    """What is wrong with the turns and what is right, or None."""
    for message in messages:
        if message.role not in ROLES:
            return f"unknown role {message.role!r} {nearest(message.role, ROLES)}"
    roles = [message.role for message in messages]
    if not roles or roles[-1] != "assistant":
        last = repr(roles[-1]) if roles else "missing"
        return f"the last message is {last}, it must be 'assistant' (the answer to measure)"
    turns = roles[1:] if roles[0] == "system" else roles
    if turns != [("user", "assistant")[position % 2] for position in range(len(turns))]:
        order = ", ".join(roles)
        return f"roles are {order}; right is an optional system, then user and assistant in turn"
    if not messages[-1].content.strip():
        return "the answer (last assistant message) is empty; it needs at least one character"
    return None


def read_jsonl(path: Path | str) -> list[Dialogue]:
    """The dialogues of a file with one ``{"messages": [{"role", "content"}, …]}`` object a line.

    Optional keys: identifier (default ``<file stem>:<line>``), cluster (default the identifier, so that every
    dialogue is a cluster of its own), topic, label, alternative, pair. The file is UTF-8.

    Raises:
        UsageError: ``path:line: what is wrong, what is right`` for the first bad line; every line is read
        before
            anything is returned, and the number of further bad lines is said.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such file; expected a file with one dialogue a line")
    # Splitting bytes keeps the line numbers right: str.splitlines also breaks at U+2028, which JSON allows.
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")
    if lines == [b""]:
        raise UsageError(f"{path}:1: the file is empty; expected one dialogue a line")
    dialogues: list[Dialogue] = []
    problems: list[str] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        try:
            dialogue = _parse_line(line, default=f"{path.stem}:{number}")
            if dialogue.identifier in first_line:
                seen = first_line[dialogue.identifier]
                raise UsageError(
                    f"identifier {dialogue.identifier!r} is taken by line {seen}; make it unique"
                )
        except UsageError as error:
            problems.append(f"{path}:{number}: {error}")
            continue
        first_line[dialogue.identifier] = number
        dialogues.append(dialogue)
    if problems:
        more = f" (and {len(problems) - 1} more bad lines)" if len(problems) > 1 else ""
        raise UsageError(problems[0] + more)
    return dialogues


def _parse_line(line: bytes, *, default: str) -> Dialogue:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"byte {error.start + 1} is not UTF-8; save the file as UTF-8") from None
    except (json.JSONDecodeError, RecursionError) as error:
        reason = (
            f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else "too deep"
        )
        raise UsageError(f'not JSON ({reason}); expected {{"messages": […]}}') from None
    if not isinstance(row, dict):
        raise UsageError(f'a JSON {type(row).__name__}, expected an object {{"messages": […]}}')
    for key in row:
        if key != _REQUIRED and key not in _TEXT_KEYS:
            raise UsageError(f"unknown key {key!r} {nearest(key, (_REQUIRED, *_TEXT_KEYS))}")
    identifier = _text(row, "identifier") or default
    return Dialogue(
        identifier=identifier,
        messages=_parse_messages(row.get(_REQUIRED)),
        cluster=_text(row, "cluster") or identifier,
        topic=_text(row, "topic") or "",
        label=_text(row, "label") or "",
        alternative=_text(row, "alternative"),
        pair=_text(row, "pair"),
    )


def _parse_messages(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise UsageError('no list \'messages\'; expected [{"role": …, "content": …}, …]')
    messages = []
    for number, item in enumerate(value, start=1):
        if not isinstance(item, dict) or set(item) != {"role", "content"}:
            raise UsageError(f"message {number} must be an object with exactly the keys role and content")
        role, content = (_text(item, key) for key in ("role", "content"))
        if role is None or content is None:
            raise UsageError(f"message {number}: role and content must be text, not null")
        messages.append(Message(role, content))
    return tuple(messages)


def _text(row: dict[str, object], key: str) -> str | None:
    """The text under a key, None when absent or null."""
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise UsageError(f"{key!r} is a {type(value).__name__}, expected text")
    # JSON can escape half of a surrogate pair, which no tokenizer can encode.
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise UsageError(f"{key!r} holds half a surrogate pair; write the whole character")
    return value
