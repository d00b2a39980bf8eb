"""Batches hold every dialogue once, within the size asked for, with little padding."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remi_core.batches import make_batches
from remi_core.errors import UsageError
from remi_core.tokens import EncodedDialogue


def encoded_of(length: int, at: int = 0) -> EncodedDialogue:
    ids = tuple(range(1, length + 1))
    return EncodedDialogue(identifier=str(at), input_ids=ids, answer_start=1, answer_stop=length)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(2, 30), min_size=1, max_size=20), st.integers(1, 100))
def test_every_dialogue_once_and_no_batch_too_large(lengths, batch_tokens) -> None:
    encoded = [encoded_of(length, at) for at, length in enumerate(lengths)]
    batches = make_batches(encoded, batch_tokens=batch_tokens, pad_id=0)
    seen = [index for batch in batches for index in batch.indices.tolist()]
    assert sorted(seen) == list(range(len(lengths)))
    for batch in batches:
        assert batch.input_ids.numel() <= batch_tokens or len(batch.indices) == 1
        assert batch.n_tokens == sum(lengths[index] for index in batch.indices.tolist())
        for row, index in enumerate(batch.indices.tolist()):
            kept = batch.input_ids[row][batch.attention_mask[row].bool()].tolist()
            assert tuple(kept) == encoded[index].input_ids
            assert not batch.input_ids[row, lengths[index] :].any()


def test_sorting_saves_padding_and_does_not_depend_on_chance() -> None:
    encoded = [encoded_of(length, at) for at, length in enumerate([4, 20, 4, 20, 4, 20])]
    batches = make_batches(encoded, batch_tokens=60, pad_id=0)
    assert [batch.indices.tolist() for batch in batches] == [[1, 3, 5], [0, 2, 4]]
    assert sum(batch.input_ids.numel() for batch in batches) == sum(len(one.input_ids) for one in encoded)


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="batch_tokens is 0"):
        make_batches([encoded_of(3)], batch_tokens=0, pad_id=0)
