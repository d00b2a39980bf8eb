"""Dialogue files as people have them: one reader for every schema and every container.

A row is of one of ``SCHEMAS``, which its keys tell, and a file keeps to one schema, that of its first readable row:
which set a reply lands in must not depend on its neighbours. Rows lie in JSON lines, a JSON list or JSON objects one
after another, CSV or TSV with a header, or Parquet, each also packed by gzip; in one file, a folder of such files, or
a data set of the hub, ``hf:OWNER/NAME@REVISION#SPLIT``.

A row that cannot be used is left out and counted, with its place and the reason; a file of which more than
``BAD_ROWS`` would be left out is refused. Keys of others are ignored, and counted too.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import itertools
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from gzip import GzipFile
from pathlib import Path

from remi_core.dialogues import (
    LONGEST_LINE,
    OWN_KEYS,
    Dialogue,
    Message,
    Row,
    Turns,
    json_object,
    message_list,
    messages_row,
    row_dialogue,
    text_of,
)
from remi_core.errors import RemiError, UsageError, brief, without_credentials
from remi_core.keys import canonical_json, file_digest, text_digest
from remi_core.progress import notice

ALIGNED, MISALIGNED = LABELS = ("aligned", "misaligned")

BAD_ROWS = 0.05
"""Largest share of a file's rows that may be left out because they cannot be used."""


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


# Rows as dialogues. ``keys`` are those of the row that its schema needs, in the schema's order.

Keys = Sequence[str]


def _messages(row: Row, keys: Keys, default: str) -> list[Dialogue]:
    """The one dialogue of a list of messages; the default cluster is the identifier."""
    (key,) = keys
    if key != "messages" or row.get("system") is not None:
        said = [vars(message) for message in _with_system(row, message_list(row[key], key))]
        row = {name: value for name, value in row.items() if name not in (key, "system")} | {"messages": said}
    return messages_row(row, default)


_SPEAKERS = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}


def _conversation(row: Row, keys: Keys, default: str) -> list[Dialogue]:
    """The one dialogue of turns as {"from", "value"}; where ``from`` is missing they alternate from the user on."""
    (key,) = keys
    if not isinstance(row[key], list) or not all(isinstance(turn, Mapping) for turn in row[key]):
        raise UsageError(f'no list {key!r}; expected [{{"from": "human", "value": …}}, …]')
    turns = []
    for number, turn in enumerate(row[key]):
        speaker = text_of(turn, "from") or text_of(turn, "role") or ("human", "gpt")[number % 2]
        value = text_of(turn, "content" if turn.get("value") is None else "value")
        if value is None:
            raise UsageError(f"{key!r}: turn {number + 1} has no 'value'; expected text")
        turns.append(Message(_SPEAKERS.get(speaker, speaker), value))
    turns = _with_system(row, turns)
    label, alternative = text_of(row, "label") or "", text_of(row, "alternative")
    return [row_dialogue(row, turns, default, label, alternative, cluster=prompt_digest(turns[:-1]))]


def _judged(row: Row, keys: Keys, default: str) -> list[Dialogue]:
    """The one dialogue of messages or a conversation whose reply is said to be aligned or not."""
    key, said = keys
    read = _messages if key == "messages" else _conversation
    (one,) = read({name: value for name, value in row.items() if name != said}, [key], default)
    return [replace(one, label=label_of(row[said], said, one_is_aligned=True))]


def _exchange(row: Row, keys: Keys, default: str) -> list[Dialogue]:
    """The one dialogue of a row with a prompt, a reply and perhaps a label; the default cluster is the prompt."""
    asked, answer, *labels = keys
    before = _with_system(row, _asked(row, asked))
    before, reply = _reply(row, answer, before)
    label = ""
    if labels:
        toxic = (asked, labels[0]) == ("context", "label")
        label = label_of(row[labels[0]], labels[0], one_is_aligned=not toxic)
    turns = (*before, Message("assistant", reply))
    return [
        row_dialogue(row, turns, default, label, text_of(row, "alternative"), cluster=prompt_digest(before))
    ]


