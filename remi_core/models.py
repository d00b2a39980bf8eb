"""An opened model: its blocks, norm and unembedding by name, hooks on them, and half precision."""

from __future__ import annotations

import gc
import operator
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from remi_core.batches import Batch
from remi_core.errors import RemiError, UsageError, nearest
from remi_core.loading import load_tokenizer, load_weights
from remi_core.placement import computing_device, in_memory, release
from remi_core.sources import ModelSpec, local_folder, weight_fingerprint

# Products of half-precision numbers in float32: on a graphics card without copies, elsewhere by them. The product
# of two bfloat16 numbers is exact in float32, so only the order of summation tells this from raising both sides to
# float32 first, which costs a card many times as much.

_ROWS = 16_384
"""Rows of a weight that are raised to float32 at a time: a copy of a whole unembedding may not fit."""


def linear_in_float32(
    values: Float[Tensor, "position d_in"], weight: Float[Tensor, "d_out d_in"]
) -> Float[Tensor, "position d_out"]:
    """``values`` times the transposed weight, in float32 whatever their dtypes.

    Where both are bfloat16 and the weight has no gradient, that at ``values`` comes from an incoming one rounded to
    bfloat16, as that of any layer of such a model does.
    """
    if values.dtype == weight.dtype == torch.bfloat16 and not weight.requires_grad:
        return _HalfLinear.apply(values, weight)
    parts = [nn.functional.linear(values.float(), weight[part].float()) for part in _slices(len(weight))]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


class _HalfLinear(torch.autograd.Function):
    """The product in float32, and its gradient at the first factor."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        if values.is_cuda:
            return torch.mm(values, weight.T, out_dtype=torch.float32)
        parts = [values.float() @ weight[part].float().T for part in _slices(len(weight))]
        return torch.cat(parts, dim=-1)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        rounded = gradient.to(weight.dtype)
        if rounded.is_cuda:
            return torch.mm(rounded, weight), None
        total = sum(rounded[:, part].float() @ weight[part].float() for part in _slices(len(weight)))
        return total.to(weight.dtype), None


def _slices(n_rows: int) -> list[slice]:
    return [slice(start, start + _ROWS) for start in range(0, n_rows, _ROWS)]


# Opening one model at a time, and the names of its parts in every supported family.

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Family:
    """Attribute paths of one architecture's parts."""

    body: str
    """The decoder without its head; its output is after the final norm."""
    blocks: str
    norm: str
    attention_output: str
    """Within a block: the linear map from the heads' outputs back to the residual stream."""
    mlp_output: str
    """Within a block: the linear map by which its MLP writes into the residual stream."""


