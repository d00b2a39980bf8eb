"""The gradient Gram is the one of autograd's gradients, and the layers below are left alone."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from conftest import ALL_FAMILIES, make_model

from remi_core import gradients as gradients_module
from remi_core.batches import make_batches
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
    stop_in_last_block,
)
from remi_core.models import attention_output, decoder_blocks, decoder_body, final_norm, hidden_of
from remi_core.probes import positions_of
from remi_core.tokens import EncodedDialogue


def autograd_gram(
    family: str, encoded: tuple[EncodedDialogue, ...], layer: int, whole_sequence: bool
) -> tuple[np.ndarray, list[float]]:
    """The same by the model's own loss and a stack of whole gradients, one dialogue at a time."""
    model = make_model(family).requires_grad_(True)
    weight = attention_output(model, layer).weight
    rows, losses = [], []
    for one in encoded:
        ids = torch.tensor([one.input_ids])
        labels = ids.clone()
        if not whole_sequence:
            labels[0, : one.answer_start] = -100
            labels[0, one.answer_stop :] = -100
        loss = model(ids, labels=labels).loss
        (gradient,) = torch.autograd.grad(loss, weight)
        rows.append(gradient.double().flatten())
        losses.append(loss.item())
    stacked = torch.stack(rows)
    return (stacked @ stacked.T).numpy(), losses


@pytest.mark.parametrize("whole_sequence", [False, True])
@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_equal_to_autograd_through_the_whole_model(family, whole_sequence, encoded) -> None:
    for layer in (-1, 0):
        expected, losses = autograd_gram(family, encoded, layer, whole_sequence)
        record = measure_gradient_gram(
            make_model(family), encoded, weight=layer, batch_tokens=150, whole_sequence=whole_sequence
        )
        np.testing.assert_allclose(record["gram"], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
        np.testing.assert_allclose(record["loss"], losses, rtol=1e-5)
        assert record["gram"].dtype == np.float64


def test_the_layer_and_the_loss_matter(models, encoded) -> None:
    # The failing twins: another layer, or the loss over every token, gives another Gram.
    model = models("qwen2")
    default = measure_gradient_gram(model, encoded, batch_tokens=150)["gram"]
    np.testing.assert_array_equal(
        default, measure_gradient_gram(model, encoded, weight=2, batch_tokens=150)["gram"]
    )
    for other in ({"weight": 0}, {"whole_sequence": True}):
        gram = measure_gradient_gram(model, encoded, batch_tokens=150, **other)["gram"]
        assert not np.allclose(gram, default, rtol=0.05)


def test_batches_and_blocks_change_nothing(models, encoded, monkeypatch) -> None:
    model = models("llama")
    together = measure_gradient_gram(model, encoded, batch_tokens=10_000)["gram"]
    small = partial(gram_of_factors, block_elements=2 * 32 * 32)
    monkeypatch.setattr(gradients_module, "gram_of_factors", small)
    alone = measure_gradient_gram(model, encoded, batch_tokens=1)["gram"]
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5 * together.max())


def test_the_gram_is_a_gram() -> None:
    generator = torch.Generator().manual_seed(0)
    factors = [tuple(torch.randn(n, d, generator=generator) for d in (3, 4)) for n in (2, 5, 1)]
    gram = gram_of_factors(factors)
    pairwise = [[((a @ b.T) * (left @ right.T)).sum().item() for b, right in factors] for a, left in factors]
    np.testing.assert_allclose(gram, pairwise, rtol=1e-5)
    assert np.linalg.eigvalsh(gram).min() > -1e-6 * gram.max() and np.array_equal(gram, gram.T)


@pytest.mark.parametrize("block_elements", [1, 40, 1 << 20])
def test_both_ways_to_the_gram_agree_and_the_cheaper_one_is_known(block_elements) -> None:
    generator = torch.Generator().manual_seed(1)

    def draw(counts: list[int], d_in: int, d_out: int) -> list[Factors]:
        return [tuple(torch.randn(n, d, generator=generator) for d in (d_in, d_out)) for n in counts]

    long = draw([9, 4, 0, 12], 5, 7)
    stack = torch.stack([(delta.double().T @ a.double()).flatten() for a, delta in long])
    for way in (gram_by_slices, gram_by_token_pairs):
        np.testing.assert_allclose(
            way(long, block_elements=block_elements), stack @ stack.T, rtol=1e-4, atol=1e-4
        )
    wrong = gram_by_slices([(a, delta.flip(0)) for a, delta in long])
    assert not np.allclose(wrong, stack @ stack.T, rtol=1e-2), "which token goes with which matters"
    by_pairs, by_slices = operations(draw([1, 2], 300, 400))
    assert by_pairs < by_slices, "few tokens of wide vectors: the matrices would be large"
    by_pairs, by_slices = operations(draw([200, 100], 5, 7))
    assert by_pairs > by_slices