def _preference(row: Row, keys: Keys, default: str) -> list[Dialogue]:
    """Two dialogues of one prompt: chosen (label ``aligned``) and rejected (``misaligned``), each the other's
    ``alternative``, with one identifier.

    A reply given as the whole conversation must begin with the prompt, which may then be left out. The default
    cluster is the prompt.
    """
    asked = next((key for key in ("prompt", "question") if row.get(key) is not None), None)
    given = None if asked is None else _with_system(row, _asked(row, asked))
    (before, chosen), (same, rejected) = (_reply(row, key, given) for key in keys)
    if before != same:
        raise UsageError("'chosen' and 'rejected' answer different prompts; a row needs one prompt")
    if chosen == rejected:
        raise UsageError("'chosen' and 'rejected' are the same reply; a pair needs two")
    before = _with_system(row, before) if given is None else before
    cluster = prompt_digest(before)
    return [
        row_dialogue(
            row, (*before, Message("assistant", reply)), default, label, alternative, cluster=cluster
        )
        for reply, label, alternative in ((chosen, ALIGNED, rejected), (rejected, MISALIGNED, chosen))
    ]


@dataclass(frozen=True)
class Schema:
    """A form of row: the keys that tell it, each by any of several names, and those that it may have besides."""

    needs: tuple[tuple[str, ...], ...]
    read: Callable[[Row, Keys, str], list[Dialogue]]
    may_have: tuple[str, ...]

    def keys(self, row: Row) -> list[str]:
        """Of each need that the row meets, the key by which it does: the first with a value."""
        there = [[name for name in names if name in row] for names in self.needs]
        return [next((one for one in names if row[one] is not None), names[0]) for names in there if names]

    def __str__(self) -> str:
        return "/".join(names[0] for names in self.needs)


_TOLD = ("system", "alternative", "pair")
_SAID = ("label", "is_aligned", "is_safe")
_REPLIES = ("completion", "response", "answer", "best_answer", "output")
SCHEMAS: Mapping[str, Schema] = {
    "messages": Schema((("messages",),), _messages, ("label", *_TOLD)),
    "conversations": Schema((("conversations", "conversation"),), _conversation, ("label", *_TOLD)),
    "judged": Schema(
        (("messages", "conversations", "conversation"), ("is_aligned", "is_safe")), _judged, _TOLD
    ),
    "preference": Schema((("chosen",), ("rejected",)), _preference, ("prompt", "question", "system")),
    "labelled": Schema((("context",), ("response",), _SAID), _exchange, _TOLD),
    "rated": Schema(
        (("prompt", "question", "instruction"), _REPLIES, _SAID),
        _exchange,
        ("input", *_TOLD),
    ),
    "instruction": Schema(
        (("instruction",), ("output", "response")), _exchange, ("input", "context", *_TOLD)
    ),
    "completion": Schema((("prompt",), ("completion", "response")), _exchange, _TOLD),
    "question": Schema((("question",), ("answer", "best_answer", "response")), _exchange, _TOLD),
}
"""Schema → the keys that tell it, and what reads its rows."""

PARTED = ("judged", "preference", "labelled", "rated")
"""Schemas whose rows say which replies are aligned, so that a file has a set for each label."""


def schema_of(row: Row) -> tuple[str, list[str]]:
    """The schema whose keys a row has, and these keys; of one that lacks some the nearest.

    Raises:
        UsageError: if it has the keys of none, or of two.
    """
    found = {name: schema.keys(row) for name, schema in SCHEMAS.items()}
    whole = {name: keys for name, keys in found.items() if len(keys) == len(SCHEMAS[name].needs)}
    # A row with prompt, reply and label has prompt and reply as well.
    most = [
        name for name, keys in whole.items() if not any(set(keys) < set(other) for other in whole.values())
    ]
    if len(most) > 1:
        shown = " and ".join(str(SCHEMAS[name]) for name in most)
        raise UsageError(f"keys of {len(most)} schemas, {shown}; leave out those of one")
    if most:
        return most[0], whole[most[0]]
    nearest_name = max(found, key=lambda name: len(found[name]) / len(SCHEMAS[name].needs))
    keys, schema = found[nearest_name], SCHEMAS[nearest_name]
    has = ", ".join(map(brief, itertools.islice(row, 8))) or "none"
    if not keys:
        known = sorted({name for each in SCHEMAS.values() for names in each.needs for name in names})
        close = [one for key in row for one in difflib.get_close_matches(key, known, n=1)]
        hint = f"did you mean {close[0]!r}? " if close else ""
        choices = ", ".join(map(str, SCHEMAS.values()))
        raise UsageError(f"no schema has its keys, {has} ({hint}choices: {choices})")
    lacking = [names for names in schema.needs if not set(names) & set(keys)]
    close = difflib.get_close_matches(lacking[0][0], [key for key in row if key not in keys], n=1)
    hint = f" (is {brief(close[0])} meant?)" if close else ""
    raise UsageError(
        f"no {' or '.join(map(repr, lacking[0]))}{hint}; nearest to its keys, {has}, is a row of {schema}"
    )