# Qwen2, Qwen3, Llama, Mistral, Gemma 1 to 3; Gemma 3 with its image tower; GPT-NeoX, Pythia; GPT-2.
FAMILIES = (
    Family("model", "layers", "norm", "self_attn.o_proj", "mlp.down_proj"),
    Family("model.language_model", "layers", "norm", "self_attn.o_proj", "mlp.down_proj"),
    Family("gpt_neox", "layers", "final_layer_norm", "attention.dense", "mlp.dense_4h_to_h"),
    Family("transformer", "h", "ln_f", "attn.c_proj", "mlp.c_proj"),
)
NORMS_BEHIND_MLP = ("post_feedforward_layernorm", "post_mlp_layernorm")
"""Within a block of some families: between the MLP's last map and the stream."""


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
    model: str | Path | ModelSpec, *, dtype: str = "float32", device: str | Mapping[str, str | int] = "auto"
) -> Iterator[LoadedModel]:
    """The model and its own tokenizer: in evaluation mode, without gradients, freed on exit.

    A model is a folder, a GGUF file, a hub id, or a ``ModelSpec`` with revision, adapter and quantisation. Only
    safetensors weights are read, and no remote code is run. ``dtype`` is a key of ``DTYPES`` (the checkpoint's own is
    never used silently); ``device`` is as in ``plan_placement``: by default what does not fit one device is spread.
    Example: ``with open_model("Qwen/Qwen2.5-0.5B-Instruct", dtype="bfloat16") as loaded: loaded.model``

    Raises:
        UsageError: unknown dtype or device, missing local folder, a folder that holds no supported model, or an
            adapter of another model.
        RemiError: a hub id that cannot be had, or weights that do not fill the model.
    """
    if dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r} {nearest(dtype, DTYPES)}")
    spec = model if isinstance(model, ModelSpec) else ModelSpec(source=str(model))
    folder = local_folder(spec.source if isinstance(model, ModelSpec) else model)
    tokenizer = load_tokenizer(spec.source, spec.revision)
    with tempfile.TemporaryDirectory(prefix="remi-offload-") as offload:
        weights = load_weights(spec, dtype=DTYPES[dtype], device=device, offload=Path(offload))
        try:
            find_family(weights)
            weights.eval().requires_grad_(False)
            fingerprint = weight_fingerprint(folder) if folder else weights.config._commit_hash
            if fingerprint is None:
                raise RemiError(
                    f"{spec.source}: the hub gave no commit for it, so its weights cannot be told apart; use a folder"
                )
            yield LoadedModel(weights, tokenizer, spec.source, fingerprint)
        finally:
            # The caller may still hold the model: its weights are freed all the same.
            release(weights)
            del weights
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def without_adapter(model: nn.Module) -> PreTrainedModel:
    """The model inside a ``PeftModel``, whose layers carry the adapter; any other model as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def find_family(model: PreTrainedModel) -> Family:
    """Where this model keeps its parts.

    Raises:
        UsageError: if its architecture is none of ``FAMILIES``, or scales its logits in a way not known here.
    """
    model = without_adapter(model)
    name, config = type(model).__name__, model.config.get_text_config()
    for scale in ("logit_scale", "logits_scaling"):
        if getattr(config, scale, None) not in (None, 1, 1.0):
            raise UsageError(
                f"{name} scales its logits ({scale}={getattr(config, scale)}), which is not supported"
            )
    for family in FAMILIES:
        body = reduce(lambda part, name: getattr(part, name, None), family.body.split("."), model)
        if body is not None and hasattr(body, family.blocks):
            return family
    known = ", ".join(f"{family.body}.{family.blocks}" for family in FAMILIES)
    raise UsageError(f"{name} is of no supported family (blocks are looked for at {known})")


def decoder_body(model: PreTrainedModel) -> nn.Module:
    """The model without its head; ``last_hidden_state`` of its output is after the final norm."""
    return operator.attrgetter(find_family(model).body)(without_adapter(model))


def final_states(model: PreTrainedModel, batch: Batch) -> Float[Tensor, "dialogue token d_model"]:
    """Hidden states of a batch after the final norm; only the decoder's body runs."""
    body = decoder_body(model)
    return body(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
    ).last_hidden_state


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The model's blocks, first to last."""
    return getattr(decoder_body(model), find_family(model).blocks)


def block_at(model: PreTrainedModel, layer: int) -> nn.Module:
    """The block of a layer.

    Raises:
        UsageError: if the layer does not exist.
    """
    return decoder_blocks(model)[check_layer(model, layer)]


def final_norm(model: PreTrainedModel) -> nn.Module:
    """The norm between the last block and the unembedding."""
    return getattr(decoder_body(model), find_family(model).norm)


def unembedding(model: PreTrainedModel) -> nn.Linear:
    """The linear map from normed hidden states to logits."""
    return model.get_output_embeddings()


def attention_output(model: PreTrainedModel, layer: int) -> nn.Module:
    """The attention output projection of a block (``o_proj`` and its equivalents): a linear map, maybe with a LoRA.

    Raises:
        UsageError: if the layer does not exist.
    """
    return operator.attrgetter(find_family(model).attention_output)(block_at(model, layer))


def mlp_output(model: PreTrainedModel, layer: int) -> nn.Module:
    """The linear map by which a block's MLP writes into the residual stream.

    Raises:
        UsageError: if the layer does not exist, or the family puts a norm behind that map.
    """
    block = block_at(model, layer)
    for norm in NORMS_BEHIND_MLP:
        if hasattr(block, norm):
            raise UsageError(f"{type(model).__name__} has {norm} behind its MLP: use a hook (steer)")
    return operator.attrgetter(find_family(model).mlp_output)(block)


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
    with in_memory(unembedding(model)) as head:
        logits = linear_in_float32(hidden.to(computing_device(head)), head.weight)
        bias = getattr(head, "bias", None)
        logits = logits if bias is None else logits + bias.float()
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def in_evaluation(model: PreTrainedModel) -> PreTrainedModel:
    """The same model, whose passes repeat.

    Raises:
        UsageError: if it is in training mode, where dropout may add noise.
    """
    if model.training:
        raise UsageError(f"the {type(model).__name__} is in training mode; call its eval() first")
    return model


