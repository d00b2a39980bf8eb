"""On which device a model runs, and arrays moved between device and main memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from accelerate.hooks import remove_hook_from_module
from accelerate.utils import align_module_device
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from remi_core.errors import UsageError
from remi_core.parallel import local_ranks, n_ranks, own_card

# Where the parts of a model lie in memory: one device where it fits, else several devices, memory and disk.

SPARE = 1 << 30
"""Bytes left free beside the weights, for activations and logits, with a tenth of the weights."""

SMALL = 1 << 26
"""Bytes of weights below which "auto" is the processor: there a card spends its time on being called, and what small
models give should not depend on whether a machine has one. 64 MB."""


def plan_placement(
    config: PreTrainedConfig, dtype: torch.dtype, device: str | Mapping[str, str | int]
) -> dict[str, object]:
    """Arguments of ``from_pretrained`` that place the weights; none for a model that lies in main memory whole.

    ``device`` is a torch device, or "auto": the first GPU if there is one and the model is not ``SMALL``, else the
    processor; where the weights do not fit there, all GPUs, main memory and disk together. A map from parts to devices
    is taken as it is.

    Raises:
        UsageError: if there is no such device.
    """
    if not isinstance(device, str):
        return {"device_map": dict(device)}
    if device == "auto":
        wanted = weight_bytes(config, dtype)
        if wanted < SMALL:
            return {}
        wanted += wanted // 10 + SPARE
        room = free_bytes()
        first = next(iter(room))
        if wanted > room[first]:
            rest = {place: max(0, free - free // 10 - SPARE) for place, free in room.items()}
            return {"device_map": "auto", "max_memory": rest}
        device = "cpu" if first == "cpu" else f"cuda:{first}"
    try:
        place = torch.device(device)
    except RuntimeError:
        raise UsageError(f"unknown device {device!r}; give auto, cpu, cuda or cuda:0") from None
    return {} if place.type == "cpu" else {"device_map": {"": place}}


def free_bytes() -> dict[int | str, int]:
    """Bytes free on each GPU, by number, and in main memory ("cpu"), in the order they are filled.

    Of several processes that share a pass each has its own GPU, and main memory in equal parts.
    """
    import psutil

    alone = n_ranks() == 1
    numbers = range(torch.cuda.device_count()) if alone else own_card()
    gpus = {number: torch.cuda.mem_get_info(number)[0] for number in numbers}
    return gpus | {"cpu": psutil.virtual_memory().available // local_ranks()}


def weight_bytes(config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """Bytes of a model's parameters, tied ones once; nothing is allocated."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        # from_config writes the dtype into the configuration it is given.
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype)
    model.tie_weights()
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def input_device(model: PreTrainedModel) -> torch.device:
    """Where token ids belong: the device on which the embedding computes."""
    return computing_device(model.get_input_embeddings())


def computing_device(module: nn.Module) -> torch.device:
    """The device on which a module computes, also when its weights lie elsewhere meanwhile."""
    device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    if device is None:
        return next(module.parameters(), torch.empty(0)).device  # some norms have no weight
    return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)


@contextmanager
def in_memory(module: nn.Module) -> Iterator[nn.Module]:
    """The module with its own weights on the device it computes on, put back afterwards where they were offloaded."""
    with align_module_device(module):
        yield module


def release(model: PreTrainedModel) -> None:
    """Free the weights, even if the caller still holds the model."""
    remove_hook_from_module(model, recurse=True)
    if getattr(model, "is_quantized", False):
        return  # quantised weights refuse to be moved; they go with the last reference
    model.to("meta")


# Between main memory and a card without waiting: a plain copy makes the processor wait for all work before it. Copies
# from page-locked memory are queued behind that work, and a card fills such memory several times as fast.


def to_device(values: Tensor | Sequence[object], device: torch.device | str) -> Tensor:
    """The values on a device, whole numbers where no tensor holds them; from main memory to a card without waiting."""
    values = values if isinstance(values, Tensor) else torch.tensor(values, dtype=torch.long)
    if values.device.type == "cpu" and torch.device(device).type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def to_host(values: Tensor) -> Tensor:
    """The same values in main memory."""
    if not values.is_cuda:
        return values.cpu()
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    torch.cuda.current_stream(values.device).synchronize()
    return host
