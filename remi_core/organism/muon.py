"""Muon in float32, all matrices of one shape at once.

``torch.optim.Muon`` orthogonalises each matrix alone and in bfloat16, which on a CPU without bfloat16
units took two thirds of a training step here; this takes about a tenth. Reference: Jordan et al. (2024),
"Muon: an optimizer for hidden layers in neural networks".
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton–Schulz iteration, as published."""


def orthogonalise(matrices: Tensor, *, steps: int = 5) -> Tensor:
    """The stack of matrices with every singular value moved near 1, shape (matrix, row, column)."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised per matrix, scaled by √max(1, rows/columns); 2-D parameters only.

    Weight decay is decoupled: each step first shrinks a matrix by ``lr * weight_decay`` of itself.
    """

    def __init__(
        self, parameters: list[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            stacks: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    stacks[parameter.shape].append(parameter)
            for shape, members in stacks.items():
                update = orthogonalise(torch.stack([self._nesterov(p, group["momentum"]) for p in members]))
                scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for parameter, change in zip(members, update, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(change, alpha=scale)

    def _nesterov(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        buffer = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        buffer.lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(buffer, momentum)
