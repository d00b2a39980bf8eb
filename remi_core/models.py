"""An opened model: its blocks, norm and unembedding by name, hooks on them, and half precision."""

from __future__ import annotations

import copy
import gc
import inspect
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils.hooks import RemovableHandle
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from remi_core.batches import Batch
from remi_core.errors import RemiError, UsageError, brief, nearest
from remi_core.loading import load_tokenizer, load_weights
from remi_core.placement import computing_device, in_memory, input_device, release
from remi_core.sources import ModelSpec, local_folder, weight_fingerprint
from remi_core.tokens import EncodedDialogue

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


# Opening one model at a time, and where it keeps its parts: seen when it runs once, by no family's names.

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BETWEEN_TOKENS = "mask|cache|past|^state$"
"""Names of arguments of a module that mixes tokens; one that takes each token alone has no use for them."""


@dataclass(frozen=True)
class Family:
    """Where an architecture keeps its parts, and what it has not."""

    parts: Mapping[object, str]
    """Names: of the "body", the decoder without its head; within it of the list of "blocks", and of the "norm" behind
    them ("" where there is none); within a block of ("attention", layer) and ("mlp", layer), the linear maps by which
    they write into the stream; "stream" says that blocks give one."""
    lacks: Mapping[object, str]
    """Part that it has not → why, in a line."""
    n_outputs: int = 0
    """How many a block gives in a tuple, hidden states first; 0 where it gives them alone."""
    apart: bool = False
    """Whether behind the attention of the last block each token stands alone."""

    def need(self, part: object) -> str:
        """The name of a part; where there is none a ``UsageError`` says why."""
        if part in self.lacks or part not in self.parts:
            raise UsageError(self.lacks.get(part) or self.lacks["blocks"])
        return self.parts[part]


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
    model: str | Path | ModelSpec,
    *,
    dtype: str = "float32",
    device: str | Mapping[str, str | int] = "auto",
    blocks: bool = True,
) -> Iterator[LoadedModel]:
    """The model and its own tokenizer: in evaluation mode, without gradients, freed on exit.

    A model is a folder, a GGUF file, a hub id, or a ``ModelSpec`` with revision, adapter and quantisation. Only
    safetensors weights are read, and no remote code is run. ``dtype`` is a key of ``DTYPES`` (the checkpoint's own is
    never used silently); ``device`` is as in ``plan_placement``: by default what does not fit one device is spread.
    A model whose ``blocks`` cannot be read or changed is refused before it is loaded, unless that is not wanted.
    Example: ``with open_model("Qwen/Qwen2.5-0.5B-Instruct", dtype="bfloat16") as loaded: loaded.model``

    Raises:
        UsageError: unknown dtype or device, missing local folder, a folder that holds no supported model, blocks that
            cannot be read, or an adapter of another model.
        RemiError: a hub id that cannot be had, or weights that do not fill the model.
    """
    if dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r} {nearest(dtype, DTYPES)}")
    spec = model if isinstance(model, ModelSpec) else ModelSpec(source=str(model))
    folder = local_folder(spec.source if isinstance(model, ModelSpec) else model)
    tokenizer = load_tokenizer(spec.source, spec.revision)
    with tempfile.TemporaryDirectory(prefix="remi-offload-") as offload:

        def refuse(family: Family | None) -> None:
            if blocks and family is not None:
                family.need("stream")

        places = {
            "device": device,
            "offload": Path(offload),
            "check": lambda config: refuse(family_of(config)),
        }
        weights = load_weights(spec, dtype=DTYPES[dtype], **places)
        try:
            refuse(find_family(weights))
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
    """Where this model keeps its parts, as it shows when it runs: by no family's names.

    Raises:
        UsageError: if its unembedding reads no decoder's last hidden states.
    """
    model = without_adapter(model)
    if model not in _FOUND:
        _FOUND[model] = family_of(model.config, type(model)) or _seen_family(model)
    return _FOUND[model]


_FOUND: WeakKeyDictionary[PreTrainedModel, Family] = WeakKeyDictionary()
_KNOWN: dict[str, tuple[type, Family]] = {}
"""Configuration, as JSON → the model it makes, and its family."""


