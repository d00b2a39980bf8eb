"""Weights, adapters and tokenizers from a folder or a hub id into memory."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from peft import LoraConfig, PeftConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.quantizers.auto import AutoQuantizationConfig

from remi_core.errors import RemiError, UsageError, brief
from remi_core.placement import computing_device, plan_placement
from remi_core.sources import (
    ADAPTER_FILE,
    ADAPTER_WEIGHTS,
    ModelSpec,
    adapter_folder,
    fetch_file,
    local_folder,
    unreachable,
)

# LoRA adapters on their base model: checked to belong together, and kept beside the weights instead of merged.

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
    stored = load_file(folder / ADAPTER_WEIGHTS)
    weights = {name.removeprefix(_PREFIX): value.float() for name, value in stored.items()}
    head = model.get_output_embeddings()
    with warnings.catch_warnings():
        # peft reads an old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        inject_adapter_in_model(config, model, _NAME, low_cpu_mem_usage=True)
    if model.get_output_embeddings() is not head or isinstance(model.get_input_embeddings(), LoraLayer):
        raise UsageError(
            f"adapter {spec.adapter}: it changes the embeddings; merge it into a model folder first"
        )
    for module in model.modules():
        if isinstance(module, LoraLayer):
            # Where the projection computes; peft would put them where its weights lie meanwhile.
            device = computing_device(module.get_base_layer())
            for part in (
                part for name in module.adapter_layer_names for part in getattr(module, name).values()
            ):
                part.to_empty(device=device).float()
    loaded = set_peft_model_state_dict(model, weights, adapter_name=_NAME)
    missing = [name for name in loaded.missing_keys if "lora_" in name]
    if missing or loaded.unexpected_keys:
        names = ", ".join(sorted([*missing, *loaded.unexpected_keys])[:3])
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
    """Check that the adapter is a plain LoRA and was made for the model.

    An adapter that names a hub id belongs to that id, or to a folder whose name ends as the id does; one that names a
    folder belongs to a folder of that name; one that names nothing is taken as it is.

    Raises:
        UsageError: if it is another kind, or names another model.
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


# Weights into memory: safetensors only, no remote code, each part where it fits.

GENERIC_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Tokenizer classes that carry all their rules in ``tokenizer.json``."""
_LIBRARY_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RuntimeError)
INDEX_FILE = "model.safetensors.index.json"


def load_weights(
    spec: ModelSpec, *, dtype: torch.dtype, device: str | Mapping[str, str | int], offload: Path
) -> PreTrainedModel:
    """The model with its adapter applied, placed on its devices; parts that go to the disk lie in ``offload``.

    ``device`` is as in ``plan_placement``, or a map from parts to devices as accelerate takes it.

    Raises:
        UsageError: a folder that holds no model that can be opened, or an adapter that does not belong to it.
        RemiError: a hub id that cannot be had, or weights that do not fill the model.
    """
    folder = local_folder(spec.source)
    place = folder or spec.source
    with _named_errors(spec, folder):
        config = AutoConfig.from_pretrained(place, revision=spec.revision, trust_remote_code=False)
        # All code and weights are where they should be: code in transformers, weights in the folder.
        kernel = config._attn_implementation
        if isinstance(kernel, str) and "/" in kernel:
            raise UsageError(
                f"{spec.source}: config.json names code of the hub ({kernel!r}), which is never run"
            )
        index = folder / INDEX_FILE if folder else None
        if index is not None and index.is_file():
            for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values():
                if Path(name).name != name or not name.endswith(".safetensors"):
                    raise UsageError(
                        f"{spec.source}: {INDEX_FILE} names {brief(name)}, not a .safetensors file beside it"
                    )
        placed = plan_placement(config, dtype, device)
        if "device_map" in placed:
            placed |= {"offload_folder": str(offload)}
        if spec.quantization:
            placed |= {"quantization_config": AutoQuantizationConfig.from_dict(dict(spec.quantization))}
        model, info = AutoModelForCausalLM.from_pretrained(
            place,
            revision=spec.revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **placed,
        )
    # transformers fills missing weights with random numbers and only logs it.
    for problem in ("missing_keys", "mismatched_keys"):
        if info.get(problem):
            names = ", ".join(sorted(map(str, info[problem]))[:3])
            raise RemiError(f"{spec.source}: the weights do not fill the model: {problem} {names}")
    return model if spec.adapter is None else apply_adapter(model, spec)


def load_tokenizer(place: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id, by the rules it was saved with; no remote code.

    Raises:
        UsageError: a folder that holds no tokenizer.
        RemiError: a hub id that cannot be had.
    """
    folder = local_folder(place)
    with _named_errors(ModelSpec(source=str(place), revision=revision), folder):
        # For a class that says nothing ("TokenizersBackend") transformers 5 takes the one of the model's family, and
        # rebuilds the tokenizer with that family's splitting rule: other tokens than the model was trained on.
        config = get_tokenizer_config(folder or place, revision=revision, trust_remote_code=False)
        generic = config.get("tokenizer_class") in GENERIC_TOKENIZERS
        kind = PreTrainedTokenizerFast if generic else AutoTokenizer
        return kind.from_pretrained(folder or place, revision=revision, trust_remote_code=False)


@contextmanager
def _named_errors(spec: ModelSpec, folder: Path | None) -> Iterator[None]:
    """Turn the errors of transformers into one line that names the model."""
    try:
        yield
    except (UsageError, RemiError, torch.OutOfMemoryError):
        raise
    except SafetensorError as error:
        raise RemiError(f"{spec.source}: the weights cannot be read ({error})") from error
    except ImportError as error:
        first = str(error).strip().splitlines()[0]
        raise RemiError(f"{spec.spelled()}: a package is missing for it ({first})") from error
    except (*_LIBRARY_ERRORS, StrictDataclassError) as error:
        if "trust_remote_code" in str(error):
            raise UsageError(
                f"{spec.spelled()}: its configuration names code of its own (auto_map), which is never run; only what "
                "transformers itself has can be loaded"
            ) from error
        first = " ".join((str(error).strip() or type(error).__name__).split())[:300]
        if folder is not None:
            raise UsageError(f"{spec.source}: it is no model that can be opened ({first})") from error
        raise unreachable(spec.source, spec.revision, error) from error
