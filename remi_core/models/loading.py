"""Weights into memory: safetensors only, no remote code, each part where it fits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
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

from remi_core.errors import RemiError, UsageError, brief
from remi_core.models.adapters import apply_adapter
from remi_core.models.hub import unreachable
from remi_core.models.placement import plan_placement
from remi_core.models.sources import local_folder
from remi_core.models.spec import ModelSpec

GENERIC_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Tokenizer classes that carry all their rules in ``tokenizer.json``."""
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
        _check_local(spec, folder, config)
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


def _check_local(spec: ModelSpec, folder: Path | None, config: PreTrainedConfig) -> None:
    """Nothing, if all code and weights are where they should be: code in transformers, weights in the folder.

    Raises:
        UsageError: if the configuration names a kernel of the hub, or the folder's index a file elsewhere.
    """
    kernel = config._attn_implementation
    if isinstance(kernel, str) and "/" in kernel:
        raise UsageError(f"{spec.source}: config.json names code of the hub ({kernel!r}), which is never run")
    index = folder / INDEX_FILE if folder else None
    if index is None or not index.is_file():
        return
    for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values():
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise UsageError(
                f"{spec.source}: {INDEX_FILE} names {brief(name)}, not a .safetensors file beside it"
            )


@contextmanager
def _named_errors(spec: ModelSpec, folder: Path | None) -> Iterator[None]:
    """Turns the errors of transformers into one line that names the model."""
    try:
        yield
    except (UsageError, RemiError):
        raise
    except SafetensorError as error:
        raise RemiError(f"{spec.source}: the weights cannot be read ({error})") from error
    except ImportError as error:
        first = str(error).strip().splitlines()[0]
        raise RemiError(f"{spec.spelled()}: a package is missing for it ({first})") from error
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        StrictDataclassError,
    ) as error:
        if "trust_remote_code" in str(error):
            raise UsageError(
                f"{spec.spelled()}: its configuration names code of its own (auto_map), which is never run; only what "
                "transformers itself has can be loaded"
            ) from error
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if folder is not None:
            raise UsageError(
                f"{spec.source}: the folder holds no model that can be opened ({first})"
            ) from error
        raise unreachable(spec.source, spec.revision, error) from error