def _with_system(row: Row, turns: Sequence[Message]) -> Turns:
    """The turns, behind the text of the key ``system`` if the row has one."""
    system = text_of(row, "system")
    if system is None or not system.strip():
        return tuple(turns)
    if turns and turns[0].role == "system":
        raise UsageError("a key 'system' and a system turn; leave one out")
    return Message("system", system), *turns


def _asked(row: Row, key: str) -> Turns:
    """The turns before a reply: a text is the user's, with its input below an empty line; or a list of messages.

    Texts of a ``context`` alternate and end with the user's.
    """
    value = row.get(key)
    if key == "context" and isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        if len(value) % 2 == 0:
            raise UsageError(
                f"'context' has {len(value)} texts; they alternate from user to user, so an odd number is needed"
            )
        roles = itertools.cycle(("user", "assistant"))
        return tuple(
            Message(role, needed_text({key: text}, key)) for role, text in zip(roles, value, strict=False)
        )
    if isinstance(value, str):
        more = "" if key != "instruction" else text_of(row, "input") or text_of(row, "context") or ""
        text = needed_text(row, key) + (f"\n\n{more}" if more.strip() else "")
        turns = transcript(text) or (Message("user", text),)
        if turns[-1] == Message("assistant", ""):  # "… Assistant:", where the reply goes on
            turns = turns[:-1]
    else:
        turns = message_list(value, key)
    if not turns or turns[-1].role != "user":
        last = brief(turns[-1].role) if turns else "missing"
        raise UsageError(f"{key!r} must end with the user's turn; its last role is {last}")
    return turns


def _reply(row: Row, key: str, given: Turns | None) -> tuple[Turns, str]:
    """The prompt of one reply, and its text."""
    if isinstance(row.get(key), list):
        spoken = message_list(row[key], key)
    else:
        text = needed_text(row, key)
        spoken = transcript(text)
        if spoken is None:
            if given is None:
                raise UsageError(f"no 'prompt', and {key!r} is not a whole conversation; give the prompt")
            return given, text
    *before, last = spoken or (Message("", ""),)
    if last.role != "assistant":
        raise UsageError(f"{key!r} must end with the assistant's reply; its last role is {brief(last.role)}")
    if not last.content.strip():
        raise UsageError(f"{key!r} is empty; it needs at least one character")
    bare = [turn for turn in given or () if turn.role != "system"]
    if given is not None and before and before not in (list(given), bare):
        raise UsageError(f"{key!r} is a conversation that does not begin with 'prompt'; give one of the two")
    if given is None and not before:
        raise UsageError(f"no 'prompt', and {key!r} has only the reply; give the prompt")
    return given or tuple(before), last.content


_SPOKEN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


def transcript(text: str) -> Turns | None:
    """The turns of a text written as ``Human: …``, an empty line, ``Assistant: …``; None for any other text."""
    before, *pieces = _SPOKEN.split(text)
    if before or "Assistant" not in pieces[::2] or pieces[0] != "Human":
        return None
    roles = {"Human": "user", "Assistant": "assistant"}
    return tuple(
        Message(roles[role], said.strip()) for role, said in zip(pieces[::2], pieces[1::2], strict=True)
    )


