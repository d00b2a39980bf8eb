"""Read activations are the block outputs, edits included, and no hook stays behind."""

from __future__ import annotations

import pytest
import torch
from conftest import ALL_FAMILIES, make_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from remi_core.errors import UsageError
from remi_core.models import decoder_blocks, final_norm, hidden_of, read_blocks

IDS = torch.arange(1, 9)[None]


def hook_count(model: PreTrainedModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_equal_to_hidden_states_below_the_final_norm_only(family) -> None:
    # A fresh model: transformers leaves hooks of its own behind after recording hidden states.
    model = make_model(family)
    with read_blocks(model, [0, 1, 2]) as blocks:
        hidden_states = model(IDS, output_hidden_states=True).hidden_states
    for layer in (0, 1):
        torch.testing.assert_close(blocks[layer], hidden_states[layer + 1])
    assert not torch.allclose(blocks[2], hidden_states[3])
    torch.testing.assert_close(final_norm(model)(blocks[2]), hidden_states[3])


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_edit_is_seen_whenever_it_was_registered(when, models) -> None:
    model = models("qwen2")
    block = decoder_blocks(model)[1]
    with read_blocks(model, [1]) as plain:
        model(IDS)

    def edit(_module: nn.Module, _inputs: tuple, output: Tensor | tuple[Tensor, ...]) -> Tensor:
        return hidden_of(output) + 1.0

    handles = [block.register_forward_hook(edit)] if when == "before" else []
    naive: dict[str, Tensor] = {}
    handles.append(block.register_forward_hook(lambda _m, _i, output: naive.update(block=hidden_of(output))))
    with read_blocks(model, [1]) as edited:
        if when == "after":
            handles.append(block.register_forward_hook(edit))
        model(IDS)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(edited[1], plain[1] + 1.0)
    # The failing twin: a reader in the order of registration misses an edit registered after it.
    assert torch.equal(naive["block"], edited[1]) == (when == "before")


def test_hooks_are_gone_after_an_exception(models) -> None:
    model = models("llama")
    before = hook_count(model)
    with pytest.raises(RuntimeError, match="planned"), read_blocks(model, [0, -1]):
        model(IDS)
        assert hook_count(model) == before + 4
        raise RuntimeError("planned")
    assert hook_count(model) == before
    with pytest.raises(UsageError, match="layer 7 does not exist"), read_blocks(model, [0, 7]):
        pass
    assert hook_count(model) == before


def test_layers_are_named_as_asked_and_selected(models) -> None:
    model = models("qwen2")
    with (
        read_blocks(model, [2, -1, 0], select=lambda hidden: hidden[:, -1]) as last,
        read_blocks(model, [2]) as whole,
    ):
        model(IDS)
    assert set(last) == {2, -1, 0}
    assert torch.equal(last[2], last[-1]) and torch.equal(last[2], whole[2][:, -1])
    assert not torch.equal(last[0], last[2])


def test_blocks_that_return_tuples_are_read() -> None:
    assert torch.equal(hidden_of((IDS, None)), hidden_of(IDS))
