"""Dialogues: what one is, and the files that people keep them in."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from remi_core.errors import UsageError, brief, nearest

ROLES = ("system", "developer", "user", "assistant", "tool")
_ROLES_SHOWN = 8

_UNREADABLE = re.compile("[\x00\ud800-\udfff]")
"""What no tokenizer can encode, or no array of texts can hold."""


@dataclass(frozen=True)
class Message:
    """One turn: a role of ``ROLES`` and its text, an assistant's thoughts first, in ``<think>…</think>``."""

    role: str
    content: str
    more: str | None = None
    """Further keys for the chat template, such as ``tool_calls``: a JSON object."""

    @property
    def parts(self) -> tuple[str | None, str]:
        """What an assistant thought, None where it has no place for that, and the answer proper."""
        opening, end, answer = self.content.partition("</think>")
        thought = opening.strip().removeprefix("<think>")
        if self.role != "assistant" or not end or thought == opening.strip():
            return None, self.content
        return thought.strip(), answer.lstrip()


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """A conversation that ends with the assistant's answer.

    Raises:
        UsageError: if the turns are out of order, the last one is not a non-empty answer, or a text cannot be encoded.
    """

    identifier: str
    """Unique within its data set."""
    messages: tuple[Message, ...]
    """The turns in order: system and developer, then a user's, then others, and last the assistant's to measure."""
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
        if self.alternative is not None and not Message("assistant", self.alternative).parts[1].strip():
            problem = problem or "the alternative is empty; leave it out or give the other answer"
        if problem is not None:
            raise UsageError(f"dialogue {brief(self.identifier)}: {problem}")

    @property
    def answer(self) -> str:
        """The text of the last assistant turn, without what it thought."""
        return self.messages[-1].parts[1]


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
    opening = next(place for place, role in enumerate(roles) if role not in ROLES[:2])
    if roles[opening] != "user" or set(roles[opening:]) & set(ROLES[:2]):
        order = ", ".join(roles[:_ROLES_SHOWN]) + (", …" if len(roles) > _ROLES_SHOWN else "")
        return f"roles are {order}; right is an optional system, then a user, then no system"
    if not messages[-1].parts[1].strip():
        return "the answer (last assistant message) is empty; it needs at least one character"
    return None


def text_problem(text: str) -> str | None:
    """What keeps a text from being encoded and what is right, or None."""
    unreadable = _UNREADABLE.search(text)
    if unreadable is None:
        return None
    if unreadable[0] == "\x00":
        return "holds a null character; leave it out"
    return "holds half a surrogate pair; write the whole character"


# JSON from outside, read strictly: one object a line, each key once, UTF-8, of a length that a dialogue can have.

LONGEST_LINE = 8_000_000
"""Bytes of a line: hundreds of times the longest context, and less than what a tokenizer needs minutes for."""

Row = Mapping[str, object]
"""One line of a file, a JSON object, as Python has it."""


