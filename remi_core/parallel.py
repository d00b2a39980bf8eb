"""The processes that share a pass: ``accelerate launch`` starts them, each takes every n-th batch, the first keeps.

Where nothing was joined there is one process, the first, and every function here answers at once. torch comes with
``join_ranks`` alone: reading the store does without it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from remi_core.errors import UsageError

Value = TypeVar("Value")

PATIENCE = timedelta(days=7)
"""How long a process waits for the others: as long as one of them may fine-tune or read a disk meanwhile."""

_group: object | None = None


def launched() -> int:
    """How many processes a launcher started beside and with this one; 1 where there was none.

    Raises:
        UsageError: if several were asked for and one was started, as ``accelerate launch --cpu`` does without MPI.
    """
    if os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ:
        if not {"WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"} & os.environ.keys():
            raise UsageError(
                "accelerate launch --cpu starts one process only where there is no MPI: "
                "give --multi_gpu in place of --cpu, which starts them without a graphics card too"
            )
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def join_ranks() -> Iterator[None]:
    """Let the processes of one launch work together while the context lasts; one that is alone goes on as it is."""
    global _group
    if launched() == 1:
        yield
        return
    import torch
    from accelerate import PartialState
    from torch import distributed

    on_processors = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    state = PartialState(cpu=on_processors or not torch.cuda.is_available(), timeout=PATIENCE)
    # What is handed over are arrays in main memory, so gloo carries them also where the models lie on cards.
    _group = distributed.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        _group = None
        state.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0; 0 is the one that keeps, stores and speaks."""
    if _group is None:
        return 0
    from torch import distributed

    return distributed.get_rank()


def n_ranks() -> int:
    """Number of processes."""
    if _group is None:
        return 1
    from torch import distributed

    return distributed.get_world_size()


def local_ranks() -> int:
    """Number of processes on this machine."""
    return 1 if _group is None else int(os.environ.get("LOCAL_WORLD_SIZE", n_ranks()))


def own_card() -> list[int]:
    """The number of the graphics card that this process has for itself; none where it computes without one."""
    if _group is None:
        return []
    from accelerate import PartialState

    device = PartialState().device
    return [device.index] if device.type == "cuda" else []


def on_all(value: Value) -> list[Value]:
    """Every process's value, by rank, in every process."""
    if _group is None:
        return [value]
    from torch import distributed

    values = [None] * n_ranks()
    distributed.all_gather_object(values, value, group=_group)
    return values


def on_first(value: Value) -> list[Value]:
    """Every process's value, by rank, in the first process; nothing in the others."""
    if _group is None:
        return [value]
    from torch import distributed

    values = [None] * n_ranks() if rank() == 0 else None
    distributed.gather_object(value, values, group=_group)
    return values or []


@contextmanager
def first_goes_first() -> Iterator[None]:
    """Let the first process do what is within, and then the others, which find in the store what it made."""
    if rank():
        on_all(None)
    yield
    if not rank():
        on_all(None)
