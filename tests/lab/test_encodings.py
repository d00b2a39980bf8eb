"""A set and a vocabulary read from the store are what encoding and decoding give, and the tokenizer is asked once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import make_tokenizer

from remi_core.sources import ModelSpec
from remi_core.store import Store
from remi_core.tokens import encode
from remi_lab.datasets import load_dataset
from remi_lab.presets import get_preset
from remi_lab.recording import encoded_set, vocabulary
from remi_lab.variant import Variant

PRESET = get_preset("smoke")
SPEC = ModelSpec(source="nowhere")
WHO = Variant(PRESET, "instruct", 0, SPEC, SPEC, "weights")


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """A line for every time that a tokenizer was loaded."""
    lines: list[str] = []
    tokenizer = make_tokenizer("chatml")
    monkeypatch.setattr(Variant, "tokenizer", lambda self: lines.append("loaded") or tokenizer)
    return lines


def test_a_set_comes_back_as_it_was_encoded(asked, tmp_path) -> None:
    store, name = Store(tmp_path), str(PRESET.roles.example)
    expected = encode(load_dataset(PRESET, name), make_tokenizer("chatml"), max_tokens=PRESET.max_tokens)
    assert [encoded_set(WHO, store, name) for _ in range(2)] == [expected, expected]
    assert asked == ["loaded"]
    assert any(one.choice is not None for one in expected.dialogues)


def test_another_tokenizer_is_another_record(asked, tmp_path) -> None:
    store, name = Store(tmp_path), str(PRESET.roles.example)
    encoded_set(WHO, store, name)
    encoded_set(replace(WHO, weights="others; another text"), store, name)
    assert len(asked) == 2


def test_a_vocabulary_decodes_and_finds_as_the_tokenizer_does(asked, tmp_path) -> None:
    tokenizer, store = make_tokenizer("chatml"), Store(tmp_path)
    decoded = [tokenizer.decode([token]) for token in range(len(tokenizer))]
    for _ in range(2):
        words = vocabulary(WHO, store)
        assert [words.text(token) for token in range(len(tokenizer))] == decoded
        assert all(words.find(spelled) == token for spelled, token in tokenizer.get_vocab().items())
    assert words.text(len(tokenizer)) == "" and words.find("no such token") is None
    assert asked == ["loaded"]
