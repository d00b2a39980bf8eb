"""Probes agree with the model's own loss, softmax and hidden states, in any batch and where memory ends."""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from conftest import ALL_FAMILIES, MAIN_FAMILIES, make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from remi_core import batches, gradients, parallel
from remi_core import probes as probes_module
from remi_core.batches import Batch, BatchBudget, make_batches, share_batches
from remi_core.errors import RemiError, UsageError
from remi_core.forward import run_probes
from remi_core.gradients import gradient_factors, gram_of_factors
from remi_core.models import decoder_blocks, logits_at
from remi_core.probes import Activations, Columns, NextToken, PassState, Probe, TokenLogProbs
from remi_core.tokens import WINDOWS, EncodedDialogue, encode

Arrays = dict[str, np.ndarray]


def measure(model: PreTrainedModel, encoded: tuple[EncodedDialogue, ...]) -> dict[str, Arrays]:
    probes = [TokenLogProbs(), NextToken(5), Activations([0, 1, -1], first_k=3)]
    assert all(isinstance(probe, Probe) for probe in probes)
    return run_probes(model, encoded, probes, batch_tokens=150)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_mean_answer_loss_and_entropy_are_the_models_own(family, models, encoded) -> None:
    model = models(family)
    record = measure(model, encoded)["sequence"]
    answer_loss, whole_loss, entropy = [], [], []
    for one, start, stop in zip(encoded, record["offsets"], record["offsets"][1:], strict=False):
        ids, answer = torch.tensor([one.input_ids]), slice(one.answer_start, one.answer_stop)
        labels = torch.full_like(ids, -100)
        labels[0, answer] = ids[0, answer]
        output = model(ids, labels=labels)
        answer_loss.append(output.loss.item())
        whole_loss.append(model(ids, labels=ids).loss.item())
        logits = output.logits[0, one.answer_start - 1 : one.answer_stop - 1].double()
        entropy.append(torch.distributions.Categorical(logits=logits).entropy())
        assert record["token"][start:stop].tolist() == ids[0, answer].tolist()
    ours = np.add.reduceat(-record["log_probability"], record["offsets"][:-1]) / np.diff(record["offsets"])
    np.testing.assert_allclose(ours, answer_loss, rtol=1e-5)
    np.testing.assert_allclose(record["entropy"], torch.cat(entropy), rtol=1e-4)
    # The failing twin: the loss over the whole dialogue is another number.
    assert not np.allclose(ours, whole_loss, rtol=1e-2)


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_next_token_is_the_softmax_before_the_choice(family, models, encoded) -> None:
    model = models(family)
    record = measure(model, encoded)["next_token"]
    assert record["valid"].tolist() == [True, True, True, True, False]
    probabilities = []
    for at, one in enumerate(encoded[:4]):
        p = torch.softmax(model(torch.tensor([one.input_ids])).logits[0].double(), dim=-1)[one.choice - 1]
        probabilities.append(p)
        for name, token in (("choice", one.input_ids[one.choice]), ("alternative", one.alternative_token)):
            assert record[f"{name}_log_probability"][at] == pytest.approx(math.log(p[token]), abs=1e-4)
        for top in (np.exp(record["top_log_probabilities"][at]), p[record["top_ids"][at]]):
            np.testing.assert_allclose(top, p.topk(5).values, rtol=1e-4)
    np.testing.assert_allclose(record["mean_probability"], torch.stack(probabilities).mean(0), rtol=1e-4)
    assert record["mean_probability"].sum() == pytest.approx(1.0)
    assert np.isnan(record["choice_log_probability"][4]) and (record["top_ids"][4] == -1).all()


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_activations_are_window_means_of_hidden_states(family, encoded) -> None:
    model = make_model(family)
    record = measure(model, encoded)["activations"]
    assert record["mean"].shape == (5, 4, 3, 32) and record["mean"].dtype == np.float32
    for at, one in enumerate(encoded):
        hidden = model(torch.tensor([one.input_ids]), output_hidden_states=True).hidden_states
        start, stop, choice = one.answer_start, one.answer_stop, one.choice
        first, chosen = (start, min(start + 3, stop)), (0, 0) if choice is None else (choice, choice + 1)
        for column, (left, right) in enumerate(((start - 1, start), first, (start, stop), chosen)):
            assert record["count"][at, column] == right - left
            means = record["mean"][at, column]
            if left == right:
                assert np.isnan(means).all()
                continue
            expected = torch.stack([hidden[layer][0, left:right].mean(dim=0) for layer in (1, 2, 3)])
            np.testing.assert_allclose(means[:2], expected[:2], atol=1e-4)
            # hidden_states[-1] has passed the final norm: it is not the last block's output.
            assert not np.allclose(means[2], expected[2], atol=1e-2)
    assert WINDOWS == ("prompt_end", "answer_first_k", "answer_all", "choice")


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


