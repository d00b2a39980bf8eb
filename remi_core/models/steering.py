"""Moving a model's residual stream along chosen directions while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from remi_core.errors import UsageError
from remi_core.models.interventions import replace_output

Change = Callable[[Tensor], Tensor]
"""Takes and gives hidden states of shape (dialogue, token, d_model)."""


def add_vector(vector: Float[Tensor, " d_model"]) -> Change:
    """The change that adds one vector at every position."""
    return lambda own: own + vector.to(own)


def set_coordinates(
    directions: Float[Tensor, "direction d_model"],
    values: Float[Tensor, "*position direction"],
    *,
    share: float = 1.0,
) -> Change:
    """The change that moves the coordinates along some directions towards given values, all the way by default.

    ``directions`` need not be orthogonal: a coordinate is the inner product with the direction of norm 1, and after
    the whole change each has its value. ``values`` are in the stream's own unit, alike at every position or of shape
    (dialogue, token, direction). What is orthogonal to all directions stays.

    Raises:
        UsageError: if the directions are not independent.
    """
    units = directions / directions.norm(dim=-1, keepdim=True)
    if torch.linalg.matrix_rank(units) < len(units):
        raise UsageError(
            f"{len(units)} directions of rank {int(torch.linalg.matrix_rank(units))}: give independent ones"
        )
    duals = torch.linalg.pinv(units).T

    def change(own: Tensor) -> Tensor:
        gap = values.to(own) - own @ units.T.to(own)
        return own + share * gap @ duals.to(own)

    return change


def project_out(directions: Float[Tensor, "direction d_model"]) -> Change:
    """The change that leaves nothing along any of the directions.

    Raises:
        UsageError: if the directions are not independent.
    """
    return set_coordinates(directions, torch.zeros(len(directions)))


def only_where(change: Change, where: Bool[Tensor, "dialogue token"]) -> Change:
    """The change at some positions alone."""
    return lambda own: torch.where(where[..., None], change(own), own)


@contextmanager
def steer(model: PreTrainedModel, layer: int, change: Change) -> Iterator[None]:
    """Nothing; while the context lasts, the block's output is changed, and every later block reads the changed one.

    Raises:
        UsageError: if the layer does not exist.
    """
    with replace_output(model, layer, change):
        yield
