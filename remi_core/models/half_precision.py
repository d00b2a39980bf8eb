"""Products of half-precision numbers in float32: on a graphics card without copies, elsewhere by them.

The product of two bfloat16 numbers is exact in float32, so only the order of summation tells this from raising both
sides to float32 first, which costs a card many times as much.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

_ROWS = 16_384
"""Rows of a weight that are raised to float32 at a time: a copy of a whole unembedding may not fit."""


def linear_in_float32(
    values: Float[Tensor, "position d_in"], weight: Float[Tensor, "d_out d_in"]
) -> Float[Tensor, "position d_out"]:
    """``values`` times the transposed weight, in float32 whatever their dtypes.

    Where both are bfloat16 and the weight has no gradient, that at ``values`` comes from an incoming one rounded to
    bfloat16, as that of any layer of such a model does.
    """
    if values.dtype == weight.dtype == torch.bfloat16 and not weight.requires_grad:
        return _HalfLinear.apply(values, weight)
    parts = [nn.functional.linear(values.float(), weight[part].float()) for part in _slices(len(weight))]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


class _HalfLinear(torch.autograd.Function):
    """The product in float32, and its gradient at the first factor."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        if values.is_cuda:
            return torch.mm(values, weight.T, out_dtype=torch.float32)
        parts = [values.float() @ weight[part].float().T for part in _slices(len(weight))]
        return torch.cat(parts, dim=-1)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        rounded = gradient.to(weight.dtype)
        if rounded.is_cuda:
            return torch.mm(rounded, weight), None
        total = sum(rounded[:, part].float() @ weight[part].float() for part in _slices(len(weight)))
        return total.to(weight.dtype), None


def _slices(n_rows: int) -> list[slice]:
    return [slice(start, start + _ROWS) for start in range(0, n_rows, _ROWS)]