def test_chunks_change_nothing_and_progress_counts_tokens_without_padding(
    models, encoded, monkeypatch
) -> None:
    model, rows, done = models("llama"), list[int](), list[int]()
    whole = measure(model, encoded)["sequence"]
    monkeypatch.setattr(probes_module, "_LOGITS_IN_MEMORY", {"cpu": 1000})
    monkeypatch.setattr(probes_module, "_LEAST_ROWS", 1)
    counted = lambda model, hidden: rows.append(len(hidden)) or logits_at(model, hidden)  # noqa: E731
    monkeypatch.setattr(probes_module, "logits_at", counted)
    probes = [TokenLogProbs()]
    pieces = run_probes(model, encoded, probes, batch_tokens=150, progress=done.append)["sequence"]
    np.testing.assert_allclose(pieces["log_probability"], whole["log_probability"], atol=1e-5)
    assert max(rows) == 2
    assert done == sorted(done) and done[-1] == sum(len(one.input_ids) for one in encoded)


def test_many_batches_lie_in_few_arrays_in_their_order() -> None:
    generator, whole, places = np.random.default_rng(0), Columns(), set()
    batches = [
        (generator.integers(99, size=n), generator.standard_normal((n, 2, 50), dtype=np.float32))
        for n in generator.integers(0, 9, size=3000)
    ]
    for indices, values in batches:
        part = Columns()
        part.add(indices.tolist(), values)
        if len(indices):
            whole.add(*part.held())
        places |= {column.ctypes.data for column in whole.held()}
    assert len(places) < 30, "an array a batch would be thousands"
    indices, (found,) = whole.finish()
    for joined, parts in zip((indices, found), zip(*batches, strict=True), strict=True):
        np.testing.assert_array_equal(joined, np.concatenate(parts))
    assert [len(one) for one in (whole.finish()[0], *whole.finish()[1])] == [0]


def test_wrong_use_and_values_that_are_not_finite_are_named(encoded) -> None:
    with pytest.raises(UsageError, match="unknown window 'prompt' .*'prompt_end'"):
        Activations([0], ("prompt",))
    model, probe = make_model("qwen2"), Activations([0, 1])
    for some, probes, message in (
        ((), [TokenLogProbs()], "no dialogue to measure"),
        (encoded, [TokenLogProbs(), TokenLogProbs()], "two probes share a name"),
        (encoded, [Activations([3])], "layer 3 does not exist"),
        (encoded, [NextToken(401)], "top_k is 401; the vocabulary has 400"),
    ):
        with pytest.raises(UsageError, match=message):
            run_probes(model, some, probes, batch_tokens=100)
    run_probes(model, encoded[:2], [probe], batch_tokens=100)
    decoder_blocks(model)[1].register_forward_hook(lambda _m, _i, output: output * float("inf"))
    for reads in (probe, TokenLogProbs()):
        with pytest.raises(RemiError, match="block output at layer 1: a value of dialogue 'a' is"):
            run_probes(model, encoded[:1], [reads], batch_tokens=100)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA out of memory."),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
]


@pytest.fixture(scope="session")
def twenty(dialogues, tokenizer) -> tuple[EncodedDialogue, ...]:
    """Twenty dialogues of five lengths."""
    return encode(dialogues, tokenizer, max_tokens=200).dialogues * 4


class CountingProbe:
    """How often each dialogue was taken; it counts a dialogue before it looks whether the batch fits."""

    name = "counting"
    layers: tuple[int, ...] = ()

    def __init__(self, fails: Callable[[Batch], None] = lambda batch: None) -> None:
        self.counts: Counter[int] = Counter()
        self._fails = fails

    def empty(self) -> CountingProbe:
        return CountingProbe(self._fails)

    def accumulate(self, batch: Batch, state: PassState) -> None:
        self.counts.update(batch.indices.tolist())
        self._fails(batch)

    def join(self, other: CountingProbe) -> None:
        self.counts.update(other.counts)

    def finish(self) -> Arrays:
        return {"counts": np.array([self.counts[index] for index in range(max(self.counts) + 1)])}


def measure_counted(
    model: PreTrainedModel,
    twenty: Sequence[EncodedDialogue],
    batch_tokens: int | BatchBudget,
    fails: Callable[[Batch], None] = lambda batch: None,
) -> Arrays:
    """Arrays of all probes, by ``probe.array``; the probe that counts, and may fail, is the last of them."""
    probes = [TokenLogProbs(), NextToken(5), Activations([0, -1]), CountingProbe(fails)]
    found = run_probes(model, twenty, probes, batch_tokens=batch_tokens)
    return {f"{name}.{key}": values for name, arrays in found.items() for key, values in arrays.items()}


def larger_than(n_tokens: int, error: Exception, fitted: list[int] | None = None) -> Callable[[Batch], None]:
    """A memory in which batches of at most so many tokens have place; their dialogues are written down."""

    def fails(batch: Batch) -> None:
        if batch.input_ids.numel() > n_tokens:
            raise error
        if fitted is not None:
            fitted.extend(batch.indices.tolist())

    return fails