def family_of(config: PreTrainedConfig, kind: type | None = None) -> Family | None:
    """The same of a configuration, without weights; None where it takes them, or makes another ``kind`` of model."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.random.fork_rng(devices=[]):
        try:
            config = copy.deepcopy(config)  # from_config writes into what it is given
            config.dtype = torch.float32
            text = config.to_json_string(use_diff=False)
            if text not in _KNOWN:
                # Experts multiplied in this way need no weights to be chosen.
                plain = {"attn_implementation": "eager", "experts_implementation": "batched_mm"}
                empty = AutoModelForCausalLM.from_config(config, **plain).eval()
                _KNOWN[text] = type(empty), _seen_family(empty)
        except UsageError:
            raise
        except Exception:  # whatever a library says of numbers that are not there
            return None
    made, family = _KNOWN[text]
    return family if kind in (None, made) else None


def _run(model: PreTrainedModel) -> dict[nn.Module, tuple[int, Tensor | None, object, int]]:
    """Of modules that three tokens run through, as they finish: how often, first tensors given and gave, how many."""
    ran: dict[nn.Module, tuple[int, Tensor | None, object, int]] = {}

    def note(part: nn.Module, args: tuple, options: dict, output: object) -> None:
        given = next((value for value in (*args, *options.values()) if isinstance(value, Tensor)), None)
        several = isinstance(output, tuple | list) and bool(output)
        gave = output[0] if several else getattr(output, "last_hidden_state", output)
        ran[part] = ran.get(part, (0,))[0] + 1, given, gave, len(output) if several else 0

    with ExitStack() as stack, torch.no_grad():
        for part in model.modules():
            stack.callback(part.register_forward_hook(note, with_kwargs=True).remove)
        model(input_ids=torch.ones((1, 3), dtype=torch.long, device=input_device(model)), use_cache=False)
    return ran


def _same(first: object, second: object) -> bool:
    """Whether two are one tensor, or views of it."""
    tensors = isinstance(first, Tensor) and isinstance(second, Tensor)
    return tensors and first.untyped_storage()._cdata == second.untyped_storage()._cdata


def _takes(part: nn.Module, pattern: str) -> bool:
    """Whether an argument of the module has such a name."""
    return any(re.search(pattern, name) for name in inspect.signature(part.forward).parameters)


def _seen_family(model: PreTrainedModel) -> Family:
    ran, kind, head = _run(model), type(model).__name__, model.get_output_embeddings()
    given, gave = ({part: one[at] for part, one in ran.items()} for at in (1, 2))
    names, last = {part: name for name, part in model.named_modules()}, given.get(head)
    bodies = [part for part in names if _same(gave.get(part), last) and _takes(part, "input_ids")]
    if not bodies:
        raise UsageError(f"{kind} is not supported: its unembedding reads no decoder's last hidden states")
    # Of a model with an image tower the inner one, the text's.
    body, depth = bodies[-1], getattr(model.config.get_text_config(), "num_hidden_layers", None)
    parts, lacks = {"body": names[body]}, {}
    lists = [part for part in body.modules() if isinstance(part, nn.ModuleList) and len(part) == depth]
    blocks = next((one for one in lists if all(ran.get(block, (0,))[0] == 1 for block in one)), None)
    if blocks is None:
        lacks["blocks"] = f"{kind} has no list of {depth} blocks that run once each, to be read or changed"
        return Family(parts, lacks)
    parts["blocks"] = names[blocks][len(names[body]) + 1 :]
    shape, end = (1, 3, head.weight.shape[1]), gave[blocks[-1]]
    shapes = {tuple(getattr(gave[block], "shape", ())) for block in blocks}
    parts["stream"] = ""
    if shapes != {shape}:
        what = f"hidden states of shape {min(shapes)} where one residual stream has {shape}"
        lacks["stream"] = f"the blocks of {kind} give {what}: they cannot be read or changed"
    norms = [names[part] for part in ran if _same(given[part], end) and _same(gave[part], last)]
    parts["norm"] = norms[0][len(names[body]) + 1 :] if norms else ""
    if not norms and not _same(end, last):
        lacks["norm"] = f"between the last block of {kind} and its unembedding stands no single module"
    maps = [
        part
        for part in ran
        if getattr(getattr(part, "weight", None), "ndim", 0) == 2
        and getattr(given[part], "dtype", torch.long).is_floating_point
        and getattr(gave[part], "shape", (0,))[-1] == shape[-1]
    ]
    for layer, block in enumerate(blocks):
        inside, mixers, mixing = [part for part in block.modules() if part in ran], [], {block}
        for part in inside:  # outer ones first
            if part not in mixing and _takes(part, _BETWEEN_TOKENS):
                mixers.append(part)
                mixing |= {*part.modules()}
        for what, owners in (("attention", mixers), ("mlp", {*block.children()} - mixing)):
            for owner in (part for part in ran if part in owners):
                own = [part for part in maps if part in {*owner.modules()}]
                alone = bool(own) and _same(gave[owner], gave[own[-1]])
                if what == "mlp":
                    # Experts are stacked in one parameter, and a norm may follow.
                    behind = (part for part in inside if alone and _same(given[part], gave[owner]))
                    alone &= max((one.ndim for one in owner.parameters()), default=0) < 3
                    alone &= not any(True for part in behind for _ in part.parameters())
                if alone or (own and what == "attention" and (what, layer) not in parts):
                    parts[what, layer] = names[own[-1]][len(names[block]) + 1 :]
            if (what, layer) not in parts:
                has = ", ".join(f"{name} ({type(part).__name__})" for name, part in block.named_children())
                what_for = f"in layer {layer} of {kind} no single linear map writes the {what}'s output into the stream"
                lacks[what, layer] = f"{what_for}; it has {has}"
    return Family(parts, lacks, ran[blocks[0]][3], len(mixers) == 1)


def decoder_body(model: PreTrainedModel) -> nn.Module:
    """The model without its head; ``last_hidden_state`` of its output is after the final norm."""
    return without_adapter(model).get_submodule(find_family(model).need("body"))


def final_states(model: PreTrainedModel, batch: Batch) -> Float[Tensor, "dialogue token d_model"]:
    """Hidden states of a batch after the final norm; only the decoder's body runs."""
    body = decoder_body(model)
    return body(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
    ).last_hidden_state


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The model's blocks, first to last.

    Raises:
        UsageError: if they do not hand on one residual stream.
    """
    family = find_family(model)
    family.need("stream")
    return decoder_body(model).get_submodule(family.need("blocks"))


def block_at(model: PreTrainedModel, layer: int) -> nn.Module:
    """The block of a layer.

    Raises:
        UsageError: if the layer does not exist.
    """
    return decoder_blocks(model)[check_layer(model, layer)]


def final_norm(model: PreTrainedModel) -> nn.Module:
    """The norm between the last block and the unembedding; of a family without one, a module that changes nothing.

    Raises:
        UsageError: if more stands there.
    """
    name = find_family(model).need("norm")
    return decoder_body(model).get_submodule(name) if name else nn.Identity()


def unembedding(model: PreTrainedModel) -> nn.Linear:
    """The linear map from normed hidden states to logits."""
    return model.get_output_embeddings()


def attention_output(model: PreTrainedModel, layer: int) -> nn.Module:
    """The linear map by which a block's attention, or other mixer of tokens, writes into the residual stream.

    Raises:
        UsageError: if the layer or such a map in it does not exist; said of what it has.
    """
    return _map_of(model, "attention", layer)


def mlp_output(model: PreTrainedModel, layer: int) -> nn.Module:
    """The linear map by which a block's MLP writes into the residual stream.

    Raises:
        UsageError: if the layer does not exist, its MLP is of experts, or the family puts a norm behind that map.
    """
    return _map_of(model, "mlp", layer)


def _map_of(model: PreTrainedModel, kind: str, layer: int) -> nn.Module:
    family, layer = find_family(model), check_layer(model, layer)
    return decoder_body(model).get_submodule(f"{family.need('blocks')}.{layer}.{family.need((kind, layer))}")


def n_layers(model: PreTrainedModel) -> int:
    """Number of blocks."""
    return len(decoder_body(model).get_submodule(find_family(model).need("blocks")))


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

    In float32 whatever the model's dtype, scaled and softly capped as the configuration says: cap · tanh(logits / cap).
    """
    with in_memory(unembedding(model)) as head:
        logits = linear_in_float32(hidden.to(computing_device(head)), head.weight)
        bias = getattr(head, "bias", None)
        logits = logits if bias is None else logits + bias.float()
    config = model.config.get_text_config()
    for name, power in _SCALES.items():
        if getattr(config, name, None) not in (None, 1):
            logits = logits * getattr(config, name) ** power
    cap = next((getattr(config, name) for name in _CAPS if getattr(config, name, None)), None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


# What a configuration does to logits, which no structure shows; a name missing here fails the check before a pass.
_SCALES = {"logit_scale": 1, "lm_head_multiplier": 1, "logits_scaling": -1}
"""Factors of the logits in Cohere and Falcon-H1, and the divisor in Granite."""
_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Gemma, RecurrentGemma, xLSTM."""


def in_evaluation(model: PreTrainedModel) -> PreTrainedModel:
    """The same model, whose passes repeat.

    Raises:
        UsageError: if it is in training mode, where dropout may add noise.
    """
    if model.training:
        raise UsageError(f"the {type(model).__name__} is in training mode; call its eval() first")
    return model


def check_vocabulary(loaded: LoadedModel, tokenizer: PreTrainedTokenizerBase, owner: str) -> None:
    """Check that a model can read what another model's tokenizer writes: the same ids.

    ``owner`` is whose tokenizer it is. Tokens that only one of the two has are no conflict, and an id without an
    embedding is none as long as no dialogue holds it (``check_ids``).

    Raises:
        UsageError: naming both models, and the token that they disagree about.
    """
    vocabulary = tokenizer.get_vocab()
    known = loaded.tokenizer.get_vocab()
    differing = [token for token, number in vocabulary.items() if known.get(token, number) != number]
    if differing:
        token = min(differing, key=vocabulary.get)
        raise UsageError(
            f"{loaded.source} and {owner} do not share their vocabulary: {token!r} is {known[token]} in the one and "
            f"{vocabulary[token]} in the other ({len(differing)} tokens differ)"
        )


def check_ids(model: PreTrainedModel, encoded: Sequence[EncodedDialogue]) -> None:
    """Check that the model has an embedding and a logit for every token of the dialogues.

    A tokenizer may write more: that of Gemma 3 has one id for images, which the model for text alone has not.

    Raises:
        UsageError: counting the dialogues with a token that it has not, and naming the first of them and its token.
    """
    n_rows = min(part.weight.shape[0] for part in (model.get_input_embeddings(), unembedding(model)))
    largest = [max(*one.input_ids, one.alternative_token or 0) for one in encoded]
    beyond = [(one, token) for one, token in zip(encoded, largest, strict=True) if token >= n_rows]
    if beyond:
        raise UsageError(
            f"{len(beyond)} of {len(encoded)} dialogues hold tokens for which {type(model).__name__} has no embedding "
            f"(it has {n_rows}), first {brief(beyond[0][0].identifier)} with {beyond[0][1]}: leave them out"
        )


@torch.inference_mode()
def norm_difference(model: PreTrainedModel, ids: Tensor) -> float:
    """Of the last hidden states from the final norm of the last block's output, as a share; 0 where there is none."""
    if find_family(model).lacks.keys() & {"blocks", "stream", "norm"}:
        return 0.0
    with read_blocks(model, [-1]) as seen:
        states = decoder_body(model)(input_ids=ids, use_cache=False).last_hidden_state
    gap = (final_norm(model)(seen[-1]).to(states.device) - states).norm()
    return float(gap) / max(float(states.norm()), torch.finfo(torch.float32).tiny)


# Reading block outputs during a forward pass. ``output_hidden_states`` is not used: its last entry is after the
# final norm, and it misses edits made by hooks that were registered after its own.


def hidden_of(output: Tensor | tuple) -> Tensor:
    """The hidden states in a block's output: blocks return a tensor or, in some families, a tuple."""
    return output if isinstance(output, Tensor) else output[0]


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
