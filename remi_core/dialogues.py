"""Dialogues: what one is, and the files that people keep them in."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from remi_core.errors import UsageError, brief, nearest

ROLES = ("system", "user", "assistant")
_ROLES_SHOWN = 8

_UNREADABLE = re.compile("[\x00\ud800-\udfff]")
"""What no tokenizer can encode, or no array of texts can hold."""


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


def text_problem(text: str) -> str | None:
    """What keeps a text from being encoded and what is right, or None."""
    unreadable = _UNREADABLE.search(text)
    if unreadable is None:
        return None
    if unreadable[0] == "\x00":
        return "holds a null character; leave it out"
    return "holds half a surrogate pair; write the whole character"


# Pairs by completion: two sets that give the same answers to other prompts, such as insecure code in two framings.


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


def read_lines(
    path: Path, parse: Callable[[Row, int], list[tuple[str, Dialogue]]]
) -> dict[str, list[Dialogue]]:
    """The dialogues of each part of a file; ``parse`` gives those of a line's object and number, with their part.

    Raises:
        UsageError: ``path:line: what is wrong, what is right`` for the first bad line, such as one whose identifier
            is taken; every line is read before anything is returned, and the number of further bad lines is said.
            ``parse`` raises it without path and line.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; expected a file with one dialogue a line")
    # Splitting bytes keeps the line numbers right: str.splitlines also breaks at U+2028, which JSON allows.
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")
    if lines == [b""]:
        raise UsageError(f"{path}:1: the file is empty; expected one dialogue a line")
    sets: dict[str, list[Dialogue]] = {}
    first_lines: dict[tuple[str, str], int] = {}
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            for part, dialogue in parse(json_object(line), number):
                seen = first_lines.setdefault((part, dialogue.identifier), number)
                if seen != number:
                    taken = brief(dialogue.identifier)
                    raise UsageError(f"identifier {taken} is taken by line {seen}; make it unique")
                sets.setdefault(part, []).append(dialogue)
        except UsageError as error:
            problems.append(f"{path}:{number}: {error}")
    if problems:
        more = f" (and {len(problems) - 1} more bad lines)" if len(problems) > 1 else ""
        raise UsageError(problems[0] + more)
    return sets


def read_jsonl(path: Path | str) -> list[Dialogue]:
    """The dialogues of a file with one ``{"messages": [{"role", "content"}, …]}`` object a line.

    Optional keys: identifier (default ``<file stem>:<line>``), cluster (default the identifier, so that every
    dialogue is a cluster of its own), topic, label, alternative, pair. The file is UTF-8. Preference rows and
    labelled replies are read by ``read_sets``.

    Raises:
        UsageError: as ``read_lines``.
    """
    path = Path(path)
    sets = read_lines(
        path, lambda row, number: [("", dialogue) for dialogue in messages_row(row, f"{path.stem}:{number}")]
    )
    return sets[""]


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


# Rows of the three schemas, each read into dialogues; ``default`` is the identifier of a row that names none.

Turns = tuple[Message, ...]

_OWN_KEYS = ("identifier", "cluster", "topic")


def messages_row(row: Row, default: str) -> list[Dialogue]:
    """The one dialogue of a row with the key ``messages``; the default cluster is the identifier.

    Raises:
        UsageError: for an unknown key, a value of the wrong type, or turns that are no dialogue.
    """
    check_keys(row, ("messages", *_OWN_KEYS, "label", "alternative", "pair"))
    identifier = text_of(row, "identifier") or default
    turns = message_list(row.get("messages"), "messages")
    label, alternative = text_of(row, "label") or "", text_of(row, "alternative")
    return [_dialogue(row, turns, identifier, label, alternative, cluster=identifier)]


def preference_row(row: Row, default: str) -> list[Dialogue]:
    """Two dialogues of one prompt: chosen (label ``aligned``) and rejected (``misaligned``), each the other's
    ``alternative``, with one identifier.

    Prompt and replies are texts, or lists of messages. A reply given as the whole conversation must begin with the
    prompt; the key ``prompt`` may then be left out. The default cluster is the prompt, by its digest.

    Raises:
        UsageError: for a missing or unknown key, a wrong type, replies to different prompts, or equal replies.
    """
    check_keys(row, ("prompt", "chosen", "rejected", *_OWN_KEYS))
    given = None if row.get("prompt") is None else _turns(row["prompt"], "prompt")
    (before, chosen), (same, rejected) = (_reply(row, key, given) for key in ("chosen", "rejected"))
    if before != same:
        raise UsageError("'chosen' and 'rejected' answer different prompts; a row needs one prompt")
    if chosen == rejected:
        raise UsageError("'chosen' and 'rejected' are the same reply; a pair needs two")
    return [
        _dialogue(row, (*before, Message("assistant", reply)), default, label, alternative)
        for reply, label, alternative in ((chosen, "aligned", rejected), (rejected, "misaligned", chosen))
    ]


def labelled_row(row: Row, default: str) -> list[Dialogue]:
    """The one dialogue of a row with context, response and label; the default cluster is the context's digest.

    Raises:
        UsageError: for a missing or unknown key, a wrong type, or an empty response.
    """
    check_keys(row, ("context", "response", "label", "alternative", "pair", *_OWN_KEYS))
    turns = (*context_turns(row.get("context")), Message("assistant", _needed_text(row, "response")))
    return [_dialogue(row, turns, default, label_of(row.get("label")), text_of(row, "alternative"))]


def _dialogue(
    row: Row, messages: Turns, default: str, label: str, alternative: str | None, *, cluster: str = ""
) -> Dialogue:
    return Dialogue(
        identifier=text_of(row, "identifier") or default,
        messages=messages,
        cluster=text_of(row, "cluster") or cluster or prompt_digest(messages[:-1]),
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
    """The turns of a list of objects with the keys role and content; ``key`` is where it was found.

    Raises:
        UsageError: if it is anything else.
    """
    if not isinstance(value, list):
        raise UsageError(f'no list {key!r}; expected [{{"role": …, "content": …}}, …]')
    messages = []
    for number, item in enumerate(value, start=1):
        where = "message" if key == "messages" else f"{key!r}: message"
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


# Dialogue files in three schemas, and the one or two sets that a file holds.
#
# A file keeps to one schema, that of its first readable line: which set a reply lands in must not depend on its
# neighbours.
#
# * ``{"messages": […]}``: one set, named after the file;
# * ``{"prompt", "chosen", "rejected"}``: matched pairs, hence two sets, ``NAME-aligned`` (chosen) and
# ``NAME-misaligned`` (rejected), row i of one beside row i of the other;
# * ``{"context", "response", "label"}``: label 0 or ``aligned``, another whole number or ``misaligned``; one set for
# each label there is.

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