def assert_equal(ours: Arrays, expected: Arrays) -> None:
    assert ours.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(ours[name], values, atol=1e-5, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("error", ERRORS, ids=["torch", "cuda", "processor"])
def test_a_pass_goes_on_smaller_gives_the_same_and_does_nothing_twice(error, models, twenty) -> None:
    unbroken, budget, fitted = measure_counted(models("qwen2"), twenty, 800), BatchBudget(800), list[int]()
    broken = measure_counted(models("qwen2"), twenty, budget, larger_than(250, error, fitted))
    assert_equal(broken, unbroken)
    assert broken["counting.counts"].tolist() == [1] * 20 and sorted(fitted) == list(range(20))
    assert budget.ran <= 250 < budget.asked == 800 and budget.n_out_of_memory >= 2


def test_a_dialogue_that_does_not_fit_alone_is_named(models, encoded) -> None:
    n_tokens, name = max((len(one.input_ids), one.identifier) for one in encoded)
    named = rf"dialogue '{name}' of {n_tokens} tokens .* alone: set max_tokens below {n_tokens}"
    with pytest.raises(RemiError, match=named):
        measure_counted(models("qwen2"), encoded, 800, larger_than(n_tokens - 1, ERRORS[0]))
    # One token more, and it fits; another error is no lack of memory.
    measure_counted(models("qwen2"), encoded, 800, larger_than(n_tokens, ERRORS[0]))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        measure_counted(models("qwen2"), encoded, 800, larger_than(1, RuntimeError("shapes do not fit")))


def test_gradients_go_on_smaller_too(models, twenty, monkeypatch) -> None:
    model, original, sizes = models("llama"), gradients._backward, []

    def backward(*arguments: object) -> tuple:
        batch = arguments[2]
        sizes.append(batch.input_ids.numel())
        larger_than(250, ERRORS[0])(batch)
        return original(*arguments)

    factors, losses = gradient_factors(model, twenty, batch_tokens=800)
    monkeypatch.setattr(gradients, "_backward", backward)
    budget = BatchBudget(800)
    broken, broken_losses = gradient_factors(model, twenty, batch_tokens=budget)
    assert budget.n_out_of_memory and budget.ran <= 250 and max(sizes) > 250
    np.testing.assert_allclose(broken_losses, losses, rtol=1e-5)
    expected = gram_of_factors(factors)
    np.testing.assert_allclose(gram_of_factors(broken), expected, rtol=1e-5, atol=1e-5 * expected.max())
    with pytest.raises(RemiError, match="does not fit into memory even alone"):
        monkeypatch.setattr(gradients, "_backward", lambda *_: larger_than(1, ERRORS[1])(_[2]))
        gradient_factors(model, twenty, batch_tokens=800)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_batch_size_changes_nothing(family, models, twenty) -> None:
    """One dialogue at a time and all in one batch: within 1e-5 nat and 1e-5 relative, in float32."""
    size = len(twenty) * max(len(one.input_ids) for one in twenty)
    alone, together = (measure_counted(models(family), twenty, n_tokens) for n_tokens in (1, size))
    assert_equal(together, alone)


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
    with pytest.raises(UsageError, match="batch_tokens is 0"):
        make_batches(encoded, batch_tokens=0, pad_id=0)


def test_a_batch_that_another_process_lost_is_cut_anew_by_all(monkeypatch) -> None:
    """This process is the first of two, and hears that the second one's batch did not fit."""
    lengths = [8, 8, 8, 8, 4, 4, 2, 2]
    encoded = [encoded_of(length, at) for at, length in enumerate(lengths)]
    turns: list[list[int]] = []
    monkeypatch.setattr(batches, "n_ranks", lambda: 2)
    monkeypatch.setattr(batches, "on_all", lambda fits: [fits, len(turns) != 1])
    monkeypatch.setattr(batches, "on_first", lambda part: [part, None if len(turns) == 1 else "other"])

    def measure(batch: Batch) -> str:
        turns.append(batch.indices.tolist())
        return "own"

    kept: list[tuple[str, list[int]]] = []
    budget = BatchBudget(16)
    share_batches(encoded, budget, measure=measure, keep=lambda group, part: kept.append((part, list(group))))
    assert budget.ran == 8 and budget.n_out_of_memory == 1
    assert kept == [("own", [0, 1]), ("own", [2]), ("other", [3]), ("own", [4, 5]), ("other", [6, 7])]
    assert turns == [group for part, group in kept if part == "own"]


def test_nothing_is_joined_where_nothing_was_launched(monkeypatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with parallel.join_ranks(), parallel.first_goes_first():
        assert (parallel.rank(), parallel.n_ranks(), parallel.local_ranks()) == (0, 1, 1)
        assert parallel.own_card() == [] and parallel.on_all("a") == parallel.on_first("a") == ["a"]
