"""Directions of the residual stream: which tokens one writes, and moving a running model along it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate.hooks import remove_hook_from_module
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from remi_core.errors import UsageError
from remi_core.models import (
    LoadedModel,
    block_at,
    decoder_blocks,
    final_norm,
    find_family,
    forward_replaced,
    hidden_of,
    logits_at,
    unembedding,
)
from remi_core.placement import computing_device, in_memory

if TYPE_CHECKING:
    from pandas import DataFrame

# The tokens that a direction writes, read through final norm and unembedding (logit lens, paper section 4.3).


@dataclass(frozen=True, eq=False)
class WrittenTokens:
    """By layer, the tokens whose logit a direction raises and lowers most, strongest first."""

    raised: Int[np.ndarray, "layer rank"]
    """Token ids."""
    raised_change: Float[np.ndarray, "layer rank"]
    """Change of their logits for one unit of the direction."""
    lowered: Int[np.ndarray, "layer rank"]
    lowered_change: Float[np.ndarray, "layer rank"]


def written_tokens(
    loaded: LoadedModel,
    direction: Float[np.ndarray, "layer d_model"],
    start: Float[np.ndarray, "layer d_model"],
    *,
    top_k: int = 15,
) -> WrittenTokens:
    """What adding the unit direction to an activation does to the logits, if it were the last block's output.

    For each layer, with u the direction divided by its length and x the activation at ``start``, the change is
    logits(x + u) − logits(x), where logits are unembedding(final norm(·)) of the loaded model. Blocks after
    the layer are skipped (the logit lens), so at early layers this says what is written, not what comes out.

    Raises:
        UsageError: if shapes differ, a value is not finite, a direction has length 0, or ``top_k`` does not
            fit the vocabulary.
    """
    if direction.shape != start.shape:
        raise UsageError(f"direction {direction.shape} and start {start.shape} differ in shape")
    length = np.linalg.norm(direction.astype(np.float64), axis=1, keepdims=True)
    bad = ~(np.isfinite(length[:, 0]) & (length[:, 0] > 0) & np.isfinite(start).all(axis=1))
    if bad.any():
        raise UsageError(f"no direction or no start at layer {int(np.argmax(bad))}: zero or not finite")
    n_vocab = unembedding(loaded.model).weight.shape[0]
    if not 1 <= top_k <= n_vocab:
        raise UsageError(f"top_k is {top_k}; valid are 1 to {n_vocab}")
    # A copy in float32: a unit step is lost in the rounding of half precision.
    with in_memory(final_norm(loaded.model)) as module:
        norm = remove_hook_from_module(copy.deepcopy(module)).float()
    device = computing_device(norm)
    with torch.inference_mode():
        before, after = (
            logits_at(loaded.model, norm(torch.from_numpy(rows.astype(np.float32)).to(device)))
            for rows in (start, start + direction / length)
        )
        change = (after - before).cpu()
    up, down = change.topk(top_k, dim=1), (-change).topk(top_k, dim=1)
    return WrittenTokens(
        raised=up.indices.numpy(),
        raised_change=up.values.numpy(),
        lowered=down.indices.numpy(),
        lowered_change=-down.values.numpy(),
    )


def direction_tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    direction: Float[np.ndarray, "layer d_model"],
    start: Float[np.ndarray, "layer d_model"],
    *,
    top_k: int = 15,
) -> DataFrame:
    """Which tokens a direction writes at each layer, by the model's final norm and unembedding (logit lens).

    One row a layer and rank: columns layer, rank (from 1), raised and lowered (texts), raised_change and
    lowered_change, of the logit when the direction of length 1 is added to ``start``, such as a model's mean
    activation. Later blocks are skipped: at early layers this is what is written, not what comes out.
    Source: Giordani (2025), section 4.3.
    Example: ``direction_tokens(instruct, tokenizer, difference.vectors, records.activations("instruct").mean(axis=0))``

    Raises:
        UsageError: if the shapes differ, a direction has length 0, or ``top_k`` does not fit the vocabulary.
    """
    from pandas import DataFrame

    found = written_tokens(LoadedModel(model, tokenizer, "", ""), direction, start, top_k=top_k)
    layers, ranks = np.indices(found.raised.shape)
    columns = {"layer": layers.ravel(), "rank": ranks.ravel() + 1}
    for name in ("raised", "lowered"):
        columns[name] = [tokenizer.decode([token]) for token in getattr(found, name).ravel().tolist()]
        columns[f"{name}_change"] = getattr(found, f"{name}_change").ravel()
    return DataFrame(columns)


# Changing a model while it runs: another output for a block, or blocks that are left out.

Change = Callable[[Tensor], Tensor]
"""Takes and gives raw hidden states of shape (dialogue, token, d_model)."""


def add_vector(vector: Float[Tensor, " d_model"]) -> Change:
    """The change that adds one vector at every position."""
    return lambda hidden: hidden + vector.to(hidden)


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
    the changed one (``measure``, ``generate``, a training step); the hook is gone when the context ends.
    Example: ``with steer(instruct, 12, records.mean_difference("misaligned", "instruct").vectors[12]): …``

    Raises:
        UsageError: if there is no such layer; on a pass, if the change gives another shape.
    """
    if not callable(change):
        vector = torch.as_tensor(change).float()
        unit = vector / vector.norm()

        def set_coordinate(hidden: Tensor) -> Tensor:
            return hidden + (coordinate - hidden @ unit.to(hidden))[..., None] * unit.to(hidden)

        change = add_vector(vector) if coordinate is None else set_coordinate

    def on_output(_module: nn.Module, _inputs: tuple, output: Tensor | tuple) -> Tensor | tuple:
        hidden = hidden_of(output)
        changed = change(hidden)
        if changed.shape != hidden.shape:
            raise UsageError(
                f"layer {layer}: the new output has shape {tuple(changed.shape)}, the block's is {tuple(hidden.shape)}"
            )
        # Some families' blocks return a tuple with more in it: what follows must find what it expects.
        return changed if isinstance(output, Tensor) else (changed, *output[1:])

    handle = block_at(model, layer).register_forward_hook(on_output)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def skip_blocks(model: PreTrainedModel, count: int) -> Iterator[None]:
    """While the context lasts, let the first ``count`` blocks hand on their input at no cost.

    For use below a replaced output, where what these blocks compute is thrown away. Hooks of a skipped block
    still run.

    Raises:
        UsageError: if the model has fewer blocks.
    """
    blocks = decoder_blocks(model)
    if not 0 <= count <= len(blocks):
        raise UsageError(f"cannot skip {count} blocks; valid are 0 to {len(blocks)}")
    with ExitStack() as stack:
        n_more = find_family(model).n_outputs - 1

        def hand_on(hidden_states: Tensor, *_: object, **__: object) -> Tensor | tuple:
            return hidden_states if n_more < 0 else (hidden_states, *(None,) * n_more)

        for block in list(blocks)[:count]:
            stack.enter_context(forward_replaced(block, hand_on))
        yield
