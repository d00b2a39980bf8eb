"""Probes agree with the model's own loss, softmax and hidden states, and with themselves in any batch."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ALL_FAMILIES, MAIN_FAMILIES, make_model
from transformers import PreTrainedModel

from remi_core import models as models_module
from remi_core import probes as probes_module
from remi_core.errors import RemiError, UsageError
from remi_core.forward import run_probes
from remi_core.models import decoder_blocks
from remi_core.probes import Activations, Columns, NextToken, Probe, TokenLogProbs
from remi_core.tokens import WINDOWS, EncodedDialogue, window_span

Models = Callable[[str], PreTrainedModel]
Records = dict[str, dict[str, np.ndarray]]


def measure(model: PreTrainedModel, encoded: tuple[EncodedDialogue, ...], batch_tokens: int = 150) -> Records:
    probes = [TokenLogProbs(), NextToken(5), Activations([0, 1, -1], first_k=3)]
    assert all(isinstance(probe, Probe) for probe in probes)
    return run_probes(model, encoded, probes, batch_tokens=batch_tokens)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_mean_answer_loss_is_the_models_own(family, models, encoded) -> None:
    model = models(family)
    record = measure(model, encoded)["sequence"]
    offsets = record["offsets"]
    answer_loss, whole_loss = [], []
    for at, one in enumerate(encoded):
        ids = torch.tensor([one.input_ids])
        answer = slice(one.answer_start, one.answer_stop)
        labels = torch.full_like(ids, -100)
        labels[0, answer] = ids[0, answer]
        answer_loss.append(model(ids, labels=labels).loss.item())
        whole_loss.append(model(ids, labels=ids).loss.item())
        assert record["token"][offsets[at] : offsets[at + 1]].tolist() == ids[0, answer].tolist()
    ours = np.add.reduceat(-record["log_probability"], offsets[:-1]) / np.diff(offsets)
    np.testing.assert_allclose(ours, answer_loss, rtol=1e-5)
    # The failing twin: the loss over the whole dialogue is another number.
    assert not np.allclose(ours, whole_loss, rtol=1e-2)


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_batched_equals_one_at_a_time(family, models, encoded) -> None:
    together, alone = (measure(models(family), encoded, batch_tokens=size) for size in (10_000, 1))
    for name, arrays in together.items():
        for key, values in arrays.items():
            np.testing.assert_allclose(
                values, alone[name][key], atol=1e-5, rtol=1e-5, err_msg=f"{name} {key}"
            )


def test_one_changed_token_changes_its_own_dialogue_only(models, encoded) -> None:
    ids = list(encoded[1].input_ids)
    ids[2] += 1
    changed = (encoded[0], replace(encoded[1], input_ids=tuple(ids)), *encoded[2:])
    before, after = (measure(models("qwen2"), some, batch_tokens=10_000) for some in (encoded, changed))
    same = [np.allclose(*pair) for pair in zip(_per_dialogue(before), _per_dialogue(after), strict=True)]
    assert same == [True, False, True, True, True]


def _per_dialogue(records: Records) -> list[np.ndarray]:
    sequence = records["sequence"]
    pieces = np.split(sequence["log_probability"], sequence["offsets"][1:-1])
    means = records["activations"]["mean"][:, :3]
    return [np.concatenate([piece, mean.ravel()]) for piece, mean in zip(pieces, means, strict=True)]


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_entropy_lies_between_certainty_and_uniform(family, models, encoded) -> None:
    model = models(family)
    record = measure(model, encoded)["sequence"]
    assert (record["entropy"] >= 0).all() and (record["entropy"] <= math.log(400) + 1e-5).all()
    one = encoded[0]
    logits = model(torch.tensor([one.input_ids])).logits[0, one.answer_start - 1 : one.answer_stop - 1]
    independent = torch.distributions.Categorical(logits=logits.double()).entropy()
    np.testing.assert_allclose(record["entropy"][: one.n_answer], independent, rtol=1e-4)


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_next_token_is_the_softmax_before_the_choice(family, models, encoded) -> None:
    model = models(family)
    record = measure(model, encoded)["next_token"]
    assert record["valid"].tolist() == [True, True, True, True, False]
    probabilities = []
    for at, one in enumerate(encoded[:4]):
        p = torch.softmax(model(torch.tensor([one.input_ids])).logits[0].double(), dim=-1)[one.choice - 1]
        probabilities.append(p)
        assert record["choice_log_probability"][at] == pytest.approx(
            math.log(p[one.input_ids[one.choice]]), abs=1e-4
        )
        assert record["alternative_log_probability"][at] == pytest.approx(
            math.log(p[one.alternative_token]), abs=1e-4
        )
        np.testing.assert_allclose(np.exp(record["top_log_probabilities"][at]), p.topk(5).values, rtol=1e-4)
        np.testing.assert_allclose(p[record["top_ids"][at]], p.topk(5).values, rtol=1e-4)
    np.testing.assert_allclose(record["mean_probability"], torch.stack(probabilities).mean(0), rtol=1e-4)
    assert record["mean_probability"].sum() == pytest.approx(1.0)
    assert np.isnan(record["choice_log_probability"][4]) and (record["top_ids"][4] == -1).all()


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_activations_are_window_means_of_hidden_states(family, encoded) -> None:
    model = make_model(family)
    record = measure(model, encoded)["activations"]
    assert record["mean"].shape == (5, 4, 3, 32) and record["mean"].dtype == np.float32
    for at, one in enumerate(encoded):
        hidden = model(torch.tensor([one.input_ids]), output_hidden_states=True).hidden_states
        for column, window in enumerate(WINDOWS):
            start, stop = window_span(one, window, first_k=3)
            assert record["count"][at, column] == stop - start
            if start == stop:
                assert np.isnan(record["mean"][at, column]).all()
                continue
            for layer in (0, 1):
                expected = hidden[layer + 1][0, start:stop].mean(dim=0)
                np.testing.assert_allclose(record["mean"][at, column, layer], expected, atol=1e-4)
            # hidden_states[-1] has passed the final norm: it is not the last block's output.
            assert not np.allclose(
                record["mean"][at, column, 2], hidden[3][0, start:stop].mean(dim=0), atol=1e-2
            )
    assert record["count"][0].tolist() == [1, 3, encoded[0].n_answer, 1] and record["count"][4, 3] == 0


def test_a_block_is_gone_when_the_next_is_read_and_shared_by_its_readers(models, encoded) -> None:
    class Watching(Activations):
        def empty(self) -> Watching:
            return Watching(self.layers, name=self.name)

        def read_block(self, layer: int, kept: torch.Tensor, *about: object) -> None:
            alive.append({id(one()) for one in seen if one() is not None} - {id(kept)})
            seen.append(weakref.ref(kept))
            super().read_block(layer, kept, *about)

    seen, alive = [], []
    probes = [Watching([0, 1, 2]), Watching([-1, 1, 1], name="other")]
    first, other = run_probes(models("qwen2"), encoded, probes, batch_tokens=10_000).values()
    assert len(seen) == 6 and not any(alive), "the rows of one block at a time, one copy for all readers"
    np.testing.assert_array_equal(other["mean"], first["mean"][:, :, [2, 1, 1]])


def test_prompt_end_does_not_see_the_answer(models, encoded) -> None:
    one = encoded[0]
    answer = [token + 1 for token in one.input_ids[one.answer_start :]]
    other = replace(one, input_ids=(*one.input_ids[: one.answer_start], *answer))
    first, second = (measure(models("qwen2"), (some,))["activations"]["mean"][0] for some in (one, other))
    np.testing.assert_allclose(first[0], second[0], atol=1e-6)
    assert not np.allclose(first[2], second[2], atol=1e-2)


def test_chunks_change_nothing(models, encoded, monkeypatch) -> None:
    whole = measure(models("llama"), encoded)["sequence"]
    monkeypatch.setattr(probes_module, "_LOGITS_IN_MEMORY", {"cpu": 1000})
    monkeypatch.setattr(probes_module, "_LEAST_ROWS", 1)
    model = models("llama")
    rows: list[int] = []
    original = models_module.logits_at
    monkeypatch.setattr(
        probes_module, "logits_at", lambda m, hidden: (rows.append(len(hidden)), original(m, hidden))[1]
    )
    pieces = measure(model, encoded)["sequence"]
    np.testing.assert_allclose(pieces["log_probability"], whole["log_probability"], atol=1e-5)
    assert max(rows) == 2


def test_many_batches_lie_in_few_arrays_in_their_order() -> None:
    generator = np.random.default_rng(0)
    sizes = generator.integers(0, 9, size=3000).tolist()
    batches = [(generator.integers(99, size=n), generator.standard_normal((n, 2, 50))) for n in sizes]
    whole, places = Columns(), set()
    for indices, values in batches:
        part = Columns()
        part.add(indices.tolist(), values.astype(np.float32))
        if len(indices):
            whole.add(*part.held())
        places |= {column.ctypes.data for column in whole.held()}
    assert len(places) < 30, "an array a batch would be thousands"
    indices, (found,) = whole.finish()
    np.testing.assert_array_equal(indices, np.concatenate([own for own, _ in batches]))
    np.testing.assert_array_equal(found, np.concatenate([own for _, own in batches]).astype(np.float32))
    assert [len(one) for one in (whole.finish()[0], *whole.finish()[1])] == [0]


def test_progress_counts_tokens_without_padding(models, encoded) -> None:
    done: list[int] = []
    run_probes(models("qwen2"), encoded, [TokenLogProbs()], batch_tokens=100, progress=done.append)
    assert done == sorted(done) and done[-1] == sum(len(one.input_ids) for one in encoded)


def test_values_that_are_not_finite_are_named(encoded) -> None:
    model = make_model("qwen2")
    probe = Activations([0, 1])
    run_probes(model, encoded[:2], [probe], batch_tokens=100)
    block = decoder_blocks(model)[1]
    handle = block.register_forward_hook(lambda _m, _i, output: output * float("inf"))
    with pytest.raises(RemiError, match="block output at layer 1: a value of dialogue 'a' is"):
        run_probes(model, encoded[:1], [probe], batch_tokens=100)
    with pytest.raises(RemiError, match="block output at layer 1: a value of dialogue 'a' is"):
        run_probes(model, encoded[:1], [TokenLogProbs()], batch_tokens=100)
    handle.remove()


def test_wrong_use(models, encoded) -> None:
    model = models("qwen2")
    with pytest.raises(UsageError, match="unknown window 'prompt' .*'prompt_end'"):
        Activations([0], ("prompt",))
    with pytest.raises(UsageError, match="no dialogue to measure"):
        run_probes(model, (), [TokenLogProbs()], batch_tokens=10)
    with pytest.raises(UsageError, match="two probes share a name"):
        run_probes(model, encoded, [TokenLogProbs(), TokenLogProbs()], batch_tokens=10)
    with pytest.raises(UsageError, match="layer 3 does not exist"):
        run_probes(model, encoded, [Activations([3])], batch_tokens=10)
    with pytest.raises(UsageError, match="top_k is 401; the vocabulary has 400"):
        run_probes(model, encoded, [NextToken(401)], batch_tokens=100)
