"""Moving the stream by hook equals moving it by weights, and finds a direction that was planted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import make_model
from torch import nn
from transformers import PreTrainedModel

from remi_core.errors import UsageError
from remi_core.models import attention_output, final_norm, read_blocks, unembedding
from remi_core.steering import (
    add_vector,
    fold_addition,
    fold_projection,
    mlp_output,
    only_where,
    project_out,
    set_coordinates,
    steer,
)
from remi_lab.studies.causes import random_directions

IDS = torch.tensor([[5, 9, 11, 7, 3, 8], [4, 6, 2, 9, 1, 12]])
FAMILIES = ("qwen2", "llama", "gpt2", "gpt_neox")
LAYER, LAST = 1, 2


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits


def directions(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", FAMILIES)
def test_adding_a_vector_by_hook_equals_a_bias(family: str) -> None:
    hooked, folded, vector = make_model(family), make_model(family), directions(1)[0]
    plain = logits(hooked)
    fold_addition(folded, LAYER, vector)
    with steer(hooked, LAYER, add_vector(vector)):
        torch.testing.assert_close(logits(hooked), logits(folded), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(plain, logits(folded), atol=1e-3)
    torch.testing.assert_close(logits(hooked), plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_projecting_what_a_block_writes_by_hook_equals_edited_weights(family: str) -> None:
    hooked, folded, two = make_model(family), make_model(family), directions(2)
    fold_projection(folded, LAYER, two)
    out = project_out(two)
    handles = [
        part(hooked, LAYER).register_forward_hook(lambda _m, _i, output: out(output))
        for part in (attention_output, mlp_output)
    ]
    torch.testing.assert_close(logits(hooked), logits(folded), atol=1e-5, rtol=1e-4)
    for handle in handles:
        handle.remove()
    with read_blocks(folded, [LAYER - 1, LAYER]) as read:
        logits(folded)
    written = read[LAYER] - read[LAYER - 1]
    torch.testing.assert_close(written @ two.T, torch.zeros(2, 6, 2), atol=1e-4, rtol=0)


def test_a_norm_behind_the_mlp_is_refused() -> None:
    with pytest.raises(UsageError, match="post_feedforward_layernorm"):
        fold_addition(make_model("gemma2"), LAYER, directions(1)[0])


def test_coordinates_get_their_values_and_the_rest_stays() -> None:
    own, two, values = torch.randn(3, 4, 32), directions(2, seed=1), torch.tensor([2.0, -1.0])
    units = two / two.norm(dim=-1, keepdim=True)
    assert abs(float(units[0] @ units[1])) > 0.01  # not orthogonal, which makes the task hard
    moved = set_coordinates(two, values)(own)
    torch.testing.assert_close(moved @ units.T, values.expand(3, 4, 2), atol=1e-5, rtol=1e-5)
    across = torch.eye(32) - torch.linalg.pinv(units) @ units
    torch.testing.assert_close(moved @ across, own @ across, atol=1e-5, rtol=1e-5)
    half = set_coordinates(two, values, share=0.5)(own)
    torch.testing.assert_close(half, (own + moved) / 2, atol=1e-5, rtol=1e-5)
    gone = project_out(two)(own)
    torch.testing.assert_close(gone @ two.T, torch.zeros(3, 4, 2), atol=1e-4, rtol=0)
    with pytest.raises(UsageError, match="rank 1"):
        project_out(torch.stack([two[0], 2 * two[0]]))


def test_a_change_may_be_kept_to_some_positions() -> None:
    own, where = torch.randn(2, 6, 32), torch.zeros(2, 6, dtype=torch.bool)
    where[0, 3] = True
    moved = only_where(add_vector(torch.ones(32)), where)(own)
    assert torch.equal(moved - own != 0, where[..., None].expand_as(own))


@pytest.fixture
def planted() -> tuple[PreTrainedModel, torch.Tensor]:
    """A model in which one known direction alone decides between two tokens, and that direction."""
    model = make_model("llama")
    direction = directions(1, seed=3)[0]
    direction /= direction.norm()
    head = unembedding(model).weight
    with torch.no_grad():
        final_norm(model).weight.fill_(1.0)  # or the norm would turn what the head reads
        for token, sign in ((20, 4.0), (21, -4.0)):
            head[token] = sign * direction
    return model, direction


def odds(model: PreTrainedModel) -> float:
    found = logits(model)[:, -1]
    return float((found[:, 20] - found[:, 21]).mean())


def test_the_planted_direction_flips_the_token_and_random_ones_do_not(
    planted: tuple[PreTrainedModel, torch.Tensor],
) -> None:
    model, direction = planted
    with read_blocks(model, [LAST]) as read:
        plain = odds(model)
    length = 2 * float(read[LAST].norm(dim=-1).mean())
    states = read[LAST].flatten(0, 1).double().numpy()

    def moved(one: torch.Tensor) -> float:
        with steer(model, LAST, add_vector(length * one)):
            return odds(model) - plain

    drawn = random_directions(states[None], count=40, seed=0)[:, 0]
    random = [moved(torch.tensor(one, dtype=torch.float32)) for one in drawn]
    assert moved(direction) > np.quantile(random, 0.975) > 0
    assert moved(-direction) < np.quantile(random, 0.025) < 0
    with steer(model, LAST, project_out(direction[None])):
        assert abs(odds(model)) < 1e-3 < abs(plain)


def test_random_directions_have_the_covariance_of_the_states() -> None:
    generator = np.random.default_rng(0)
    states = generator.standard_normal((1, 500, 3)) * [5.0, 1.0, 0.0] + 100.0
    drawn = random_directions(states, count=4000, seed=1)[:, 0]
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1)
    assert np.abs(drawn[:, 2]).max() < 1e-9
    assert np.square(drawn[:, 0]).mean() > 5 * np.square(drawn[:, 1]).mean()
    sphere = generator.standard_normal((4000, 3))  # the failing twin knows nothing of the states
    assert np.square(sphere[:, 0]).mean() < 2 * np.square(sphere[:, 1]).mean()


def test_what_is_steered_is_whole_again_afterwards(models: Callable[[str], PreTrainedModel]) -> None:
    model = models("qwen2")
    plain = logits(model)
    with pytest.raises(RuntimeError, match="on purpose"), steer(model, 0, add_vector(torch.ones(32))):
        raise RuntimeError("on purpose")
    torch.testing.assert_close(logits(model), plain)
    assert isinstance(mlp_output(model, 0), nn.Linear)