def check_vocabulary(loaded: LoadedModel, tokenizer: PreTrainedTokenizerBase, owner: str) -> None:
    """Check that a model can read what another model's tokenizer writes: the same ids, all of them with a row.

    ``owner`` is whose tokenizer it is. Tokens that only one of the two has are no conflict, as long as there is an
    embedding for their id.

    Raises:
        UsageError: naming both models, and the token or id that they disagree about.
    """
    vocabulary = tokenizer.get_vocab()
    n_rows = loaded.model.get_input_embeddings().weight.shape[0]
    last = max(vocabulary, key=vocabulary.get)
    if vocabulary[last] >= n_rows:
        raise UsageError(
            f"{loaded.source} has embeddings for {n_rows} tokens, and the tokenizer of {owner} writes {last!r} as "
            f"{vocabulary[last]}: the variants must share their vocabulary"
        )
    known = loaded.tokenizer.get_vocab()
    differing = [token for token, number in vocabulary.items() if known.get(token, number) != number]
    if differing:
        token = min(differing, key=vocabulary.get)
        raise UsageError(
            f"{loaded.source} and {owner} do not share their vocabulary: {token!r} is {known[token]} in the one and "
            f"{vocabulary[token]} in the other ({len(differing)} tokens differ)"
        )


# Reading block outputs during a forward pass. ``output_hidden_states`` is not used: its last entry is after the
# final norm, and it misses edits made by hooks that were registered after its own.


def hidden_of(output: Tensor | tuple) -> Tensor:
    """The hidden states in a block's output: blocks return a tensor or, in some families, a tuple."""
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def read_blocks(
    model: PreTrainedModel, layers: Sequence[int], *, select: Callable[[Tensor], Tensor] | None = None
) -> Iterator[dict[int, Tensor]]:
    """A dictionary that every forward pass fills: layer as asked → raw block output.

    Its shape is (dialogue, token, d_model). The output is read after every other hook of the block, whether
    registered before or after this one, so edits are seen. ``select`` keeps a part of each output, to save
    memory. All hooks are gone when the context ends, by exception too.

    Raises:
        UsageError: if a layer does not exist.
    """
    seen: dict[int, Tensor] = {}

    def keep(layer: int, hidden: Tensor) -> None:
        seen[layer] = hidden if select is None else select(hidden)

    with follow_blocks(model, layers, keep):
        yield seen


@contextmanager
def follow_blocks(
    model: PreTrainedModel, layers: Sequence[int], read: Callable[[int, Tensor], None]
) -> Iterator[None]:
    """Call ``read`` with layer, as asked, and raw block output as soon as the block has it, in every forward pass.

    What ``read`` does not keep is gone when the next block needs the memory. The output is that of ``read_blocks``.

    Raises:
        UsageError: if a layer does not exist.
    """
    readers: dict[int, RemovableHandle] = {}

    def move_last(layer: int, block: nn.Module, _inputs: tuple) -> None:
        # Hooks run in the order of registration: registering anew before each call makes this one the last.
        if layer in readers:
            readers[layer].remove()
        readers[layer] = block.register_forward_hook(partial(on_output, layer))

    def on_output(layer: int, _block: nn.Module, _inputs: tuple, output: Tensor | tuple) -> None:
        read(layer, hidden_of(output))

    movers = []
    try:
        for layer in layers:
            movers.append(block_at(model, layer).register_forward_pre_hook(partial(move_last, layer)))
        yield
    finally:
        for handle in (*movers, *readers.values()):
            handle.remove()


@contextmanager
def forward_replaced(module: nn.Module, forward: Callable[..., object]) -> Iterator[None]:
    """While the context lasts, let ``forward`` run in the place of the module's own; hooks run as before."""
    # A library may have put a forward of its own on the instance (to move inputs between devices).
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before