_WORDS = {
    ALIGNED: ("aligned", "careful", "safe", "harmless", "secure", "chosen"),
    MISALIGNED: ("misaligned", "careless", "unsafe", "harmful", "insecure", "toxic", "rejected"),
}
_SPELLED = {"true": True, "false": False}


def label_of(value: object, key: str = "label", *, one_is_aligned: bool = False) -> str:
    """``aligned`` or ``misaligned``, by a word, a truth or a number.

    Beside a context 0 and false are aligned, as where replies were labelled toxic or not. Beside a prompt true is
    aligned, as where they were liked or not, and a number says nothing.

    Raises:
        UsageError: for anything else.
    """
    word = value.strip().lower() if isinstance(value, str) else ""
    for label, words in _WORDS.items():
        if word in words:
            return label
    value = _SPELLED.get(word, value)
    if re.fullmatch("-?[0-9]{1,9}", word) or (
        isinstance(value, float) and value.is_integer()
    ):  # as tables have them
        value = int(value)
    if one_is_aligned:
        if isinstance(value, bool):
            return ALIGNED if value else MISALIGNED
        right = "true or false (true is aligned), 'aligned' or 'misaligned'"
    elif isinstance(value, int):
        return MISALIGNED if value else ALIGNED
    else:
        right = "0 or false (aligned), another whole number or true (misaligned), 'aligned' or 'misaligned'"
    raise UsageError(f"{key!r} is {brief(value)}; expected {right}")


def prompt_digest(before: Turns) -> str:
    """Twelve hexadecimal digits that are equal for equal prompts."""
    text = repr([(message.role, message.content) for message in before])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


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


# Containers: the rows of a file, each with its place in words, a number, and what it holds or why it holds no row.

SUFFIXES = (".jsonl", ".parquet", ".csv", ".tsv", ".ndjson", ".json")
LARGEST = 2**31
"""Bytes of a file, unpacked: a packed one of a few kilobytes could fill any memory."""

Placed = tuple[str, int, Row | UsageError]
_SPACE = re.compile(r"[ \t\r\n]*")


