"""What a direction writes is what the model's own logits do when the last block's output is moved along it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import ALL_FAMILIES
from torch import Tensor, nn
from transformers import PreTrainedModel

from remi_core.errors import UsageError
from remi_core.models import LoadedModel, decoder_blocks, hidden_of, n_layers, read_blocks
from remi_core.steering import written_tokens
from remi_lab.passes import measure_position_norms

IDS = torch.tensor([[5, 9, 40, 17, 33]])


@pytest.fixture
def step() -> np.ndarray:
    return np.random.default_rng(0).normal(size=32)


def moved_logits(model: PreTrainedModel, step: np.ndarray) -> Tensor:
    """Logits at the last position with the last block's output moved there by ``step``."""

    def move(_module: nn.Module, _inputs: tuple, output: Tensor | tuple) -> Tensor | tuple:
        hidden = hidden_of(output).clone()
        hidden[0, -1] += torch.from_numpy(step).float()
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = decoder_blocks(model)[-1].register_forward_hook(move)
    try:
        return model(IDS).logits[0, -1]
    finally:
        handle.remove()


def activations(model: PreTrainedModel) -> np.ndarray:
    with read_blocks(model, range(n_layers(model))) as blocks:
        model(IDS)
    return np.stack([blocks[layer][0, -1].numpy() for layer in range(n_layers(model))])


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_equal_to_moving_the_last_block(family, step, models, tokenizer) -> None:
    model = models(family)
    start = activations(model)
    found = written_tokens(
        LoadedModel(model, tokenizer, "", ""), np.tile(step, (len(start), 1)), start, top_k=7
    )
    unit = step / np.linalg.norm(step)
    change = (moved_logits(model, unit) - model(IDS).logits[0, -1]).numpy()
    order = np.argsort(-change)
    np.testing.assert_allclose(found.raised_change[-1], change[order[:7]], atol=2e-5)
    np.testing.assert_allclose(change[found.raised[-1]], change[order[:7]], atol=2e-5)
    np.testing.assert_allclose(found.lowered_change[-1], np.sort(change)[:7], atol=2e-5)
    assert np.abs(found.raised_change[0] - found.raised_change[-1]).max() > 1e-4, "layers differ"


def test_length_does_not_matter_and_the_sign_swaps_the_ends(step, models, tokenizer) -> None:
    loaded = LoadedModel(models("qwen2"), tokenizer, "", "")
    start = activations(loaded.model)
    rows = np.tile(step, (len(start), 1))
    one, longer, back = (written_tokens(loaded, factor * rows, start, top_k=5) for factor in (1, 30, -1))
    np.testing.assert_array_equal(one.raised, longer.raised)
    np.testing.assert_allclose(one.raised_change, longer.raised_change, atol=1e-6)
    assert (one.raised != back.raised).any() and (back.raised_change > 0).all()


def test_refusals(step, models, tokenizer) -> None:
    loaded = LoadedModel(models("qwen2"), tokenizer, "", "")
    start = np.ones((3, 32))
    rows = np.tile(step, (3, 1))
    rows[1] = 0
    with pytest.raises(UsageError, match="layer 1: zero or not finite"):
        written_tokens(loaded, rows, start)
    with pytest.raises(UsageError, match="valid are 1 to 400"):
        written_tokens(loaded, np.tile(step, (3, 1)), start, top_k=401)


def test_position_lengths_are_those_of_single_dialogues(encoded, models, tokenizer) -> None:
    model = models("llama")
    found = measure_position_norms(LoadedModel(model, tokenizer, "", ""), encoded, batch_tokens=120)
    for index, one in enumerate(encoded):
        states = model(torch.tensor([one.input_ids]), output_hidden_states=True).hidden_states[1:-1]
        for layer, state in enumerate(states):
            lengths = state[0].norm(dim=-1)
            np.testing.assert_allclose(found["first"][index, layer], lengths[0], rtol=1e-5)
            np.testing.assert_allclose(found["others"][index, layer], lengths[1:].median(), rtol=1e-5)
    assert ((found["largest_share"] >= 1 / 32) & (found["largest_share"] <= 1)).all()