def test_nothing_below_the_weight_is_tracked_and_nothing_is_left(encoded) -> None:
    model = make_model("gemma")
    tracked: dict[int, bool] = {}
    for layer, block in enumerate(decoder_blocks(model)):
        block.register_forward_hook(
            lambda _m, _i, output, layer=layer: tracked.update({layer: hidden_of(output).requires_grad})
        )
    measure_gradient_gram(model, encoded, weight=1, batch_tokens=150)
    assert tracked == {0: False, 1: True, 2: True}
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
    assert n_rows == [len(encoded) * max(len(one.input_ids) for one in encoded)], (
        "a hook sees whole dialogues"
    )
    handle.remove()
    for name, values in whole.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5 * np.abs(values).max())
    # What is changed by a hook is not passed over.
    decoder_blocks(model)[-1].register_forward_hook(lambda _m, _i, output: output.roll(1, dims=-1))
    changed = measure_gradient_gram(model, encoded, batch_tokens=10_000)["gram"]
    assert not np.allclose(changed, found["gram"], rtol=0.05)


def test_a_stopped_pass_goes_on_and_leaves_nothing(encoded) -> None:
    model = make_model("gemma")
    (batch,) = make_batches(encoded, batch_tokens=10_000, pad_id=0)
    stopped = stop_in_last_block(model, batch)
    rows, positions = positions_of([(0, len(encoded[at].input_ids)) for at in batch.indices], device="cpu")
    with torch.no_grad():
        ours = stopped.final_hidden(stopped.outputs[rows, positions], rows, positions)
        own = decoder_body(model)(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        other = stopped.final_hidden(2 * stopped.outputs[rows, positions], rows, positions)
    torch.testing.assert_close(ours, own.last_hidden_state[rows, positions])
    assert not torch.allclose(other, ours, rtol=0.05)
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())
    assert not any("forward" in vars(one) for one in model.modules())


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
    models = [make_model("qwen2", seed=seed) for seed in (0, 1)]
    sides = [encoded[:2], encoded[2:]]
    factors = [
        one
        for model, side in zip(models, sides, strict=True)
        for one in gradient_factors(model, side, weight=-1, batch_tokens=150)[0]
    ]
    rows = []
    for model, side in zip(models, sides, strict=True):
        model.requires_grad_(True)
        for one in side:
            labels = torch.full((1, len(one.input_ids)), -100)
            labels[0, one.answer_start : one.answer_stop] = torch.tensor(one.input_ids)[
                one.answer_start : one.answer_stop
            ]
            loss = model(torch.tensor([one.input_ids]), labels=labels).loss
            (gradient,) = torch.autograd.grad(loss, attention_output(model, -1).weight)
            rows.append(gradient.double().flatten())
    stacked = torch.stack(rows)
    expected = (stacked @ stacked.T).numpy()
    np.testing.assert_allclose(
        gram_of_factors(factors), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )
    alone = measure_gradient_gram(make_model("qwen2"), encoded, batch_tokens=150)["gram"]
    assert not np.allclose(alone, expected, rtol=0.1)  # one model on both sets is another matrix


@pytest.mark.parametrize("spill_from", [1, 1 << 30])
def test_factors_come_back_as_written_from_memory_and_from_disk(spill_from) -> None:
    generator = torch.Generator().manual_seed(0)
    made = [
        (torch.randn(n, 3, generator=generator), torch.randn(n, 5, generator=generator)) for n in (2, 0, 4)
    ]
    file = FactorFile(3, spill_from=spill_from)
    for index in (2, 0, 1):
        file.write(index, made[index])
    for index, own in enumerate(file):
        assert all(torch.equal(*pair) for pair in zip(own, made[index], strict=True))
    assert torch.equal(file[1:][1][0], made[2][0])
    np.testing.assert_array_equal(gram_of_factors(file), gram_of_factors(made))


def test_factors_that_were_never_written_are_missed() -> None:
    with pytest.raises(KeyError, match="dialogue 1 of 2"):
        FactorFile(2)[1]


def test_a_file_knows_its_tokens_without_being_read() -> None:
    file = FactorFile(2, spill_from=1)
    for index, n in enumerate((2, 3)):
        file.write(index, (torch.ones(n, 3), torch.ones(n, 5)))
    assert (file.n_tokens, operations(file)) == (5, operations(list(file)))
