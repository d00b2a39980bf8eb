"""Changing a model while it runs: another output for a block, or blocks that are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn
from transformers import PreTrainedModel

from remi_core.errors import UsageError
from remi_core.models.hooks import hidden_of
from remi_core.models.opening import check_layer, decoder_blocks


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
