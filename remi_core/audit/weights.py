"""A model whose chat markers were never trained: their input embeddings drawn anew, everything else kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel


@contextmanager
def untrained_markers(model: PreTrainedModel, ids: Sequence[int], *, seed: int) -> Iterator[None]:
    """While the context lasts, the input embeddings of these tokens are as at initialisation, from a seed.

    The rows are normal with the standard deviation of the model's ``initializer_range``. Where input and output
    embeddings are one matrix they are parted, so that the rows that *predict* the tokens stay trained: only what
    the model reads is changed. Both are as before when the context ends.
    """
    embeddings = model.get_input_embeddings()
    trained = embeddings.weight
    drawn = torch.randn(
        (len(ids), trained.shape[1]), generator=torch.Generator().manual_seed(seed), dtype=torch.float32
    )
    changed = trained.detach().clone()
    changed[list(ids)] = (drawn * model.config.initializer_range).to(changed)
    try:
        # The unembedding holds the old matrix itself, so giving the embeddings another one parts the two.
        embeddings.weight = nn.Parameter(changed, requires_grad=False)
        yield
    finally:
        embeddings.weight = trained
