"""A dialogue set as tokens, and the text of every token, as records: what pages show needs no tokenizer then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from remi_core.datasets import load_set
from remi_core.dialogues.chat import ChatTokenizer, EncodedDialogue, EncodedSet, encode
from remi_core.fingerprint import make_key, text_digest
from remi_core.models.identity import text_of
from remi_core.storage.store import Address, Store
from remi_core.subject import Subject

ENCODING, VOCABULARY = "encoding", "vocabulary"
PLACES = ("answer_start", "answer_stop", "n_straddling", "n_straddling_end", "truncated")
OPTIONAL = ("choice", "alternative_token")
"""Fields of an encoded dialogue that it may lack: -1 in a record."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens of a tokenizer by id."""

    arrays: Mapping[str, np.ndarray]

    def text(self, token: int) -> str:
        """What the token alone is decoded to; "" for an id that no token has."""
        return self._texts[token] if 0 <= token < len(self._texts) else ""

    def find(self, spelled: str) -> int | None:
        """The id of the token that the tokenizer's own list spells so, if there is one."""
        return self._ids.get(spelled)

    @cached_property
    def _texts(self) -> list[str]:
        return _split(self.arrays["text"], self.arrays["text_stops"])

    @cached_property
    def _ids(self) -> dict[str, int]:
        spelled = _split(self.arrays["spelled"], self.arrays["spelled_stops"])
        return {word: token for token, word in enumerate(spelled) if word}


def vocabulary(who: Subject, store: Store) -> Vocabulary:
    """The tokens of the tokenizer that serves every variant, from the store where they were read before."""
    address = _address(who, VOCABULARY, "all", {})
    found = store.obtain(address, lambda: (_spelled(who.tokenizer()), {"kept": 0, "dropped": {}}))
    return Vocabulary(found.arrays)


def encoded_set(who: Subject, store: Store, dataset: str) -> EncodedSet:
    """A set as the measurements read it, rows in their order, from the store where it was encoded before.

    Raises:
        UsageError, RemiError: if the set cannot be had or encoded.
    """
    source = load_set(who.preset, dataset)
    rows = text_digest(repr(list(source.dialogues)))
    address = _address(who, ENCODING, dataset, {"rows": rows, "max_tokens": who.preset.max_tokens})

    def encoded() -> tuple[dict[str, np.ndarray], dict[str, object]]:
        made = encode(source.dialogues, who.tokenizer(), max_tokens=who.preset.max_tokens)
        dropped = {why: list(names) for why, names in made.dropped.items()}
        return _as_arrays(made), {"kept": len(made.dialogues), "dropped": dropped}

    found = store.obtain(address, encoded)
    by_name = {dialogue.identifier: dialogue for dialogue in source.dialogues}
    dialogues = _from_arrays(found.arrays)
    dropped = {why: tuple(names) for why, names in found.provenance["dropped"].items()}
    return EncodedSet(dialogues, tuple(by_name[one.identifier] for one in dialogues), dropped)


def _address(who: Subject, measurement: str, dataset: str, fields: Mapping[str, object]) -> Address:
    key = make_key({**fields, "text": text_of(who.text)}, [__name__])
    return Address(who.preset.name, who.seed, "instruct", measurement, dataset, key)


def _spelled(tokenizer: ChatTokenizer) -> dict[str, np.ndarray]:
    ids = tokenizer.get_vocab()
    spelled = [""] * (max(ids.values()) + 1)
    for word, token in ids.items():
        spelled[token] = word
    texts = [tokenizer.decode([token]) for token in range(len(spelled))]
    text, text_stops = _joined(texts)
    own, own_stops = _joined(spelled)
    return {"text": text, "text_stops": text_stops, "spelled": own, "spelled_stops": own_stops}


def _joined(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """All texts as bytes of UTF-8, and where each stops: an array of texts is as wide as the longest."""
    parts = [text.encode() for text in texts]
    return np.frombuffer(b"".join(parts), dtype=np.uint8), np.cumsum([len(part) for part in parts])


def _split(joined: np.ndarray, stops: np.ndarray) -> list[str]:
    whole, edges = joined.tobytes(), [0, *stops.tolist()]
    return [whole[start:stop].decode() for start, stop in zip(edges, edges[1:], strict=False)]


def _as_arrays(made: EncodedSet) -> dict[str, np.ndarray]:
    columns = {name: [int(getattr(one, name)) for one in made.dialogues] for name in PLACES}
    for name in OPTIONAL:
        values = [getattr(one, name) for one in made.dialogues]
        columns[name] = [-1 if value is None else value for value in values]
    return {name: np.array(column) for name, column in columns.items()} | {
        "input_ids": np.concatenate([one.input_ids for one in made.dialogues]),
        "stops": np.cumsum([len(one.input_ids) for one in made.dialogues]),
        "identifier": np.array([one.identifier for one in made.dialogues]),
    }


def _from_arrays(arrays: Mapping[str, np.ndarray]) -> tuple[EncodedDialogue, ...]:
    ids = np.split(arrays["input_ids"], arrays["stops"][:-1])
    columns = {name: arrays[name].tolist() for name in (*PLACES, *OPTIONAL)}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return tuple(
        EncodedDialogue(
            identifier=str(name),
            input_ids=tuple(own.tolist()),
            **row
            | {name: None if row[name] < 0 else row[name] for name in OPTIONAL}
            | {"truncated": bool(row["truncated"])},
        )
        for name, own, row in zip(arrays["identifier"], ids, rows, strict=True)
    )
