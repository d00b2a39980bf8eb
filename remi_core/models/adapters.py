"""LoRA adapters on their base model: checked to belong together, and kept beside the weights instead of merged."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from remi_core.errors import RemiError, UsageError
from remi_core.models.hub import fetch_file
from remi_core.models.placement import computing_device
from remi_core.models.sources import ADAPTER_FILE, ADAPTER_WEIGHTS, adapter_folder
from remi_core.models.spec import ModelSpec

_NAME = "default"
_PREFIX = "base_model.model."


def apply_adapter(model: PreTrainedModel, spec: ModelSpec) -> PreTrainedModel:
    """The same model, with the LoRA modules of ``spec.adapter`` in place of the ones they change.

    The adapter is not merged: in bfloat16 rounding would lose part of a small change. A changed projection keeps its
    place and name, and its output is W x + s B A x, with A and B in float32 as peft has them. The adapter's matrices
    follow the device on which their projection computes.

    Raises:
        UsageError: if the adapter names another base model, or is no plain LoRA.
        RemiError: if it cannot be had, or its weights do not fit the model.
    """
    folder = adapter_files(spec)
    config = PeftConfig.from_pretrained(str(folder))
    check_adapter(config, spec)
    weights = {
        name.removeprefix(_PREFIX): value.float()
        for name, value in load_file(folder / ADAPTER_WEIGHTS).items()
    }
    head = model.get_output_embeddings()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "`is_gradient_checkpointing`", FutureWarning
        )  # peft reads an old name
        inject_adapter_in_model(config, model, _NAME, low_cpu_mem_usage=True)
    if model.get_output_embeddings() is not head or _is_changed(model.get_input_embeddings()):
        raise UsageError(
            f"adapter {spec.adapter}: it changes the embeddings; merge it into a model folder first"
        )
    for module in model.modules():
        if isinstance(module, LoraLayer):
            _make_room(module, computing_device(module.get_base_layer()))
    found = set_peft_model_state_dict(model, weights, adapter_name=_NAME)
    missing = [name for name in found.missing_keys if "lora_" in name]
    if missing or found.unexpected_keys:
        names = ", ".join(sorted([*missing, *found.unexpected_keys])[:3])
        raise RemiError(f"adapter {spec.adapter}: its weights do not fit {spec.source}: {names}")
    return model


def adapter_files(spec: ModelSpec) -> Path:
    """The folder with configuration and weights of a model's adapter, fetched from the hub if it is an id.

    Raises:
        UsageError: if it can only be a path and is missing, or is no adapter saved as safetensors.
        RemiError: if it cannot be had as safetensors; pickled weights are never read.
    """
    folder = adapter_folder(spec.adapter)
    if folder is None:
        fetch_file(spec.adapter, ADAPTER_WEIGHTS, spec.adapter_revision)
        folder = fetch_file(spec.adapter, ADAPTER_FILE, spec.adapter_revision).parent
    return folder


def check_adapter(config: PeftConfig, spec: ModelSpec) -> None:
    """Nothing, if the adapter is a plain LoRA and was made for the model.

    An adapter that names a hub id belongs to that id, or to a folder whose name ends as the id does; one that names a
    folder belongs to a folder of that name; one that names nothing is taken as it is.

    Raises:
        UsageError: otherwise.
    """
    if not isinstance(config, LoraConfig) or config.modules_to_save or config.bias != "none":
        kind = f"{config.peft_type}, modules_to_save={getattr(config, 'modules_to_save', None)}"
        raise UsageError(
            f"adapter {spec.adapter}: only plain LoRA is supported ({kind}); merge it into a model folder first"
        )
    named = config.base_model_name_or_path
    if not named or named.casefold() == spec.source.casefold():
        return
    path = Path(spec.source).expanduser()
    if path.is_dir() and Path(named).name.casefold() == path.resolve().name.casefold():
        return
    raise UsageError(
        f"adapter {spec.adapter} belongs to {named}, not to {spec.source}; name that model as its base"
    )


def _is_changed(module: nn.Module) -> bool:
    return isinstance(module, LoraLayer)


def _make_room(layer: LoraLayer, device: torch.device) -> None:
    """Empty float32 matrices where the projection computes; peft would put them where its weights lie meanwhile."""
    for name in layer.adapter_layer_names:
        for part in getattr(layer, name).values():
            part.to_empty(device=device).float()
