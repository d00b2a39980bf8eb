"""Inputs that are nearly right: rows, dialogues, presets and records, changed in one or a few places."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import random

import numpy as np
from hypothesis import strategies as st

from remi_lab.dialogue_files import SCHEMAS
from remi_lab.presets import get_preset

WORDS = ["Hi", "Use open(path).", "é", "日本", "🙂", "\n", " ", "\t", "assistant", ""]
WORDS += ["a" * 300, "<b>x</b>", "\u2028", "\u202e"]
MARKS = "<|im_start|> <|im_end|> <|endoftext|> <|im_ |> <turn> </turn> <bos> <|eot|>".split() + ["user\n"]
OURS = ["\ue000remi\ue001", "\ue000", "\ue0020\ue003", "\ue00212\ue003"]
BROKEN = ["\x00", "\ud800", "\udfff", "\udc00\ud800"]


def texts(*pieces: str, most: int) -> st.SearchStrategy[str]:
    """Texts of a few pieces, drawn from a pool made beforehand: one draw a text keeps tens of thousands cheap."""
    draw = random.Random(0)
    pool = {"".join(draw.choices(pieces, k=draw.randint(0, most))) for _ in range(3000)}
    return st.sampled_from(sorted(pool))


plain = texts(*WORDS, most=4)
marked = texts(*WORDS, *MARKS, *OURS, most=6)
odd = texts(*WORDS, *MARKS, *OURS, *BROKEN, most=4)
junk = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | odd,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd, inner, max_size=3),
    max_leaves=5,
)
answer = marked.map(lambda text: text if text.strip() else "Yes.")


@st.composite
def turns(draw: st.DrawFn, *, last: str = "assistant") -> list[dict[str, str]]:
    roles = ["system"] * draw(st.booleans()) + ["user", "assistant"] * draw(st.integers(0, 2)) + ["user"]
    roles += ["assistant"] * (last == "assistant")
    asked = marked.map(lambda text: text + "?")
    return [{"role": role, "content": draw(answer if role == "assistant" else asked)} for role in roles]


@st.composite
def rows(draw: st.DrawFn, schema: str) -> dict[str, object]:
    """A right row of a schema of ``remi_lab.dialogue_files``, under any of the names that its keys may have."""
    given = {name: draw(plain) for name in ("topic", "cluster", "source") if draw(st.integers(0, 3)) == 0}
    if draw(st.integers(0, 3)) == 0:
        given |= {"system": draw(plain), "score": draw(st.integers(-9, 9))}
    keys = [draw(st.sampled_from(names)) for names in SCHEMAS[schema].needs]
    if schema == "judged":
        given[keys[1]] = draw(st.sampled_from([True, False, "false", "Safe"]))
    if keys[0] == "messages":
        return {keys[0]: draw(turns())} | {name: value for name, value in given.items() if name != "system"}
    if schema in ("conversations", "judged"):
        spoken = {"user": "human", "assistant": "gpt", "system": "system"}
        said = [turn for turn in draw(turns()) if turn["role"] != "system"]
        return {keys[0]: [{"from": spoken[turn["role"]], "value": turn["content"]} for turn in said]} | given
    if schema == "preference":
        prompt, chosen, rejected = draw(turns(last="user")), draw(answer), draw(answer) + "!"
        form = draw(st.sampled_from(["texts", "messages", "transcripts"]))
        if form == "transcripts":
            asked = draw(plain) + "?"
            return {
                name: f"\n\nHuman: {asked}\n\nAssistant: {said}"
                for name, said in zip(keys, (chosen, rejected), strict=True)
            }
        if form == "texts":
            return {"prompt": draw(answer), "chosen": chosen, "rejected": rejected} | given
        said = [[*prompt, {"role": "assistant", "content": text}] for text in (chosen, rejected)]
        return dict(zip(keys, said, strict=True)) | {name: given[name] for name in given if name != "system"}
    if keys[0] == "context":
        asked = draw(st.one_of(turns(last="user"), answer, st.tuples(answer).map(list)))
        given.pop("system", None)
    else:
        asked = draw(answer)
    row = {keys[0]: asked, keys[1]: draw(answer)} | given
    if schema == "instruction" and draw(st.booleans()):
        row["input"] = draw(plain)
    if len(keys) == 3:
        words = ["aligned", "Toxic", "true", False] + (
            [0, 1, -3] if keys[0] == "context" and keys[2] == "label" else []
        )
        row[keys[2]] = draw(st.sampled_from(words))
    return row


def _places(value: object, path: tuple = ()) -> list[tuple]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inside for place in _places(one, (*path, key)))]


@st.composite
def changed(draw: st.DrawFn, value: object, names: tuple[str, ...]) -> object:
    """A JSON value with one part replaced, taken out, doubled or renamed."""
    value = json.loads(json.dumps(value))
    place = draw(st.sampled_from(_places(value)[1:] or [()]))
    if not place:
        return draw(junk)
    holder = value
    for step in place[:-1]:
        holder = holder[step]
    last, how = place[-1], draw(st.sampled_from(["replace", "remove", "double", "rename"]))
    if how == "replace":
        holder[last] = draw(junk | st.sampled_from(names))
    elif how == "remove":
        del holder[last]
    elif isinstance(holder, list):
        holder.insert(last, holder[last])
    else:
        holder[draw(st.sampled_from(names) | odd)] = holder.pop(last) if how == "rename" else holder[last]
    return value


def spoilt(content: bytes, seed: int) -> bytes:
    """The bytes with one to three places flipped, cut off, taken out, doubled, put in or overwritten."""
    made, draw = bytearray(content), random.Random(seed)
    for _ in range(draw.randint(1, 3)):
        at, length = draw.randrange(max(1, len(made))), draw.randint(1, 40)
        how = draw.choice(["flip", "flip", "cut", "remove", "double", "insert", "zero"])
        if how == "flip" and made:
            made[at % len(made)] ^= 1 << draw.randrange(8)
        elif how == "cut":
            del made[at:]
        elif how == "remove":
            del made[at : at + length]
        elif how == "double":
            made[at:at] = made[at : at + length]
        elif how == "insert":
            made[at:at] = draw.randbytes(draw.randint(1, 4))
        else:
            made[at : at + length] = bytes(len(made[at : at + length]))
    return bytes(made)


SEEDS = st.integers(0, 2**32)
NAMES = (
    *{name for schema in SCHEMAS.values() for names in schema.needs for name in names},
    "role",
    "content",
)
NAMES += ("identifier", "system", "from", "value", "input")


@st.composite
def files(draw: st.DrawFn, schema: str) -> bytes:
    """JSON lines of one to three rows, right ones or with a row, its text or its encoding changed."""
    first = draw(rows(schema))
    lines = [first, *([draw(rows(schema))] if draw(st.integers(0, 3)) == 0 else [])]
    how = draw(st.sampled_from([*["right"] * 3, *["row", "bytes"] * 2, "encoding", "twice", "another"]))
    if how == "row":
        lines[0] = draw(changed(lines[0], NAMES))
    if how == "another":
        lines.append(draw(rows(draw(st.sampled_from(sorted(SCHEMAS))))))
    texts = [json.dumps(line, ensure_ascii=draw(st.booleans())) for line in lines]
    if how == "twice":
        texts[0] = '{"label": 1, ' + texts[0][1:]
    codes = ["utf-16", "latin-1", "utf-32", "utf-8-sig", "cp1252"] if how == "encoding" else ["utf-8"]
    code = draw(st.sampled_from(codes))
    end = draw(st.sampled_from(["\n", "\r\n", "\n\n \n"]))
    whole = end.join(texts).encode(code, "surrogatepass" if code.startswith("utf") else "replace")
    return spoilt(whole, draw(SEEDS)) if how == "bytes" else whole


def _table(lines: list[dict[str, object]], delimiter: str) -> bytes:
    stream = io.StringIO(newline="")
    names = dict.fromkeys(name for line in lines for name in line)
    writer = csv.writer(stream, delimiter=delimiter)
    writer.writerows([names, *([_cell(line.get(name)) for name in names] for line in lines)])
    return stream.getvalue().encode("utf-8", "surrogatepass")


def _cell(value: object) -> str:
    return json.dumps(value) if isinstance(value, list | dict) else "" if value is None else str(value)


def _columns(lines: list[dict[str, object]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    stream = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(lines), stream)
    return stream.getvalue()


CONTAINERS = {
    "list.json": lambda lines: json.dumps(lines).encode(),
    "objects.json": lambda lines: "\n".join(json.dumps(line, indent=1) for line in lines).encode(),
    "table.csv": lambda lines: _table(lines, ","),
    "table.tsv": lambda lines: _table(lines, "\t"),
    "columns.parquet": _columns,
    "packed.jsonl.gz": lambda lines: gzip.compress("\n".join(map(json.dumps, lines)).encode(), mtime=0),
}


@st.composite
def containers(draw: st.DrawFn, name: str) -> bytes:
    """A file of rows of any schema in a container, right or with a part of a row or of the file changed."""
    schema = draw(st.sampled_from(sorted(SCHEMAS)))
    lines = draw(st.lists(rows(schema), min_size=1, max_size=3))
    how = draw(st.sampled_from(["right", "right", "row", "bytes", "bytes", "mixed"]))
    if how == "row":
        first = draw(changed(lines[0], NAMES))
        lines = [first if isinstance(first, dict) else lines[0], *lines[1:]]
    if how == "mixed":
        lines.append(draw(rows(draw(st.sampled_from(sorted(SCHEMAS))))))
    try:
        whole = CONTAINERS[name](lines)
    except (
        ValueError,
        TypeError,
        OverflowError,
        NotImplementedError,
    ):  # columns have one type each, and no half characters
        whole = CONTAINERS[name](draw(st.lists(rows("completion"), min_size=1, max_size=1)))
    return spoilt(whole, draw(SEEDS)) if how == "bytes" else whole


FIELDS = {
    name: json.loads(json.dumps(get_preset(name).fields() | {"batch_tokens": 99}))
    for name in ("smoke", "micro", "qwen2.5-coder-32b")
}
FIELD_NAMES = (*FIELDS["smoke"], "source", "revision", "example", "../x", "base", "other")


@st.composite
def presets(draw: st.DrawFn) -> bytes:
    """A saved preset: with another right value, with one or a few parts changed, or with changed bytes."""
    fields = dict(FIELDS[draw(st.sampled_from(sorted(FIELDS)))])
    counts = ("n_", "max", "top", "batch")
    sizes = [name for name, value in fields.items() if type(value) is int and name.startswith(counts)]
    fields |= draw(st.dictionaries(st.sampled_from(sizes), st.integers(1, 10**6), max_size=3))
    fields |= {"title": draw(plain), "seeds": draw(st.lists(st.integers(0, 999), min_size=1, max_size=3))}
    how = draw(st.sampled_from(["right", "right", "parts", "parts", "parts", "bytes"]))
    for _ in range(draw(st.integers(1, 2)) if how == "parts" else 0):
        fields = draw(changed(fields, FIELD_NAMES)) if isinstance(fields, dict) and fields else fields
    text = json.dumps(fields).encode("utf-8", "surrogatepass")
    return spoilt(text, draw(SEEDS)) if how == "bytes" else text


KINDS = ["f4", "f8", "f2", "i8", "i4", "u1", "?", "<U5"]
SHAPES = [(), (0,), (1,), (5,), (2, 3), (0, 4), (3, 1, 2), (4, 4, 4)]


@st.composite
def records(draw: st.DrawFn) -> tuple[dict[str, np.ndarray], int | None, str]:
    """A few small arrays, and what is done to the bytes of one of a record's files afterwards: nothing for None."""
    made = {}
    for name in draw(st.lists(st.sampled_from(["mean", "count", "valid", "token"]), min_size=1, unique=True)):
        kind, shape = np.dtype(draw(st.sampled_from(KINDS))), draw(st.sampled_from(SHAPES))
        filled = random.Random(draw(SEEDS)).choices(range(2), k=math.prod(shape))
        made[name] = np.array(filled).reshape(shape).astype(kind)
    return (made, draw(st.none() | SEEDS), draw(st.sampled_from([".npz", ".json"])))
