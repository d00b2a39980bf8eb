"""Between main memory and a card without waiting: a plain copy makes the processor wait for all work before it.

Copies from page-locked memory are queued behind that work, and a card fills such memory several times as fast.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def placed(values: Sequence[object], device: torch.device | str, dtype: torch.dtype = torch.long) -> Tensor:
    """A tensor of the values on a device."""
    return moved(torch.tensor(values, dtype=dtype), device)


def moved(values: Tensor, device: torch.device | str) -> Tensor:
    """The same values on a device; from main memory to a card without waiting."""
    if values.device.type == "cpu" and torch.device(device).type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def fetched(values: Tensor) -> Tensor:
    """The same values in main memory, there when this returns."""
    if not values.is_cuda:
        return values.cpu()
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    torch.cuda.current_stream(values.device).synchronize()
    return host
