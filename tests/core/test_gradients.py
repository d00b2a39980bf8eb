"""The gradient Gram is the one of autograd's gradients, and the layers below are left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import ALL_FAMILIES, make_model
from transformers import PreTrainedModel

from remi_core.errors import RemiError, UsageError
from remi_core.gradients import (
    FactorFile,
    Factors,
    gradient_factors,
    gram_by_slices,
    gram_by_token_pairs,
    gram_of_factors,
    measure_gradient_gram,
    operations,
)
from remi_core.models import attention_output, decoder_blocks, final_norm, hidden_of


def autograd(model: PreTrainedModel, encoded, layer: int, whole_sequence: bool = False) -> tuple:
    """Whole gradients by the model's own loss, one dialogue at a time, and the losses."""
    weight = attention_output(model.requires_grad_(True), layer).weight
    rows, losses = [], []
    for one in encoded:
        ids = torch.tensor([one.input_ids])
        labels = ids.clone()
        if not whole_sequence:
            labels[0, : one.answer_start] = labels[0, one.answer_stop :] = -100
        loss = model(ids, labels=labels).loss
        rows.append(torch.autograd.grad(loss, weight)[0].double().flatten())
        losses.append(loss.item())
    return torch.stack(rows), losses


def assert_gram(found: np.ndarray, rows: torch.Tensor) -> None:
    expected = (rows @ rows.T).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_equal_to_autograd_through_the_whole_model(family, encoded) -> None:
    found = []
    for layer, whole_sequence in ((-1, False), (0, False), (-1, True), (0, True)):
        rows, losses = autograd(make_model(family), encoded, layer, whole_sequence)
        record = measure_gradient_gram(
            make_model(family), encoded, weight=layer, batch_tokens=150, whole_sequence=whole_sequence
        )
        assert_gram(record["gram"], rows)
        np.testing.assert_allclose(record["loss"], losses, rtol=1e-5)
        found.append(record["gram"])
    # The failing twins: another layer, or the loss over every token, gives another Gram.
    assert not any(np.allclose(found[0], other, rtol=0.05) for other in found[1:])
    model = make_model(family)
    np.testing.assert_array_equal(measure_gradient_gram(model, encoded, batch_tokens=150)["gram"], found[0])
    # A pass that was stopped in the last block leaves nothing behind.
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())
    assert not any("forward" in vars(one) for one in model.modules())


def draw(counts: list[int], d_in: int, d_out: int) -> list[Factors]:
    generator = torch.Generator().manual_seed(1)
    return [tuple(torch.randn(n, d, generator=generator) for d in (d_in, d_out)) for n in counts]


@pytest.mark.parametrize("block_elements", [1, 40, 1 << 20])
@pytest.mark.parametrize("way", [gram_by_slices, gram_by_token_pairs, gram_of_factors])
def test_every_way_to_the_gram_is_the_gram_of_whole_gradients(way, block_elements) -> None:
    factors = draw([9, 4, 0, 12], 5, 7)
    stack = torch.stack([(delta.double().T @ a.double()).flatten() for a, delta in factors])
    found = way(factors, block_elements=block_elements)
    np.testing.assert_allclose(found, stack @ stack.T, rtol=1e-4, atol=1e-4)
    wrong = way([(a, delta.flip(0)) for a, delta in factors], block_elements=block_elements)
    assert not np.allclose(wrong, stack @ stack.T, rtol=1e-2), "which token goes with which matters"


def test_nothing_below_the_weight_is_tracked_and_nothing_is_left(encoded) -> None:
    model, tracked = make_model("gemma"), list[bool]()
    for block in decoder_blocks(model):
        block.register_forward_hook(lambda _m, _i, output: tracked.append(hidden_of(output).requires_grad))
    measure_gradient_gram(model, encoded, weight=1, batch_tokens=10_000)
    assert tracked == [False, True, True]
    assert not any(one.requires_grad or one.grad is not None for one in model.parameters())
    assert not attention_output(model, 1)._forward_hooks


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_after_the_last_attention_only_the_tokens_asked_for_go_on(family, encoded, monkeypatch) -> None:
    model, n_rows = make_model(family), []
    norm, original = final_norm(model), final_norm(model).forward
    norm.forward = lambda hidden: (n_rows.append(hidden.numel() // hidden.shape[-1]), original(hidden))[1]
    found = measure_gradient_gram(model, encoded, batch_tokens=10_000)
    assert n_rows == [sum(one.n_answer for one in encoded)]
    del n_rows[:]
    handle = decoder_blocks(model)[-1].register_forward_hook(lambda *_: None)
    whole = measure_gradient_gram(model, encoded, batch_tokens=10_000)
    longest = max(len(one.input_ids) for one in encoded)
    assert n_rows == [len(encoded) * longest], "a hook sees whole dialogues"
    handle.remove()
    for name, values in whole.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5 * np.abs(values).max())
    # What is changed by a hook is not passed over.
    decoder_blocks(model)[-1].register_forward_hook(lambda _m, _i, output: output.roll(1, dims=-1))
    changed = measure_gradient_gram(model, encoded, batch_tokens=10_000)["gram"]
    assert not np.allclose(changed, found["gram"], rtol=0.05)


def test_wrong_use_and_bad_values(encoded) -> None:
    model = make_model("qwen2")
    with pytest.raises(UsageError, match="layer 3 does not exist"):
        measure_gradient_gram(model, encoded, weight=3, batch_tokens=100)
    with pytest.raises(UsageError, match="no dialogue"):
        measure_gradient_gram(model, (), batch_tokens=100)
    decoder_blocks(model)[2].register_forward_hook(lambda _m, _i, output: output * float("nan"))
    with pytest.raises(RemiError, match="gradients at layer -1: a value of dialogue 'a' is not a number"):
        measure_gradient_gram(model, encoded[:1], batch_tokens=100)


def test_inner_products_across_two_models_are_those_of_whole_gradients(encoded) -> None:
    sides = [(make_model("qwen2"), encoded[:2]), (make_model("qwen2", seed=1), encoded[2:])]
    factors = [one for side in sides for one in gradient_factors(*side, weight=-1, batch_tokens=150)[0]]
    rows = torch.cat([autograd(model, side, -1)[0] for model, side in sides])
    assert_gram(gram_of_factors(factors), rows)
    alone = measure_gradient_gram(make_model("qwen2"), encoded, batch_tokens=150)["gram"]
    assert not np.allclose(alone, rows @ rows.T, rtol=0.1)  # one model on both sets is another matrix


@pytest.mark.parametrize("spill_from", [1, 1 << 30])
def test_factors_come_back_as_written_from_memory_and_from_disk(spill_from) -> None:
    made, file = draw([2, 0, 4], 3, 5), FactorFile(3, spill_from=spill_from)
    with pytest.raises(KeyError, match="dialogue 1 of 3"):
        file[1]
    for index in (2, 0, 1):
        file.write(index, made[index])
    for index, own in enumerate(file):
        assert all(torch.equal(*pair) for pair in zip(own, made[index], strict=True))
    assert torch.equal(file[1:][1][0], made[2][0])
    assert (file.n_tokens, operations(file)) == (6, operations(made))
    np.testing.assert_array_equal(gram_of_factors(file), gram_of_factors(made))
