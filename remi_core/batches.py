"""Batches of encoded dialogues, sized by tokens, and one pass shared by several readers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from jaxtyping import Int
from torch import Tensor

from remi_core.errors import RemiError, UsageError
from remi_core.files import FinishedBatches
from remi_core.parallel import n_ranks, on_all, on_first, rank
from remi_core.placement import to_device
from remi_core.tokens import EncodedDialogue


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
        return Batch(self.indices, to_device(self.input_ids, device), to_device(self.attention_mask, device))

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
    groups: list[list[int]] = []
    # Sorting by (length, index) makes the batches independent of the platform's sort.
    for index in sorted(chosen, key=lambda index: (-len(encoded[index].input_ids), index)):
        # The first of a group is its longest, so it sets the padded width.
        if groups and (len(groups[-1]) + 1) * len(encoded[groups[-1][0]].input_ids) <= batch_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def pad(encoded: Sequence[EncodedDialogue], group: Sequence[int], *, pad_id: int) -> Batch:
    """The batch of a group, its longest dialogue first."""
    width = len(encoded[group[0]].input_ids)
    input_ids = torch.full((len(group), width), pad_id, dtype=torch.long)
    attention_mask = torch.zeros((len(group), width), dtype=torch.long)
    for row, index in enumerate(group):
        ids = torch.tensor(encoded[index].input_ids, dtype=torch.long)
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
    return Batch(torch.tensor(group, dtype=torch.long), input_ids, attention_mask)


# A batch that does not fit into memory is lost whole; its dialogues and those that wait are cut anew, smaller. What is
# done is not done again.

Part = TypeVar("Part")


@dataclass
class BatchBudget:
    """How many tokens a batch may hold, padding counted: as asked for, and as memory has it."""

    asked: int
    ran: int = 0
    """What the last batches were cut to: ``asked``, until memory runs out."""
    n_out_of_memory: int = 0
    """How many batches did not fit."""
    finished: FinishedBatches | None = None
    """Where batches are kept that are finished, until the pass has ended; nowhere where there is none."""
    progress: Callable[[int], None] | None = None
    """Called after each batch, or one of each process, with the number of tokens done so far, padding not counted."""

    def __post_init__(self) -> None:
        self.ran = self.ran or self.asked

    @classmethod
    def of(cls, batch_tokens: int | BatchBudget) -> BatchBudget:
        """A budget as it is, or a new one of so many tokens."""
        return batch_tokens if isinstance(batch_tokens, BatchBudget) else cls(batch_tokens)

    def about(self) -> dict[str, int]:
        """What a record says of it: tokens asked for, tokens that ran, batches that did not fit."""
        return {
            "batch_tokens": self.asked,
            "batch_tokens_ran": self.ran,
            "out_of_memory": self.n_out_of_memory,
        }


def share_batches(
    encoded: Sequence[EncodedDialogue],
    budget: BatchBudget,
    *,
    measure: Callable[[Batch], Part],
    keep: Callable[[Sequence[int], Part], None],
) -> None:
    """Measure every dialogue, and keep each once.

    ``measure`` gives what it takes of a batch and changes nothing, since it may not come to an end; ``keep`` gets
    that with the indices of the batch's dialogues, batch by batch in their order, whichever process measured it:
    so one process and several give the same bits. It is called in the first process only. Where a batch does not fit
    into memory, the budget becomes half of the smallest that was lost.

    Raises:
        UsageError: if the budget is not positive.
        RemiError: naming the dialogue that does not fit into memory alone.
    """
    seen: list[int] = []
    if budget.finished is not None:
        for group, part, ran in budget.finished.restored():
            keep(group, part)
            seen += group
            budget.ran = min(budget.ran, ran)
    # Only the first process keeps; the others measure what it says is left.
    seen, budget.ran = on_all((seen, budget.ran))[0]
    done = sum(len(encoded[index].input_ids) for index in seen)
    waiting = group_dialogues(encoded, budget.ran, among=set(range(len(encoded))) - set(seen))
    while waiting:
        turn, waiting = waiting[: n_ranks()], waiting[n_ranks() :]
        mine = turn[rank()] if rank() < len(turn) else None
        part, fits = (None, True) if mine is None else _attempt(measure, pad(encoded, mine, pad_id=0))
        all_fit = on_all(fits)
        for group, measured in zip(turn, on_first(part), strict=False):
            if measured is not None:
                if budget.finished is not None:
                    budget.finished.add(group, measured, ran=budget.ran)
                keep(group, measured)
                done += sum(len(encoded[index].input_ids) for index in group)
        if budget.progress is not None and done:
            budget.progress(done)
        lost = [group for group, fitted in zip(turn, all_fit, strict=False) if not fitted]
        budget.n_out_of_memory += len(lost)
        for group in lost:
            width = len(encoded[group[0]].input_ids)
            if len(group) == 1:
                raise RemiError(
                    f"dialogue {encoded[group[0]].identifier!r} of {width} tokens does not fit into memory even "
                    f"alone: set max_tokens below {width}, leave the dialogue out, or take a device with more memory"
                )
            budget.ran = min(budget.ran, len(group) * width // 2)
        if lost:
            left = [index for group in (*lost, *waiting) for index in group]
            waiting = group_dialogues(encoded, budget.ran, among=left)


def _attempt(measure: Callable[[Batch], Part], batch: Batch) -> tuple[Part | None, bool]:
    """What was measured, and whether the batch fitted into memory."""
    try:
        return measure(batch), True
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not should_reduce_batch_size(error):
            raise
    # Only now, after the handler: the error holds the frames that hold what filled the memory.
    clear_device_cache(garbage_collection=True)
    return None, False
