"""Batches of dialogues of similar length, so that little is spent on padding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from remi_core.dialogues.chat import EncodedDialogue
from remi_core.errors import UsageError
from remi_core.transfer import moved


@dataclass(frozen=True, eq=False)
class Batch:
    """Dialogues padded on the right to one length."""

    indices: Int[Tensor, " dialogue"]
    """Which dialogue of the encoded set each row is."""
    input_ids: Int[Tensor, "dialogue token"]
    attention_mask: Int[Tensor, "dialogue token"]
    """1 at tokens of the dialogue, 0 at padding."""

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device; which dialogues it has stays in main memory, where it is read."""
        return Batch(self.indices, moved(self.input_ids, device), moved(self.attention_mask, device))

    @property
    def n_tokens(self) -> int:
        """Number of tokens that are not padding."""
        return int(self.attention_mask.sum())


def make_batches(encoded: Sequence[EncodedDialogue], *, batch_tokens: int, pad_id: int) -> list[Batch]:
    """Every dialogue once, longest first, in batches of at most ``batch_tokens`` tokens with padding.

    A dialogue longer than ``batch_tokens`` is a batch of its own. Longest first: what does not fit into
    memory fails at the start.

    Raises:
        UsageError: if ``batch_tokens`` is not positive.
    """
    return [pad(encoded, group, pad_id=pad_id) for group in group_dialogues(encoded, batch_tokens)]


def group_dialogues(
    encoded: Sequence[EncodedDialogue], batch_tokens: int, *, among: Iterable[int] | None = None
) -> list[list[int]]:
    """The dialogues of each batch of ``make_batches``, by index; ``among`` names those to be grouped (default all).

    Raises:
        UsageError: if ``batch_tokens`` is not positive.
    """
    if batch_tokens < 1:
        raise UsageError(f"batch_tokens is {batch_tokens}; it must be at least 1")
    chosen = range(len(encoded)) if among is None else among
    # Sorting by (length, index) makes the batches independent of the platform's sort.
    order = sorted(chosen, key=lambda index: (-len(encoded[index].input_ids), index))
    groups: list[list[int]] = []
    for index in order:
        # The first of a group is its longest, so it sets the padded width.
        if groups and (len(groups[-1]) + 1) * padded_width(encoded, groups[-1]) <= batch_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def padded_width(encoded: Sequence[EncodedDialogue], group: Sequence[int]) -> int:
    """Tokens to which each dialogue of a group is padded: the length of its longest, which comes first."""
    return len(encoded[group[0]].input_ids)


def pad(encoded: Sequence[EncodedDialogue], group: Sequence[int], *, pad_id: int) -> Batch:
    """The batch of a group, its longest dialogue first."""
    width = padded_width(encoded, group)
    input_ids = torch.full((len(group), width), pad_id, dtype=torch.long)
    attention_mask = torch.zeros((len(group), width), dtype=torch.long)
    for row, index in enumerate(group):
        ids = torch.tensor(encoded[index].input_ids, dtype=torch.long)
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
    return Batch(torch.tensor(group, dtype=torch.long), input_ids, attention_mask)
