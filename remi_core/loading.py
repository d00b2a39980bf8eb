"""Weights, adapters and tokenizers from a folder or a hub id into memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from peft import LoraConfig, PeftConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import Embedding, LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.quantizers.auto import AutoQuantizationConfig

from remi_core.errors import RemiError, UsageError
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

_NAME, _PREFIX = "default", "base_model.model."
_ANEW = ("pissa", "olora")  # peft takes their first product off the model's weights, the same each time
_BEGINNINGS = (True, False, "gaussian", "eva", "orthogonal", "mica", *_ANEW)
_UNTRIED = ("alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config", "use_bdlora")
_UNTRIED += ("layer_replication", "target_parameters", "use_qalora", "velora_config")


def apply_adapter(
    model: PreTrainedModel, config: LoraConfig, weights: Mapping[str, torch.Tensor], spec: ModelSpec
) -> PreTrainedModel:
    """The same model, with the LoRA modules of ``spec.adapter`` in place of the ones they change.

    The adapter is not merged: in bfloat16 rounding would lose part of a small change. A changed projection keeps its
    place and name, and its output is W x + s B A x, with A and B in float32 as peft has them. The adapter's matrices
    follow the device on which their projection computes. What is replaced whole, or looked up, is a plain module.

    Raises:
        UsageError: if peft cannot put it on the model.
        RemiError: if its weights do not fit the model.
    """
    anew = config.init_lora_weights in _ANEW
    changed = anew or any("lora_" not in name or "lora_embedding_" in name for name in weights)
    if changed and any(one.is_meta for one in model.parameters()):
        raise UsageError(f"adapter {spec.adapter}: it changes weights that do not fit into memory")
    with warnings.catch_warnings(), _named_errors(ModelSpec(source=f"adapter {spec.adapter}"), Path()):
        warnings.simplefilter("ignore")  # peft reads an old name, and tells of what is done or checked below
        inject_adapter_in_model(config, model, _NAME, low_cpu_mem_usage=not anew)
        for module in model.modules():
            if isinstance(module, LoraLayer):
                # Where the projection computes; peft would put them where its weights lie meanwhile.
                device = computing_device(module.get_base_layer())
                for name in module.adapter_layer_names:
                    getattr(module, name).to_empty(device=device).float()
        loaded = set_peft_model_state_dict(model, weights, adapter_name=_NAME, ignore_mismatched_sizes=True)
    wrong = [name for name in loaded.missing_keys if "lora_" in name or "to_save" in name or name in weights]
    if wrong := wrong + loaded.unexpected_keys:
        raise RemiError(f"adapter {spec.adapter}: weights do not fit {spec.source}: {', '.join(wrong[:3])}")
    for name, module in list(model.named_modules()):
        if hasattr(module, "unload_and_optionally_merge_module"):
            model.set_submodule(name, module.unload_and_optionally_merge_module(True, False, [_NAME]))
        elif isinstance(module, Embedding):
            module.base_layer.weight = torch.nn.Parameter(module.weight.clone())  # it may be shared
            module.merge()
            model.set_submodule(name, module.base_layer)
    return model


def read_adapter(spec: ModelSpec) -> tuple[LoraConfig, dict[str, torch.Tensor]]:
    """Settings of a model's adapter and its weights in float32.

    It belongs to the model that it names, or to a folder whose name ends as that does; where it names none, to any.

    Raises:
        UsageError: if it is missing, cannot be put on a model as it was trained, or names another model.
        RemiError: if it cannot be had as safetensors; pickled weights are never read.
    """
    folder, path = adapter_folder(spec.adapter), Path(spec.source).expanduser()
    if folder is None:
        fetch_file(spec.adapter, ADAPTER_WEIGHTS, spec.adapter_revision)
        folder = fetch_file(spec.adapter, ADAPTER_FILE, spec.adapter_revision).parent
    with _named_errors(ModelSpec(source=f"adapter {spec.adapter}"), folder):
        config, stored = PeftConfig.from_pretrained(str(folder)), load_file(folder / ADAPTER_WEIGHTS)
    weights = {name.removeprefix(_PREFIX): value.float() for name, value in stored.items()}
    start = getattr(config, "init_lora_weights", None)
    wrong = [config.peft_type.value] if type(config) is not LoraConfig else []
    wrong += [f"begun as {start}"] if start not in _BEGINNINGS else []
    wrong += [name for name in _UNTRIED if getattr(config, name, None)]
    wrong += [name for name in weights if "lm_head.lora_" in name]
    if wrong:
        raise UsageError(
            f"adapter {spec.adapter}: only plain LoRA is supported ({', '.join(wrong[:2])}); convert it where it was "
            "trained (path_initial_model_for_weight_conversion), or merge it into a model folder"
        )
    named = config.base_model_name_or_path or spec.source
    same = path.is_dir() and Path(named).name.casefold() == path.resolve().name.casefold()
    if not (same or spec.same_base or named.casefold() == spec.source.casefold()):
        raise UsageError(
            f"adapter {spec.adapter} belongs to {named}, not to {spec.source}; name that model, or give --same-base"
        )
    return config, weights


# Weights into memory: safetensors only, no remote code, each part where it fits.

GENERIC_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Tokenizer classes that carry all their rules in ``tokenizer.json``."""
_LIBRARY_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RuntimeError)


def load_weights(
    spec: ModelSpec,
    *,
    dtype: torch.dtype,
    device: str | Mapping[str, str | int],
    offload: Path,
    check: Callable[[PreTrainedConfig], None] = lambda config: None,
) -> PreTrainedModel:
    """The model with its adapter applied, placed on its devices; parts that go to the disk lie in ``offload``.

    ``device`` is as in ``plan_placement``, or a map from parts to devices as accelerate takes it. ``check`` may refuse
    the configuration before any weight is read.

    Raises:
        UsageError: a folder that holds no model that can be opened, or an adapter that does not belong to it.
        RemiError: a hub id that cannot be had, or weights that do not fill the model.
    """
    folder = local_folder(spec.source)
    place = folder or spec.source
    with _named_errors(spec, folder):
        config = AutoConfig.from_pretrained(place, revision=spec.revision, trust_remote_code=False)
        # All code is in transformers.
        kernel = config._attn_implementation
        if isinstance(kernel, str) and "/" in kernel:
            raise UsageError(
                f"{spec.source}: config.json names code of the hub ({kernel!r}), which is never run"
            )
        check(config)
        adapter = spec.adapter and read_adapter(spec)
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
    return apply_adapter(model, *adapter, spec) if adapter else model


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
