"""Nearly right inputs are parsed, or refused with one clear line; nothing else happens.

``REMI_FUZZ=25000 REMI_FUZZ_REPORT=stored/fuzz.json python -m pytest tests/fuzz -s -o addopts=`` is the long profile;
without the type checks of the suite it takes minutes.
"""

from __future__ import annotations

import itertools
import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tokenizer
from hypothesis import strategies as st
from strategies import CONTAINERS, containers, files, presets, records, spoilt, turns
from tally import fuzz, reason

from remi_core.dialogues import Dialogue, Message, json_object
from remi_core.errors import RemiError, UsageError
from remi_core.store import Address, Store
from remi_core.tokens import encode, render
from remi_lab.dialogue_files import SCHEMAS, read_file
from remi_lab.organism.documents import shipped_tokenizer
from remi_lab.presets import preset_from

ADDRESS = Address("mine", 0, "base", "sequence", "set", "0123456789abcdef")


def as_text(value: object) -> bytes:
    return repr(value).encode()


MANY = {"refusals": (UsageError,), "text_of": bytes, "quick": 60}


def read(path: Path, content: bytes) -> None:
    """Returns if every row of the file is a dialogue in its place or is named among those left out."""
    path.write_bytes(content)
    try:
        found = read_file(path, bad_rows=0.5)
    except UsageError as error:
        assert str(error).startswith(f"{path}:"), error
        raise
    assert "\n" not in found.told() and len(found.told()) < 3000
    assert all("\n" not in why and where.startswith(f"{path}:") for _, where, why in found.bad.values())
    used = set().union(*found.sets.values())
    assert used | found.bad.keys() == set(range(1, found.n_rows + 1)) and not used & found.bad.keys()
    for part, own in found.sets.items():
        assert part in ("", "aligned", "misaligned") and own
        for one in own.values():
            again = Dialogue(identifier="a", cluster="a", messages=one.messages)
            assert again.answer.strip() and one.identifier and "\x00" not in repr(one.identifier)
            "".join(message.content for message in one.messages).encode("utf-8")


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_reader_of_each_schema(schema, tmp_path) -> None:
    attempt = partial(read, tmp_path / "mine.jsonl")
    fuzz(f"dialogue reader, {schema}", files(schema), attempt, **MANY)


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_reader_of_each_container(name, tmp_path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    attempt = partial(read, tmp_path / name)
    fuzz(f"dialogue reader, {name}", containers(name), attempt, **MANY)


def test_the_chat_encoder() -> None:
    tokenizers = [shipped_tokenizer(), *map(make_tokenizer, ("chatml-default", "llama", "gemma"))]

    added = [one.backend_tokenizer.get_added_tokens_decoder().items() for one in tokenizers]
    control = [{number for number, token in one if token.special} for one in added]

    def attempt(value: tuple[list[dict[str, str]], int, int]) -> None:
        said, which, room = value
        tokenizer, marks = tokenizers[which], control[which]
        messages = tuple(Message(**turn) for turn in said)
        dialogue = Dialogue(identifier="a", cluster="a", messages=messages)
        (one,) = encode([dialogue], tokenizer, max_tokens=room).dialogues
        assert 0 < one.answer_start < one.answer_stop <= len(one.input_ids) <= room
        assert one.prompt_end >= 0 and not marks & set(one.input_ids[one.answer_start : one.answer_stop])
        text, start, stop, *_ = render(messages, tokenizer)
        assert text.startswith(tokenizer.decode(one.input_ids).rstrip("\ufffd"))
        assert text[start:stop].strip() == dialogue.answer.strip()
        if not one.truncated and len(one.input_ids) < room:
            bare = tuple(Message(turn["role"], "a") for turn in said)
            plain = Dialogue(identifier="a", cluster="a", messages=bare)
            (usual,) = encode([plain], tokenizer, max_tokens=room).dialogues
            assert [i for i in one.input_ids if i in marks] == [i for i in usual.input_ids if i in marks]

    inputs = st.tuples(turns(), st.integers(0, 3), st.sampled_from([2, 16, 64, 256, 1024, 4096, 4096, 4096]))
    fuzz("chat encoder", inputs, attempt, refusals=(UsageError,), text_of=as_text)


def test_the_preset_loader() -> None:
    def attempt(text: bytes) -> None:
        preset = preset_from(json_object(text))
        again = preset_from(json.loads(json.dumps(preset.fields() | {"batch_tokens": preset.batch_tokens})))
        assert again == preset and len(preset.fingerprint()) == 64
        for name in (preset.name, *preset.datasets):
            assert "/" not in name and not name.startswith(".")

    fuzz("preset loader", presets(), attempt, refusals=(UsageError,), text_of=bytes)


def test_the_record_reader(tmp_path) -> None:
    store, ticks = Store(tmp_path), itertools.count(1)

    def attempt(value: tuple[dict[str, np.ndarray], int | None, str]) -> None:
        arrays, seed, which = value
        path = store.save(ADDRESS, arrays, {"kept": 1})
        if seed is not None:
            file = path.with_suffix(which)
            file.write_bytes(spoilt(file.read_bytes(), seed))
            os.utime(file, ns=(next(ticks), next(ticks)))  # a digest is read again when the time has changed
        record = store.load(ADDRESS)
        if record is None:
            raise RemiError("not the record of this address")
        assert record.arrays.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(record.arrays[name], array, strict=True)

    fuzz("record reader", records(), attempt, refusals=(RemiError,), text_of=as_text)


def test_an_error_without_a_clear_line_is_found() -> None:
    # The failing twin: a reader that lets through what a library raises.
    options = {"refusals": (UsageError,), "text_of": bytes}
    with pytest.raises(ValueError, match="JSON|codec|Expecting|Extra"):
        fuzz("planted", st.binary(max_size=4), lambda text: json.loads(text), **options)
    with pytest.raises(AssertionError, match="no clear line"):
        reason(UsageError("a\nb"))
    with pytest.raises(AssertionError, match="'refused_share': 0.0"):
        fuzz("planted", st.binary(), lambda _: None, **options)
