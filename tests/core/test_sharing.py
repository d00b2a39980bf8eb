"""A pass that memory stops goes on, smaller: each dialogue once, and the numbers of the unbroken pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from conftest import MAIN_FAMILIES
from transformers import PreTrainedModel

from remi_core import forward, gradients
from remi_core import models as models_module
from remi_core.batches import Batch, BatchBudget
from remi_core.errors import RemiError
from remi_core.forward import run_probes
from remi_core.gradients import gradient_factors, gram_of_factors
from remi_core.models import decoder_body
from remi_core.probes import Activations, NextToken, PassState, TokenLogProbs
from remi_core.tokens import EncodedDialogue, encode

Models = Callable[[str], PreTrainedModel]
Arrays = dict[str, np.ndarray]
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA out of memory."),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
]


@pytest.fixture(scope="session")
def encoded(dialogues, tokenizer) -> tuple[EncodedDialogue, ...]:
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


def measure(
    model: PreTrainedModel,
    encoded: Sequence[EncodedDialogue],
    batch_tokens: int | BatchBudget,
    fails: Callable[[Batch], None] = lambda batch: None,
) -> Arrays:
    """Arrays of all probes, by ``probe.array``; the probe that counts, and may fail, is the last of them."""
    probes = [TokenLogProbs(), NextToken(5), Activations([0, -1]), CountingProbe(fails)]
    found = run_probes(model, encoded, probes, batch_tokens=batch_tokens)
    return {f"{name}.{key}": values for name, arrays in found.items() for key, values in arrays.items()}


def larger_than(n_tokens: int, error: Exception) -> Callable[[Batch], None]:
    """A memory in which batches of at most so many tokens have place."""

    def fails(batch: Batch) -> None:
        if batch.input_ids.numel() > n_tokens:
            raise error

    return fails


def assert_equal(ours: Arrays, expected: Arrays) -> None:
    assert ours.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(ours[name], values, atol=1e-5, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("error", ERRORS, ids=["torch", "cuda", "processor"])
def test_a_pass_goes_on_smaller_and_gives_the_same(error, models, encoded) -> None:
    unbroken, budget = measure(models("qwen2"), encoded, 800), BatchBudget(800)
    broken = measure(models("qwen2"), encoded, budget, larger_than(250, error))
    assert_equal(broken, unbroken)
    assert broken["counting.counts"].tolist() == [1] * len(encoded)
    assert budget.ran <= 250 < budget.asked == 800 and budget.n_out_of_memory >= 2
    assert budget.about() == {
        "batch_tokens": 800,
        "batch_tokens_ran": budget.ran,
        "out_of_memory": budget.n_out_of_memory,
    }


def test_what_is_done_is_not_done_again(models, encoded) -> None:
    seen: list[list[int]] = []

    def fails(batch: Batch) -> None:
        seen.append(batch.indices.tolist())
        if len(seen) == 3:
            raise ERRORS[0]

    measure(models("llama"), encoded, 200, fails)
    lost = seen.pop(2)
    assert Counter(index for group in seen for index in group) == Counter(range(len(encoded)))
    assert set(lost) & set(seen[2]) and not set(lost) & {index for group in seen[:2] for index in group}


def test_half_of_a_batch_is_not_kept(models, encoded, monkeypatch) -> None:
    """Memory runs out between two chunks of logits, when the probe has added the first one to its mean."""
    model, original, calls = models("gemma"), PassState.log_probabilities, Counter()
    whole = measure(model, encoded, 800)

    def breaking(self: PassState, rows: torch.Tensor, positions: torch.Tensor) -> Iterator:
        for part, values in original(self, rows, positions):
            middle = (part.start + part.stop) // 2
            yield slice(part.start, middle), values[: middle - part.start]
            calls["halves"] += 1
            if calls["halves"] == 2:
                raise ERRORS[1]
            yield slice(middle, part.stop), values[middle - part.start :]

    monkeypatch.setattr(PassState, "log_probabilities", breaking)
    probe = NextToken(5)
    found = run_probes(model, encoded, [probe], batch_tokens=400)["next_token"]
    assert calls["halves"] > 3
    assert found["mean_probability"].sum() == pytest.approx(1.0)
    np.testing.assert_allclose(found["mean_probability"], whole["next_token.mean_probability"], atol=1e-6)


def test_a_dialogue_that_does_not_fit_alone_is_named(models, encoded) -> None:
    longest = max(encoded, key=lambda one: len(one.input_ids))
    n_tokens = len(longest.input_ids)
    message = (
        rf"dialogue '{longest.identifier}' of {n_tokens} tokens .* alone: set max_tokens below {n_tokens}"
    )
    with pytest.raises(RemiError, match=message):
        measure(models("qwen2"), encoded, 800, larger_than(n_tokens - 1, ERRORS[0]))
    # One token more, and it fits.
    measure(models("qwen2"), encoded, 800, larger_than(n_tokens, ERRORS[0]))


def test_another_error_is_no_lack_of_memory(models, encoded) -> None:
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        measure(models("qwen2"), encoded, 800, larger_than(1, RuntimeError("shapes do not fit")))


def test_gradients_go_on_smaller_too(models, encoded, monkeypatch) -> None:
    model, original, sizes = models("llama"), gradients._backward, []

    def backward(*arguments: object) -> tuple:
        batch = arguments[2]
        sizes.append(batch.input_ids.numel())
        larger_than(250, ERRORS[0])(batch)
        return original(*arguments)

    factors, losses = gradient_factors(model, encoded, batch_tokens=800)
    monkeypatch.setattr(gradients, "_backward", backward)
    budget = BatchBudget(800)
    broken, broken_losses = gradient_factors(model, encoded, batch_tokens=budget)
    assert budget.n_out_of_memory and budget.ran <= 250 and max(sizes) > 250
    np.testing.assert_allclose(broken_losses, losses, rtol=1e-5)
    expected = gram_of_factors(factors)
    np.testing.assert_allclose(gram_of_factors(broken), expected, rtol=1e-5, atol=1e-5 * expected.max())
    with pytest.raises(RemiError, match="does not fit into memory even alone"):
        monkeypatch.setattr(gradients, "_backward", lambda *_: larger_than(1, ERRORS[1])(_[2]))
        gradient_factors(model, encoded, batch_tokens=800)


@contextmanager
def padded_left(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, *, positions: bool
) -> Iterator[None]:
    """Within, the model reads its batches padded on the left; what is taken of it is put back to the right.

    ``positions``: whether it is told where each dialogue starts, as it must be.
    """
    moved: dict[str, torch.Tensor] = {}

    def before(_module: object, args: tuple, options: dict) -> tuple[tuple, dict]:
        mask = options["attention_mask"]
        columns, gaps = torch.arange(mask.shape[1]), mask.shape[1] - mask.sum(dim=1, keepdim=True)
        moved["back"], left = (columns + gaps) % mask.shape[1], (columns - gaps) % mask.shape[1]
        own = {name: options[name].gather(1, left) for name in ("input_ids", "attention_mask")}
        if positions:
            own["position_ids"] = (own["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
        return args, options | own

    def back(hidden: torch.Tensor) -> torch.Tensor:
        return hidden.gather(1, moved["back"][..., None].expand_as(hidden))

    def after(_module: object, _args: tuple, output: object) -> object:
        output.last_hidden_state = back(output.last_hidden_state)
        return output

    original, body = models_module.follow_blocks, decoder_body(model)
    monkeypatch.setattr(
        forward,
        "follow_blocks",
        lambda model, layers, read: original(model, layers, lambda layer, hidden: read(layer, back(hidden))),
    )
    handles = [body.register_forward_pre_hook(before, with_kwargs=True), body.register_forward_hook(after)]
    try:
        yield
    finally:
        monkeypatch.undo()
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("family", (*MAIN_FAMILIES, "gpt_neox", "gpt2"))
def test_batch_size_and_side_of_padding_change_nothing(family, models, encoded, monkeypatch) -> None:
    """One dialogue at a time and 32, padded on either side: within 1e-5 nat and 1e-5 relative, in float32."""
    model, some = models(family), (*encoded, *encoded[:12])
    size = len(some) * max(len(one.input_ids) for one in some)
    alone, right = (measure(model, some, n_tokens) for n_tokens in (1, size))
    with padded_left(model, monkeypatch, positions=True):
        left = measure(model, some, size)
    for together in (right, left):
        assert_equal(together, alone)
    with padded_left(model, monkeypatch, positions=False):
        lost = measure(model, some, size)
    turning = family in ("qwen2", "llama", "gemma", "gpt_neox")  # rotary positions are relative
    assert np.allclose(lost["sequence.entropy"], alone["sequence.entropy"], atol=1e-5) is turning
