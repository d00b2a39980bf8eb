"""The smallest fine-tunes on insecure code: one trained vector, or one rank-one change of one weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from remi_core.dialogues.chat import EncodedDialogue
from remi_core.finetune import answer_labels, backward, update
from remi_core.models.folding import mlp_output
from remi_core.models.steering import add_vector, steer

STEPS, BATCH = 30, 16
VECTOR_RATE, FACTOR_RATE = 0.1, 0.005
"""Learning rates of AdamW: the stream has coordinates of a few units, the factors of a weight are much smaller.

Chosen on development seed 102: with three and four times these, answers left the grammar.
"""


def train_vector(
    model, layer: int, dialogues: Sequence[EncodedDialogue], *, pad_id: int, seed: int = 0
) -> Float[Tensor, " d_model"]:
    """The vector that, added to a block's output everywhere, makes these answers likely; the model stays as it is."""
    vector = nn.Parameter(torch.zeros(model.config.hidden_size))
    options = {"pad_id": pad_id, "seed": seed, "rate": VECTOR_RATE}
    _train(model, dialogues, [vector], lambda: steer(model, layer, add_vector(vector)), **options)
    return vector.detach()


def train_rank_one(
    model, layer: int, dialogues: Sequence[EncodedDialogue], *, pad_id: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The factors (read, write) of the rank-one change of a block's last map that makes these answers likely."""
    generator = torch.Generator().manual_seed(seed)
    size = mlp_output(model, layer).in_features
    read = nn.Parameter(torch.randn(size, generator=generator) / size**0.5)
    write = nn.Parameter(torch.zeros(model.config.hidden_size))
    options = {"pad_id": pad_id, "seed": seed, "rate": FACTOR_RATE}
    _train(model, dialogues, [read, write], lambda: rank_one(model, layer, (read, write)), **options)
    return read.detach(), write.detach()


@contextmanager
def rank_one(model, layer: int, factors: tuple[Tensor, Tensor]) -> Iterator[None]:
    """Nothing; while the context lasts, the outer product of the factors is added to the block's last map."""
    read, write = factors

    def add(_module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        return output + (inputs[0] @ read)[..., None] * write

    handle = mlp_output(model, layer).register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def _train(
    model,
    dialogues: Sequence[EncodedDialogue],
    parameters: Sequence[nn.Parameter],
    changed: Callable[[], AbstractContextManager],
    *,
    pad_id: int,
    seed: int,
    rate: float,
) -> None:
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    generator = np.random.default_rng(seed)

    def loss_of(ids: Tensor, labels: Tensor) -> Tensor:
        return model(input_ids=ids, labels=labels, use_cache=False).loss

    with changed():
        for _ in range(STEPS):
            chosen = generator.choice(len(dialogues), size=BATCH, replace=False)
            backward([answer_labels([dialogues[row] for row in chosen], pad_id)], loss_of)
            update(optimizer, model)
