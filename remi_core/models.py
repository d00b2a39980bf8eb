"""Opening one model at a time, and the names of its parts in every supported family."""

from __future__ import annotations

import gc
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import constants
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.pytorch_utils import Conv1D

from remi_core.errors import RemiError, UsageError, nearest
from remi_core.sources import local_folder, weight_fingerprint

GENERIC_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Tokenizer classes that carry all their rules in ``tokenizer.json``."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_VOCAB_SLICE = 16_384


@dataclass(frozen=True)
class Family:
    """Attribute paths of one architecture's parts."""

    body: str
    """The decoder without its head; its output is after the final norm."""
    blocks: str
    norm: str
    attention_output: str
    """Within a block: the linear map from the heads' outputs back to the residual stream."""


FAMILIES = (
    Family("model", "layers", "norm", "self_attn.o_proj"),  # Qwen2, Qwen3, Llama, Mistral, Gemma 1 to 3
    Family("gpt_neox", "layers", "final_layer_norm", "attention.dense"),  # GPT-NeoX, Pythia
    Family("transformer", "h", "ln_f", "attn.c_proj"),  # GPT-2
)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model in memory, ready to be measured, and where it came from."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: str
    fingerprint: str
    """sha256 of the weight files of a local folder, or the resolved commit of a hub id."""


@contextmanager
def open_model(
    source: str | Path, *, revision: str | None = None, dtype: str = "float32", device: str = "auto"
) -> Iterator[LoadedModel]:
    """The model and tokenizer of a folder or hub id: in evaluation mode, without gradients, freed on exit.

    Only safetensors weights are read and no remote code is run. ``dtype`` is a key of ``DTYPES`` (the
    checkpoint's own is never used silently); ``device`` is a torch device, or "auto" for the GPU where there
    is one.

    Raises:
        UsageError: unknown dtype, missing local folder, or a folder that holds no supported model.
        RemiError: a hub id that cannot be had, or weights that do not fill the model.
    """
    if dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r} {nearest(dtype, DTYPES)}")
    folder = local_folder(source)
    place = _device(device)
    model, tokenizer = _load(str(source), folder, revision, DTYPES[dtype])
    try:
        find_family(model)
        model.to(place).eval().requires_grad_(False)
        fingerprint = weight_fingerprint(folder) if folder else model.config._commit_hash
        if fingerprint is None:
            raise RemiError(
                f"{source}: the hub gave no commit for it, so its weights cannot be told apart; use a folder"
            )
        yield LoadedModel(model, tokenizer, str(source), fingerprint)
    finally:
        # The caller may still hold the model: moving it to "meta" frees its weights all the same.
        model.to("meta")
        del model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.device(name)
    except RuntimeError:
        raise UsageError(f"unknown device {name!r}; give auto, cpu, cuda or cuda:0") from None


def _load(
    source: str, folder: Path | None, revision: str | None, dtype: torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    place = folder or source
    try:
        tokenizer = load_tokenizer(place, revision)
        model, info = AutoModelForCausalLM.from_pretrained(
            place,
            revision=revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except SafetensorError as error:
        raise RemiError(f"{source}: the weights cannot be read ({error})") from error
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if folder is not None:
            raise UsageError(f"{source}: the folder holds no model that can be opened ({first})") from error
        at = f" at revision {revision}" if revision else ""
        looked = f"looked in {constants.HF_HUB_CACHE} and at {constants.ENDPOINT}"
        mend = "download it where there is a network and give its folder instead of the id"
        raise RemiError(f"{source}{at}: cannot be had, {looked} ({first}); {mend}") from error
    # transformers fills missing weights with random numbers and only logs it.
    for problem in ("missing_keys", "mismatched_keys"):
        if info.get(problem):
            names = ", ".join(sorted(map(str, info[problem]))[:3])
            raise RemiError(f"{source}: the weights do not fill the model: {problem} {names}")
    return model, tokenizer


def load_tokenizer(place: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id, by the rules it was saved with; no remote code."""
    # For a class that says nothing ("TokenizersBackend") transformers 5 takes the one of the model's family, and
    # rebuilds the tokenizer with that family's splitting rule: other tokens than the model was trained on.
    config = get_tokenizer_config(place, revision=revision, trust_remote_code=False)
    generic = config.get("tokenizer_class") in GENERIC_TOKENIZERS
    kind = PreTrainedTokenizerFast if generic else AutoTokenizer
    return kind.from_pretrained(place, revision=revision, trust_remote_code=False)


def find_family(model: PreTrainedModel) -> Family:
    """Where this model keeps its parts.

    Raises:
        UsageError: if its architecture is none of ``FAMILIES``, or scales its logits in a way not known here.
    """
    name = type(model).__name__
    for scale in ("logit_scale", "logits_scaling"):
        if getattr(model.config, scale, None) not in (None, 1, 1.0):
            raise UsageError(
                f"{name} scales its logits ({scale}={getattr(model.config, scale)}), which is not supported"
            )
    for family in FAMILIES:
        if hasattr(model, family.body) and hasattr(getattr(model, family.body), family.blocks):
            return family
    known = ", ".join(f"{family.body}.{family.blocks}" for family in FAMILIES)
    raise UsageError(f"{name} is of no supported family (blocks are looked for at {known})")


def decoder_body(model: PreTrainedModel) -> nn.Module:
    """The model without its head; ``last_hidden_state`` of its output is after the final norm."""
    return getattr(model, find_family(model).body)


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The model's blocks, first to last."""
    return getattr(decoder_body(model), find_family(model).blocks)


def final_norm(model: PreTrainedModel) -> nn.Module:
    """The norm between the last block and the unembedding."""
    return getattr(decoder_body(model), find_family(model).norm)


def unembedding(model: PreTrainedModel) -> nn.Linear:
    """The linear map from normed hidden states to logits."""
    return model.get_output_embeddings()


def attention_output(model: PreTrainedModel, layer: int) -> nn.Linear | Conv1D:
    """The attention output projection of a block (``o_proj`` and its equivalents).

    Raises:
        UsageError: if the layer does not exist.
    """
    block = decoder_blocks(model)[check_layer(model, layer)]
    return operator.attrgetter(find_family(model).attention_output)(block)


def n_layers(model: PreTrainedModel) -> int:
    """Number of blocks."""
    return len(decoder_blocks(model))


def check_layer(model: PreTrainedModel, layer: int) -> int:
    """The layer counted from 0; a negative one counts from the end.

    Raises:
        UsageError: if it does not exist.
    """
    count = n_layers(model)
    if not -count <= layer < count:
        raise UsageError(
            f"layer {layer} does not exist; valid are 0 to {count - 1}, or {-count} to -1 from the end"
        )
    return layer % count


def logits_at(
    model: PreTrainedModel, hidden: Float[Tensor, "position d_model"]
) -> Float[Tensor, "position vocab"]:
    """Next-token logits of hidden states that have passed the final norm.

    In float32 whatever the model's dtype. Honours the soft cap of Gemma 2: cap · tanh(logits / cap).
    """
    head = unembedding(model)
    hidden = hidden.to(head.weight.device, torch.float32)
    bias = getattr(head, "bias", None)
    parts = []
    # A large unembedding in half precision is raised to float32 slice by slice: a whole copy may not fit.
    for start in range(0, head.weight.shape[0], _VOCAB_SLICE):
        part = slice(start, start + _VOCAB_SLICE)
        offset = None if bias is None else bias[part].float()
        parts.append(nn.functional.linear(hidden, head.weight[part].float(), offset))
    logits = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)
