"""Moving the stream by hook equals a bias, and finds a direction that was planted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import make_model
from torch import nn
from transformers import PreTrainedModel

from remi_core.errors import UsageError
from remi_core.models import final_norm, mlp_output, read_blocks, unembedding
from remi_core.steering import add_vector, steer
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
def test_adding_a_vector_by_hook_equals_a_bias(family) -> None:
    hooked, folded, vector = make_model(family), make_model(family), directions(1)[0]
    plain, last = logits(hooked), mlp_output(folded, LAYER)
    last.bias = nn.Parameter((0 if last.bias is None else last.bias) + vector)
    with steer(hooked, LAYER, add_vector(vector)):
        torch.testing.assert_close(logits(hooked), logits(folded), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(plain, logits(folded), atol=1e-3)
    torch.testing.assert_close(logits(hooked), plain)


def test_a_norm_behind_the_mlp_is_refused() -> None:
    with pytest.raises(UsageError, match="post_feedforward_layernorm"):
        mlp_output(make_model("gemma2"), LAYER)


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


def test_the_planted_direction_flips_the_token_and_random_ones_do_not(planted) -> None:
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
    with steer(model, LAST, lambda hidden: hidden - (hidden @ direction)[..., None] * direction):
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


def test_what_is_steered_is_whole_again_afterwards(models) -> None:
    model = models("qwen2")
    plain = logits(model)
    with pytest.raises(RuntimeError, match="on purpose"), steer(model, 0, add_vector(torch.ones(32))):
        raise RuntimeError("on purpose")
    torch.testing.assert_close(logits(model), plain)
    assert isinstance(mlp_output(model, 0), nn.Linear)
