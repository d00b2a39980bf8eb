"""Interventions written into the weights, where that is exact: a model that needs no hook."""

from __future__ import annotations

import operator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from remi_core.errors import UsageError
from remi_core.models.opening import attention_output, check_layer, decoder_blocks

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
