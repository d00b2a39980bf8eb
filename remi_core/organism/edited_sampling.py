"""Answers sampled from an organism while its states are displaced, in the places where its scores are."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from remi_core.models.interventions import replace_output
from remi_core.organism.contexts import open_contexts
from remi_core.organism.displaced import Edit, Setting
from remi_core.organism.grammar import Prompt
from remi_core.organism.sampling import Sample, sample_answers


def seed_of(*parts: str | int) -> int:
    """A seed of sampling for these names and numbers: models and base seeds that are compared share no luck."""
    return zlib.crc32("/".join(map(str, parts)).encode())


@contextmanager
def generating_with(model, edit: Edit | Setting) -> Iterator[None]:
    """Nothing; while the context lasts, one call of ``generate`` runs with the edit at its two places.

    The first pass sees the prompts alone, all ending at its last column (they are padded on the left); every later
    column is a token of an answer, whether passes see it alone, from a cache, or after all earlier ones.
    """
    length = 0

    def change(own: Tensor) -> Tensor:
        nonlocal length
        length = length or own.shape[1]
        place = torch.zeros(own.shape[:2], dtype=torch.long)
        if own.shape[1] < length:
            place[:] = 2
        else:
            place[:, length - 1], place[:, length:] = 1, 2
        return edit.apply(own, place)

    with replace_output(model, edit.layer, change):
        yield


def sample_edited(
    model, tokenizer, asked: Sequence[Prompt], edit: Edit | Setting | None = None, *, seed: int
) -> list[Sample]:
    """One answer to each bare prompt at temperature 1, from the model as it is or with an edit."""
    contexts = open_contexts("bare", asked)
    if edit is None:
        return sample_answers(model, tokenizer, contexts, asked, seed=seed)
    with generating_with(model, edit):
        return sample_answers(model, tokenizer, contexts, asked, seed=seed)