def json_object(text: bytes) -> dict[str, object]:
    """The one JSON object that the bytes spell.

    Raises:
        UsageError: in one line, if they are no UTF-8, no JSON, no object, too long or too deep, or if a key is there
            twice or a number is none that JSON has.
    """
    if len(text) > LONGEST_LINE:
        raise UsageError(f"{len(text)} bytes in one line; at most {LONGEST_LINE} are read")
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise UsageError(f"byte {error.start + 1} is not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise UsageError(f"not JSON ({error.msg}, column {error.colno}); expected one JSON object") from None
    except RecursionError:
        raise UsageError("not JSON (too deep); expected one JSON object") from None
    except UsageError:
        raise
    except ValueError as error:  # a whole number of more digits than Python reads
        raise UsageError(f"a number that cannot be read ({error})") from None
    if not isinstance(value, dict):
        raise UsageError(f"a JSON {type(value).__name__}, expected an object")
    return value


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object's keys and values; of two equal keys Python would keep the second and lose the first in silence."""
    values: dict[str, object] = {}
    for name, value in pairs:
        if name in values:
            raise UsageError(f"key {brief(name)} is there twice; write it once")
        values[name] = value
    return values


def _no_number(name: str) -> NoReturn:
    raise UsageError(f"{name} is no number of JSON")


def read_jsonl(path: Path | str) -> list[Dialogue]:
    """The dialogues of a file with one ``{"messages": [{"role", "content"}, …]}`` object a line.

    Optional keys: identifier (default ``<file stem>:<line>``), cluster (default the identifier, so that every
    dialogue is a cluster of its own), topic, label, alternative, pair. The file is UTF-8; blank lines are passed over.
    Other schemas and containers are read by ``remi_lab.dialogue_files.read_sets``.

    Raises:
        UsageError: ``path:line: what is wrong, what is right`` for the first bad line, such as one whose identifier
            is taken; every line is read before anything is returned, and the number of further bad lines is said.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such file; expected a file with one dialogue a line")
    # Splitting bytes keeps the line numbers right: str.splitlines also breaks at U+2028, which JSON allows.
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    read: dict[str, Dialogue] = {}
    first_lines: dict[str, int] = {}
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            for dialogue in messages_row(json_object(line), f"{path.stem}:{number}") if line.strip() else ():
                seen = first_lines.setdefault(dialogue.identifier, number)
                if seen != number:
                    taken = brief(dialogue.identifier)
                    raise UsageError(f"identifier {taken} is taken by line {seen}; make it unique")
                read[dialogue.identifier] = dialogue
        except UsageError as error:
            problems.append(f"{path}:{number}: {error}")
    if problems:
        more = f" (and {len(problems) - 1} more bad lines)" if len(problems) > 1 else ""
        raise UsageError(problems[0] + more)
    if not read:
        raise UsageError(f"{path}:1: the file is empty; expected one dialogue a line")
    return list(read.values())


def dialogues(chats: Sequence[Sequence[Mapping[str, str]] | Mapping[str, object]]) -> list[Dialogue]:
    """Chats in memory as dialogues, in their order.

    A chat is the list of messages that a chat template takes and ends with the reply to measure, or a whole row as
    ``read_jsonl`` reads it: ``{"messages": […], "cluster": "greetings", "label": "careful"}``. Without a cluster,
    which is what intervals resample, every chat is a prompt of its own.
    Example: ``dialogues([[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]])``

    Raises:
        UsageError: naming the chat by its number from 0, and what is wrong with it.
    """
    read: dict[str, Dialogue] = {}
    for number, chat in enumerate(chats):
        row = chat if isinstance(chat, Mapping) else {"messages": chat}
        try:
            (dialogue,) = messages_row(row, f"chat:{number}")
        except UsageError as error:
            raise UsageError(f"chat {number}: {error}") from None
        if dialogue.identifier in read:
            raise UsageError(f"chat {number}: identifier {dialogue.identifier!r} is taken; make it unique")
        read[dialogue.identifier] = dialogue
    return list(read.values())


# Rows, each read into dialogues; ``default`` is the identifier of a row that names none.

Turns = tuple[Message, ...]

OWN_KEYS = ("identifier", "cluster", "topic")


def messages_row(row: Row, default: str) -> list[Dialogue]:
    """The one dialogue of a row with the key ``messages``; the default cluster is the identifier.

    Raises:
        UsageError: for an unknown key, a value of the wrong type, or turns that are no dialogue.
    """
    check_keys(row, ("messages", *OWN_KEYS, "label", "alternative", "pair"))
    identifier = text_of(row, "identifier") or default
    turns = message_list(row.get("messages"), "messages")
    label, alternative = text_of(row, "label") or "", text_of(row, "alternative")
    return [row_dialogue(row, turns, identifier, label, alternative, cluster=identifier)]


def row_dialogue(
    row: Row, messages: Turns, default: str, label: str, alternative: str | None, *, cluster: str
) -> Dialogue:
    """The dialogue of a row with these turns; ``default`` and ``cluster`` stand where the row names none."""
    return Dialogue(
        identifier=text_of(row, "identifier") or default,
        messages=messages,
        cluster=text_of(row, "cluster") or cluster,
        topic=text_of(row, "topic") or "",
        label=label,
        alternative=alternative,
        pair=text_of(row, "pair"),
    )


def check_keys(row: Row, known: Collection[str]) -> None:
    """Check that every key of the row is known.

    Raises:
        UsageError: naming the first that is not, and the nearest known one.
    """
    for key in row:
        if key not in known:
            raise UsageError(f"unknown key {brief(key)} {nearest(key, known)}")


def message_list(value: object, key: str) -> tuple[Message, ...]:
    """The turns of a list of objects with role, content and what else a message has; ``key`` is where it was found.

    Raises:
        UsageError: if it is anything else.
    """
    if not isinstance(value, list):
        raise UsageError(f'no list {key!r}; expected [{{"role": …, "content": …}}, …]')
    messages = []
    for number, item in enumerate(value, start=1):
        try:
            messages.append(_message(item))
        except UsageError as error:
            where = "message" if key == "messages" else f"{key!r}: message"
            raise UsageError(f"{where} {number}: {error}") from None
    return tuple(messages)


_MORE = ("name", "tool_calls", "tool_call_id")


def _message(item: object) -> Message:
    given = {key: value for key, value in item.items() if value is not None} if isinstance(item, dict) else {}
    # A weight says what is trained on, which makes no other dialogue; what an unknown key says would be lost.
    check_keys(given, ("role", "content", "reasoning_content", "weight", *_MORE))
    content = given.get("content", "" if "tool_calls" in given else None)
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict) or part.get("type") != "text" or text_of(part, "text") is None:
            raise UsageError(f"its content has the part {brief(part)}; only parts of type text are read")
    given["content"] = "".join(part["text"] for part in content) if isinstance(content, list) else content
    role, content, thought = (text_of(given, key) for key in ("role", "content", "reasoning_content"))
    if role is None or content is None or (thought and (role != "assistant" or "</think>" in thought)):
        raise UsageError(
            "expected text under role and content, and an assistant's reasoning without </think>"
        )
    try:
        [call["function"]["name"].strip() for call in given.get("tool_calls", ())]
        more = json.dumps({key: given[key] for key in _MORE if given.get(key)}, ensure_ascii=False)
    except (AttributeError, KeyError, RecursionError, TypeError):
        raise UsageError('its tool_calls must be [{"function": {"name": …, "arguments": …}}, …]') from None
    thoughts = f"<think>\n{thought}\n</think>\n\n" if thought else ""
    return Message(role, thoughts + content, text_of({"more": more}, "more") if more != "{}" else None)


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
