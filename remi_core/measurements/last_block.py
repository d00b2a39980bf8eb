"""A pass that stops inside the last block, after its attention: from there on every token stands alone.

What follows (sums, norms, the feed-forward part) is done for the tokens that are asked for, a few at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from remi_core.batches import Batch
from remi_core.models.hooks import hidden_of
from remi_core.models.opening import attention, attention_output, decoder_blocks, decoder_body, final_norm


@dataclass(frozen=True, eq=False)
class Stopped:
    """Where the pass stopped."""

    model: PreTrainedModel
    inputs: Float[Tensor, "dialogue token d_in"]
    """Of the attention's output projection."""
    outputs: Float[Tensor, "dialogue token d_model"]
    """Of that projection: what the attention adds to the stream, before a norm where there is one."""
    _stream: Float[Tensor, "dialogue token d_model"]
    _arguments: tuple[Sequence[object], Mapping[str, object]]
    """What the block was called with, besides the stream."""
    _returned: Sequence[object]
    """What the attention returned, besides its output."""

    def final_hidden(
        self,
        outputs: Float[Tensor, "place d_model"],
        rows: Int[Tensor, " place"],
        positions: Int[Tensor, " place"],
    ) -> Float[Tensor, "place d_model"]:
        """Hidden states after the final norm at some places, had the projection given ``outputs`` there."""
        args, options = self._arguments
        stream = self._stream[rows, positions].unsqueeze(0)
        with _giving(attention(self.model, -1), (outputs.unsqueeze(0), *self._returned)):
            hidden = hidden_of(decoder_blocks(self.model)[-1](stream, *args, **options))
        return final_norm(self.model)(hidden)[0]


class _Stop(Exception):
    """Ends a forward pass."""


def stop_in_last_block(model: PreTrainedModel, batch: Batch) -> Stopped | None:
    """The pass up to the last block's attention, without gradients; None where what follows cannot be done apart.

    It cannot where something reads or changes the block by hooks, which expect whole dialogues, or where the
    attention does more to the projection's output than return it. The caller then runs the whole pass.
    """
    block, part = decoder_blocks(model)[-1], attention(model, -1)
    if any(one._forward_hooks or one._forward_pre_hooks for one in (*block.modules(), final_norm(model))):
        return None
    seen: dict[str, tuple] = {}

    def on_block(_module: nn.Module, args: tuple, options: dict) -> None:
        seen["block"] = args, options

    def on_projection(_module: nn.Module, inputs: tuple, output: Tensor) -> None:
        seen["projection"] = inputs[0], output

    def on_attention(_module: nn.Module, _inputs: tuple, output: tuple) -> None:
        seen["attention"] = output
        if isinstance(output, tuple) and output[0].data_ptr() == seen["projection"][1].data_ptr():
            raise _Stop

    with torch.no_grad(), ExitStack() as stack:
        for handle in (
            block.register_forward_pre_hook(on_block, with_kwargs=True),
            attention_output(model, -1).register_forward_hook(on_projection),
            part.register_forward_hook(on_attention),
        ):
            stack.callback(handle.remove)
        try:
            decoder_body(model)(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            )
        except _Stop:
            args, options = seen["block"]
            stream, *args = args or (options.pop("hidden_states"),)
            inputs, outputs = seen["projection"]
            # Of a spread model, the block before may lie on another device.
            stream = stream.to(outputs.device)
            return Stopped(model, inputs, outputs, stream, (args, options), seen["attention"][1:])
    return None


@contextmanager
def _giving(module: nn.Module, output: tuple) -> Iterator[None]:
    """A module returns ``output`` and does nothing, while the context lasts."""
    own: Callable | None = vars(module).get("forward")
    module.forward = lambda *_, **__: output
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