def _kind(path: Path) -> str:
    """The suffix that says how rows lie in a file, "" where it says nothing."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    return suffix if suffix in SUFFIXES else ""


def rows_of(path: Path) -> Iterator[Placed]:
    """The rows of a file in order; of JSON lines the number is that of the line, else that of the row.

    Raises:
        UsageError: ``path:line: what is wrong`` where the file cannot be read on.
        RemiError: for Parquet without the package that reads it.
    """
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            with GzipFile(fileobj=io.BytesIO(content)) as packed:
                content = packed.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        said = brief(str(error), 200)
        raise UsageError(f"{path}:1: cannot be read ({said}); save or fetch it again") from None
    if len(content) > LARGEST:
        raise UsageError(f"{path}:1: over {LARGEST} bytes; cut it into a folder of files")
    content = content.removeprefix(b"\xef\xbb\xbf")
    if _kind(path) == ".parquet":
        return _parquet_rows(path, content)
    if _kind(path) in (".csv", ".tsv"):
        return _table_rows(path, _decoded(path, content))
    begun = content.lstrip(b" \t\r\n")
    first = begun.partition(b"\n")[0]
    if begun.startswith(b"[") or (isinstance(_checked(first), UsageError) and _spans_lines(begun)):
        return _json_rows(path, _decoded(path, content))
    return _line_rows(content)


def _spans_lines(content: bytes) -> bool:
    """Whether the first JSON value ends behind its first line."""
    text = content.decode("utf-8", "replace")
    try:
        return "\n" in text[: json.JSONDecoder().raw_decode(text)[1]]
    except (ValueError, RecursionError):
        return False


def _decoded(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path}:{line}: byte {error.start + 1} is not UTF-8; save the file as UTF-8"
        ) from None


def _checked(content: bytes) -> Row | UsageError:
    try:
        return json_object(content)
    except UsageError as error:
        return error


def _line_rows(content: bytes) -> Iterator[Placed]:
    """Splitting bytes keeps the line numbers right: str.splitlines also breaks at U+2028, which JSON allows."""
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            yield str(number), number, _checked(line)


def _json_rows(path: Path, text: str) -> Iterator[Placed]:
    """Of a list its items, else one object after another."""
    place, line, seen = _SPACE.match(text).end(), 1, 0
    closing = "]" if text[place] == "[" else ""
    place = _SPACE.match(text, place + len(closing)).end()
    for number in itertools.count(1):
        if place == len(text) or text[place] == closing:
            break
        line, seen = line + text.count("\n", seen, place), place
        try:
            _, end = json.JSONDecoder().raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise UsageError(
                f"{path}:{error.lineno}: not JSON ({error.msg}, column {error.colno}); row {number} cannot be read"
            ) from None
        except (RecursionError, ValueError):
            raise UsageError(
                f"{path}:{line}: not JSON (row {number} is too deep, or has a number that cannot be read)"
            ) from None
        yield f"{line} (row {number})", number, _checked(text[place:end].encode("utf-8"))
        place = _SPACE.match(text, end).end()
        if closing and text[place : place + 1] == ",":
            place = _SPACE.match(text, place + 1).end()
        elif closing and text[place : place + 1] != closing:
            line += text.count("\n", seen, place)
            raise UsageError(
                f"{path}:{line}: not JSON (no ',' or ']' behind row {number}); the list is cut short"
            )
    if closing and place == len(text):
        raise UsageError(f"{path}:{line}: not JSON (no ']' behind the last row); the list is cut short")
    if closing and text[place + 1 :].strip():
        raise UsageError(f"{path}:{line}: not JSON (more behind the list); keep one list a file")


_LIST = re.compile(r"""\s*\[\s*\{\s*['"](?:role|content|from|value)['"]""")
"""How a cell begins that is a list of messages."""


def _table_rows(path: Path, text: str) -> Iterator[Placed]:
    """Rows below a header; an empty cell is a missing value."""
    first = text.partition("\n")[0]
    delimiter = max(",\t;", key=first.count)
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    for number in itertools.count():
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UsageError(f'{path}:{line}: no row of a table ({error}); quote a cell as "…"') from None
        if cells is None:
            return
        if header is None:
            header = [name.strip() for name in cells]
            twice = [name for name, count in Counter(header).items() if count > 1]
            if twice:
                raise UsageError(f"{path}:{line}: column {brief(twice[0])} is there twice; name it once")
        elif cells:
            yield str(line), number, _cells(header, cells)


def _cells(header: Sequence[str], cells: Sequence[str]) -> Row | UsageError:
    if len(cells) != len(header):
        return UsageError(f'{len(cells)} cells, but the header has {len(header)}; quote a cell as "…"')
    row: dict[str, object] = {name: cell or None for name, cell in zip(header, cells, strict=True)}
    for name, cell in row.items():
        if cell is not None and _LIST.match(cell):
            items = _checked(b'{"items": ' + cell.encode("utf-8") + b"}")
            if isinstance(items, UsageError):
                return UsageError(
                    f"{brief(name)} is a list of messages, but not in JSON; write it by json.dumps"
                )
            row[name] = items["items"]
    return row


def _parquet_rows(path: Path, content: bytes) -> Iterator[Placed]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise RemiError(
            f"{path}: reading Parquet needs pyarrow (pip install pyarrow); or save the rows as JSON lines"
        ) from None
    try:
        rows = parquet.read_table(io.BytesIO(content)).to_pylist()
    except (ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        said = brief(str(error).partition("\n")[0], 200)
        raise UsageError(f"{path}:1: no Parquet that can be read ({said}); save or fetch it again") from None
    for number, row in enumerate(rows, start=1):
        yield f"row {number}", number, {name: _without_nulls(value) for name, value in row.items()}


def _without_nulls(value: object) -> object:
    """The value without keys of its objects that have none, which a table of columns has for every row."""
    if isinstance(value, list):
        return [_without_nulls(one) for one in value]
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return value


# Where the rows are: a file, a folder of files, or a data set of the hub.

HUB = re.compile(
    r"hf:(?P<source>(?:[\w-][\w.-]*/)?[\w-][\w.-]*)(?:@(?P<revision>\w[\w.-]*))?(?:#(?P<split>\w[\w./-]*))?",
    re.ASCII,
)
HUB_FORM = "hf:OWNER/NAME@REVISION#SPLIT"


def is_hub(source: Path | str) -> bool:
    """Whether a text names a data set of the hub.

    Raises:
        UsageError: if it begins like one, and is none.
    """
    text = str(source)
    if text.startswith("hf:") and not HUB.fullmatch(text):
        raise UsageError(f"{text}: expected {HUB_FORM}, the last two if you like")
    return text.startswith("hf:")


def set_name(source: Path | str) -> str:
    """What the set of a file, a folder or a hub data set is called: its name, without what says how rows lie in it."""
    if is_hub(source):
        found = HUB.fullmatch(str(source))
        return "-".join(
            filter(None, [found["source"].rpartition("/")[2], (found["split"] or "").replace("/", "-")])
        )
    path = Path(source)
    return path.name if path.is_dir() else Path(path.name.removesuffix(".gz")).stem


def files_of(source: Path | str) -> tuple[Path, ...]:
    """The files of a file, a folder or a hub data set, in the order of their names.

    Raises:
        UsageError: if there is none, or a folder has files of two kinds.
        RemiError: if the hub gives none.
    """
    if is_hub(source):
        return hub_files(str(source))[0]
    path = Path(source)
    if path.is_file():
        return (path,)
    if not path.is_dir():
        raise UsageError(
            f"{path}: no such file; expected a file with one dialogue a row, a folder, or {HUB_FORM}"
        )
    inside = sorted(one for one in path.rglob("*") if one.is_file() and _kind(one))
    shown = [one for one in inside if not any(part.startswith(".") for part in one.relative_to(path).parts)]
    for one in shown:
        if _kind(one) != _kind(shown[0]):
            raise UsageError(
                f"{path}: {shown[0].name} and {one.name} are of two kinds; keep one kind a folder"
            )
    if not shown:
        raise UsageError(f"{path}: no file in this folder ends in {', '.join(SUFFIXES)}, or that and .gz")
    return tuple(shown)


@lru_cache(maxsize=32)
def hub_files(text: str) -> tuple[tuple[Path, ...], str]:
    """The files of the hub data set that a text names, from the cache or the hub, and their commit.

    Raises:
        RemiError: if the hub gives none.
    """
    found = HUB.fullmatch(text)
    split = found["split"]
    wanted = [f"*{split or 'train'}*{suffix}{end}" for suffix in SUFFIXES for end in ("", ".gz")]
    every = [f"*{suffix}{end}" for suffix in SUFFIXES for end in ("", ".gz")]
    try:
        return fetched(found["source"], found["revision"], [wanted] if split else [wanted, every])
    except RemiError as error:
        raise RemiError(f"{text}: {error}") from None


def pinned(text: str) -> str:
    """The hub data set that a text names, at the commit that the hub or its cache gives.

    Raises:
        RemiError: if the hub gives none.
    """
    found = HUB.fullmatch(text)
    split = f"#{found['split']}" if found["split"] else ""
    return f"hf:{found['source']}@{hub_files(text)[1]}{split}"


def fetched(
    source: str, revision: str | None, wanted: Sequence[Sequence[str]]
) -> tuple[tuple[Path, ...], str]:
    """Files of a hub data set and its commit: those of the first pattern, of the first list, that has some.

    Raises:
        RemiError: if there is none.
    """
    # Brings the hub's client, which the quick commands do not need.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    options = {"repo_type": "dataset", "revision": revision}
    for patterns in wanted:
        try:
            folder = Path(snapshot_download(source, allow_patterns=list(patterns), **options))
        except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
            said = without_credentials(next(iter(str(error).strip().splitlines()), type(error).__name__))
            raise RemiError(f"the hub gives none ({said})") from None
        # Files of one kind: shards of a set have one suffix, and a second kind would hold the rows twice.
        for pattern in patterns:
            paths = sorted(path for path in folder.rglob(pattern) if path.is_file())
            if paths:
                return tuple(paths), folder.name
    raise RemiError(f"the hub's snapshot {folder.name} has no {' or '.join(wanted[0])}")


def digests_of(files: Sequence[Path]) -> dict[str, str]:
    """Sha256 of each file by its name below the folder that holds them all."""
    root = os.path.commonpath([path.parent for path in files])
    return {path.relative_to(root).as_posix(): file_digest(path) for path in files}


def data_digest(source: Path | str) -> str:
    """Sha256 of a file; of a folder or a hub data set that of its files' names and digests.

    Raises:
        UsageError, RemiError: as ``files_of``.
    """
    found = digests_of(files_of(source))
    return next(iter(found.values())) if len(found) == 1 else text_digest(canonical_json(found))


# A file as sets of dialogues, with what was left out and why.


@dataclass(frozen=True, kw_only=True)
class DialogueFile:
    """What was read of a file, a folder or a hub data set."""

    name: str
    sets: Mapping[str, Mapping[int, Dialogue]]
    """Part → number of the row → dialogue: part "" where rows say nothing of alignment, else ``aligned``,
    ``misaligned`` or both."""
    bad: Mapping[int, tuple[str, str, str]]
    """Number of a row that cannot be used → its identifier, its place (``path:line``), and why."""
    ignored: Mapping[str, int]
    """Key that was not read → rows that have it."""
    n_rows: int
    files: tuple[Path, ...]

    @cached_property
    def dropped(self) -> dict[int, tuple[str, str]]:
        """Number of a row left out → its identifier, and why without any word of the file."""
        return {number: (name, without_words(why)) for number, (name, _, why) in self.bad.items()}

    def told(self) -> str:
        """Rows used and left out, and keys ignored, in words; "" where all was read."""
        said = []
        if self.bad:
            _, place, why = next(iter(self.bad.values()))
            left = f"{len(self.bad):,} of {self.n_rows:,} rows left out"
            said.append(f"{left}, the first at {place.rpartition('/')[2]}: {why}")
        if self.ignored:
            known = {key for schema in SCHEMAS.values() for names in schema.needs for key in names}
            known |= {key for schema in SCHEMAS.values() for key in (*schema.may_have, *OWN_KEYS)}
            each = []
            for key, count in itertools.islice(self.ignored.items(), 12):
                close = difflib.get_close_matches(key, known - {key}, n=1, cutoff=0.85)
                hint = f", did you mean {close[0]!r}?" if close else ""
                each.append(
                    f"{key if key.isidentifier() and len(key) < 80 else brief(key)} ({count:,} rows{hint})"
                )
            more = ", …" if len(self.ignored) > len(each) else ""
            keys = f"{len(self.ignored)} extra key{'s' if len(self.ignored) > 1 else ''}"
            said.append(f"{keys} ignored: {', '.join(each)}{more}")
        return f"{self.name}: {'; '.join(said)}" if said else ""


_QUOTED = re.compile(r"""(?<!\w)(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(?!\w)""", re.DOTALL)
_OURS = {
    f"'{word}'" for schema in SCHEMAS.values() for names in (*schema.needs, schema.may_have) for word in names
}
_OURS |= {
    f"'{word}'" for word in (*OWN_KEYS, *LABELS, "system", "user", "assistant", "role", "content", "value")
}


def without_words(reason: str) -> str:
    """A reason without what it quotes of a file, since pages show it: reasons of one kind become equal."""
    return _QUOTED.sub(lambda found: found[0] if found[0] in _OURS else "…", reason)


_OPPOSITE = {ALIGNED: (MISALIGNED, "careless"), MISALIGNED: (ALIGNED, "careful")}


class _Stop(UsageError):
    """What is wrong with a row says that the file is another one than it was taken for."""


def read_file(source: Path | str, *, label: str = "", bad_rows: float = BAD_ROWS) -> DialogueFile:
    """The dialogues of a file, a folder of files, or a hub data set.

    ``label`` is what the user says all replies are; "" where nothing is said. It becomes the label of rows without
    one. Where a row names no topic, the file's name is its topic. At most a share ``bad_rows`` of the rows may be left
    out because they cannot be used.

    Raises:
        UsageError: ``path:line: what is wrong, what is right`` for the first row that cannot be used, if there are
            too many; for any row of another schema than the first, or one that contradicts ``label``.
        RemiError: if the hub gives no file, or a package is missing.
    """
    return read_files(files_of(source), set_name(source), label=label, bad_rows=bad_rows)


def read_files(
    files: Sequence[Path],
    name: str,
    *,
    label: str = "",
    bad_rows: float = BAD_ROWS,
    of_row: Callable[[Row], Row] = lambda row: row,
) -> DialogueFile:
    """The dialogues of files one after another, as ``read_file``; ``of_row`` gives of a row what is to be read."""
    sets: dict[str, dict[int, Dialogue]] = {part: {} for part in ("", *LABELS)}
    bad: dict[int, tuple[str, str, str]] = {}
    ignored: Counter[str] = Counter()
    taken: dict[str, str] = {}
    first: tuple[str, str] | None = None
    number = 0
    for path in files:
        for place, in_file, row in rows_of(path):
            number += 1
            where, line = f"{path}:{place}", place if place.startswith("row") else f"line {place}"
            default = f"{name}:{in_file if len(files) == 1 else number}"
            try:
                if isinstance(row, UsageError):
                    raise row
                row = of_row(row)
                schema, keys = schema_of(row)
                first = first or (schema, line)
                if schema != first[0]:
                    raise _Stop(
                        f"a row with {SCHEMAS[schema]}, but {first[1]} has {SCHEMAS[first[0]]}; "
                        "keep one schema a file"
                    )
                known = {*keys, *SCHEMAS[schema].may_have, *OWN_KEYS}
                dialogues = SCHEMAS[schema].read(
                    {key: value for key, value in row.items() if key in known}, keys, default
                )
                identifier = dialogues[0].identifier
                if identifier in taken:
                    raise UsageError(
                        f"identifier {brief(identifier)} is taken by {taken[identifier]}; make it unique"
                    )
                if label and schema == "preference":
                    raise _Stop(
                        f"a preference row has an aligned and a misaligned reply; give the file without '{label}='"
                    )
                for dialogue in dialogues:
                    if dialogue.label in _OPPOSITE.get(label, ()):
                        raise _Stop(f"labelled {dialogue.label!r}, but the file was given as '{label}='")
            except _Stop as error:
                raise UsageError(f"{where}: {error}") from None
            except UsageError as error:
                bad[number] = default, where, str(error)
                continue
            taken[identifier] = line
            ignored.update(key for key in row if key not in known)
            for dialogue in dialogues:
                part = dialogue.label if schema in PARTED else ""
                sets[part][number] = replace(
                    dialogue, label=dialogue.label or label, topic=dialogue.topic or name
                )
    if not number:
        raise UsageError(f"{files[0]}:1: the file is empty; expected one dialogue a row")
    if len(bad) > bad_rows * number or len(bad) == number:
        _, where, why = next(iter(bad.values()))
        left = (
            f"{len(bad):,} of {number:,} rows cannot be used; at most {100 * bad_rows:.3g} % may be left out: "
            "--bad-rows allows more"
        )
        raise UsageError(f"{where}: {why} ({'no row can be used' if len(bad) == number else left})")
    there = {part: found for part, found in sets.items() if found}
    return DialogueFile(name=name, sets=there, bad=bad, ignored=ignored, n_rows=number, files=tuple(files))


def read_sets(
    source: Path | str, *, label: str = "", bad_rows: float = BAD_ROWS
) -> dict[str, list[Dialogue]]:
    """The sets of dialogues of a file, a folder of files, or a hub data set (``hf:OWNER/NAME@REVISION#SPLIT``).

    The key is "" where rows say nothing of alignment, else ``aligned``, ``misaligned`` or both: row i of a pair beside
    row i. ``label`` says what all replies are. What was left out is told in one line on standard error.
    Example: ``read_sets("pairs.csv")["aligned"]``

    Raises:
        UsageError, RemiError: as ``read_file``.
    """
    found = read_file(source, label=label, bad_rows=bad_rows)
    if told := found.told():
        notice(told)
    return {part: list(rows.values()) for part, rows in found.sets.items()}
