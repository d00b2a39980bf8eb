"""Reading block outputs during a forward pass.

``output_hidden_states`` is not used: its last entry is after the final norm, and it misses edits made by
hooks that were registered after its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn
from transformers import PreTrainedModel

from remi_core.models.opening import check_layer, decoder_blocks


def hidden_of(output: Tensor | tuple) -> Tensor:
    """The hidden states in a block's output: blocks return a tensor or, in some families, a tuple."""
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def read_blocks(
    model: PreTrainedModel, layers: Sequence[int], *, select: Callable[[Tensor], Tensor] | None = None
) -> Iterator[dict[int, Tensor]]:
    """A dictionary that every forward pass fills: layer as asked → raw block output.

    Its shape is (dialogue, token, d_model). The output is read after every other hook of the block, whether
    registered before or after this one, so edits are seen. ``select`` keeps a part of each output, to save
    memory. All hooks are gone when the context ends, by exception too.

    Raises:
        UsageError: if a layer does not exist.
    """
    seen: dict[int, Tensor] = {}

    def keep(layer: int, hidden: Tensor) -> None:
        seen[layer] = hidden if select is None else select(hidden)

    with follow_blocks(model, layers, keep):
        yield seen


@contextmanager
def follow_blocks(
    model: PreTrainedModel, layers: Sequence[int], read: Callable[[int, Tensor], None]
) -> Iterator[None]:
    """Calls ``read`` with layer, as asked, and raw block output as soon as the block has it, in every forward pass.

    What ``read`` does not keep is gone when the next block needs the memory. The output is that of ``read_blocks``.

    Raises:
        UsageError: if a layer does not exist.
    """
    blocks = decoder_blocks(model)
    with ExitStack() as stack:
        for layer in layers:
            block = blocks[check_layer(model, layer)]
            stack.enter_context(
                _after_all_hooks(block, lambda output, layer=layer: read(layer, hidden_of(output)))
            )
        yield


@contextmanager
def _after_all_hooks(block: nn.Module, read: Callable[[Tensor | tuple], None]) -> Iterator[None]:
    """Calls ``read`` with the block's final output, after all its forward hooks."""

    def on_output(_module: nn.Module, _inputs: tuple, output: Tensor | tuple) -> None:
        read(output)

    reader = block.register_forward_hook(on_output)

    def move_last(_module: nn.Module, _inputs: tuple) -> None:
        # Hooks run in the order of registration: registering anew before each call makes this one the last.
        nonlocal reader
        reader.remove()
        reader = block.register_forward_hook(on_output)

    mover = block.register_forward_pre_hook(move_last)
    try:
        yield
    finally:
        mover.remove()
        reader.remove()
