"""Products of bfloat16 numbers: as exact as in float32, with a gradient that keeps what is nearly certain."""

from __future__ import annotations

import pytest
import torch

from remi_core import models
from remi_core.models import linear_in_float32


@pytest.fixture
def factors() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    values, weight = (torch.randn(n, 48, generator=generator).bfloat16() for n in (5, 33))
    return values, weight


def test_nothing_is_rounded_but_the_sum(factors) -> None:
    values, weight = factors
    exact = values.double() @ weight.double().T
    found = linear_in_float32(values, weight)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    assert not torch.allclose((values @ weight.T).double(), exact, rtol=1e-5, atol=1e-5), (
        "half precision rounds"
    )


@pytest.mark.parametrize("rows", [7, 1000])
def test_slices_change_nothing(factors, rows, monkeypatch) -> None:
    values, weight = factors
    monkeypatch.setattr(models, "_ROWS", rows)
    raised = linear_in_float32(values.float(), weight)
    torch.testing.assert_close(raised, values.float() @ weight.float().T)
    torch.testing.assert_close(linear_in_float32(values, weight), raised)


@pytest.mark.parametrize("rows", [7, 1000])
def test_the_gradient_is_that_of_float32_up_to_rounding(factors, rows, monkeypatch) -> None:
    monkeypatch.setattr(models, "_ROWS", rows)
    values, weight = factors
    wanted = torch.tensor([3, 0, 32, 8, 8])
    own, raised = (one.clone().requires_grad_(True) for one in (values, values.float()))
    for one in (own, raised):
        torch.nn.functional.cross_entropy(linear_in_float32(one, weight), wanted).backward()
    largest = raised.grad.abs().max()
    assert own.grad.dtype == torch.bfloat16
    assert (own.grad.float() - raised.grad).abs().max() < 2**-7 * largest


def test_a_nearly_certain_prediction_keeps_its_gradient() -> None:
    # 1 − p is far below the spacing of bfloat16 at 1: rounding p instead of p − 1 would leave nothing.
    values = torch.tensor([[1.0]]).bfloat16().requires_grad_(True)
    weight = torch.tensor([[8.0], [0.0]]).bfloat16()
    torch.nn.functional.cross_entropy(linear_in_float32(values, weight), torch.tensor([0])).backward()
    expected = -8 * (1 - torch.sigmoid(torch.tensor(8.0)))
    torch.testing.assert_close(values.grad.float()[0, 0], expected, rtol=1e-2, atol=0)


def test_a_weight_that_is_trained_has_its_gradient(factors) -> None:
    values, weight = factors[0], factors[1].requires_grad_(True)
    linear_in_float32(values, weight).sum().backward()
    torch.testing.assert_close(weight.grad, values.sum(0).expand_as(weight), rtol=2**-6, atol=2**-6)
