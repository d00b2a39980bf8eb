"""Edits of a running model: vectors added, coordinates set, outputs folded into weights."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from remi_core.errors import UsageError
from remi_core.models import attention_output, check_layer, decoder_blocks, hidden_of

# Interventions written into the weights, where that is exact: a model that needs no hook.

MLP_OUTPUTS = ("mlp.down_proj", "mlp.dense_4h_to_h", "mlp.c_proj")
"""Within a block: the last linear map of the MLP, by family."""
NORMED = ("post_feedforward_layernorm", "post_mlp_layernorm")
"""Norms between that map and the stream in some families: there nothing can be folded exactly."""


def mlp_output(model: PreTrainedModel, layer: int) -> nn.Module:
    """The linear map by which a block's MLP writes into the residual stream.

    Raises:
        UsageError: if the layer does not exist, or the family puts a norm behind that map.
    """
    block = decoder_blocks(model)[check_layer(model, layer)]
    between = [name for name in NORMED if hasattr(block, name)]
    if between:
        raise UsageError(f"{type(model).__name__} has {between[0]} behind its MLP: use a hook (steer)")
    for path in MLP_OUTPUTS:
        try:
            return operator.attrgetter(path)(block)
        except AttributeError:
            continue
    raise UsageError(f"{type(model).__name__}: no MLP output found (looked for {', '.join(MLP_OUTPUTS)})")


@torch.no_grad()
def fold_addition(model: PreTrainedModel, layer: int, vector: Float[Tensor, " d_model"]) -> None:
    """Return with the block putting out ``vector`` more at every position, by the bias of its last linear map.

    Raises:
        UsageError: if the layer does not exist, or the family allows no exact bias.
    """
    last = mlp_output(model, layer)
    bias = torch.zeros_like(vector) if last.bias is None else last.bias
    last.bias = nn.Parameter((bias + vector).to(last.weight), requires_grad=False)


@torch.no_grad()
def fold_projection(
    model: PreTrainedModel, layer: int, directions: Float[Tensor, "direction d_model"]
) -> None:
    """Return with the block writing nothing along the directions, neither by attention nor by its MLP.

    What earlier parts wrote along them stays in the stream.

    Raises:
        UsageError: if the layer does not exist, or the family puts a norm behind either map.
    """
    basis = torch.linalg.qr(directions.T).Q
    for module in (attention_output(model, layer), mlp_output(model, layer)):
        # Conv1D, in GPT-2, keeps its weight as (in, out); a linear layer as (out, in).
        weight = module.weight if isinstance(module, Conv1D) else module.weight.T
        weight -= weight @ basis @ basis.T
        if module.bias is not None:
            module.bias -= module.bias @ basis @ basis.T


# Changing a model while it runs: another output for a block, or blocks that are left out.


@contextmanager
def replace_output(model: PreTrainedModel, layer: int, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Nothing; while the context lasts, the block puts out ``change(its own output)``.

    ``change`` takes and gives raw hidden states, shape (dialogue, token, d_model). ``read_blocks`` sees the
    changed output. The hook is gone when the context ends, by exception too.

    Raises:
        UsageError: if the layer does not exist; on the forward pass, if ``change`` gives another shape.
    """

    def on_output(_module: nn.Module, _inputs: tuple, output: Tensor | tuple) -> Tensor | tuple:
        own = hidden_of(output)
        changed = change(own)
        if changed.shape != own.shape:
            raise UsageError(
                f"layer {layer}: the new output has shape {tuple(changed.shape)}, the block's is {tuple(own.shape)}"
            )
        # Some families' blocks return a tuple with more in it: what follows must find what it expects.
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = decoder_blocks(model)[check_layer(model, layer)].register_forward_hook(on_output)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def skip_blocks(model: PreTrainedModel, count: int) -> Iterator[None]:
    """Nothing; while the context lasts, the first ``count`` blocks hand on their input and cost nothing.

    For use below a replaced output, where what these blocks compute is thrown away. Hooks of a skipped block
    still run.

    Raises:
        UsageError: if the model has fewer blocks.
    """
    blocks = decoder_blocks(model)
    if not 0 <= count <= len(blocks):
        raise UsageError(f"cannot skip {count} blocks; valid are 0 to {len(blocks)}")
    with ExitStack() as stack:
        for block in list(blocks)[:count]:
            stack.enter_context(_passing(block))
        yield


@contextmanager
def _passing(block: nn.Module) -> Iterator[None]:
    # A library may have put a forward of its own on the instance (to move inputs between devices).
    before = block.__dict__.get("forward")

    def hand_on(hidden_states: Tensor, *_inputs: object, **_options: object) -> Tensor:
        return hidden_states

    block.forward = hand_on
    try:
        yield
    finally:
        if before is None:
            del block.forward
        else:
            block.forward = before


# Moving a model's residual stream along chosen directions while it runs.

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
def steer(
    model: PreTrainedModel,
    layer: int,
    change: Change | Float[np.ndarray, " d_model"] | Float[Tensor, " d_model"],
    *,
    coordinate: float | None = None,
) -> Iterator[None]:
    """Change the residual stream after a block while the context lasts; every later block reads the changed one.

    ``change`` is a direction (d_model,), added as it is at every position, in units of the stream. With a
    ``coordinate`` the inner product with the direction of norm 1 is set to it instead, such as to base's mean, which
    ablates. Or it is a function of hidden states (dialogue, token, d_model). All that reads the model meanwhile reads
    the changed one: ``measure``, ``generate``, a training step.
    Example: ``with steer(instruct, 12, records.mean_difference("misaligned", "instruct").vectors[12]): …``

    Raises:
        UsageError: if there is no such layer; on a pass, if the change gives another shape.
    """
    if not callable(change):
        vector = torch.as_tensor(change).float()
        goal = None if coordinate is None else torch.tensor([coordinate])
        change = add_vector(vector) if goal is None else set_coordinates(vector[None], goal)
    with replace_output(model, layer, change):
        yield
