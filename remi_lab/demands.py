"""What a preset asks of a machine: memory, disk, layers and sizes of its models."""

from __future__ import annotations

import importlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from remi_core.errors import UsageError, brief
from remi_core.files import scratch
from remi_core.sources import PROVIDED, ModelSpec
from remi_core.store import Store
from remi_core.tokens import EncodedSet
from remi_lab.audit import Wanted
from remi_lab.datasets import dataset_names, load_set
from remi_lab.presets import TRIPLET, Preset
from remi_lab.processes import peak_bytes, reset_peak
from remi_lab.strict import read_yaml
from remi_lab.turns import noted
from remi_lab.variant import MAIN_PAIRS, cached_file, find_variant, patch_plan, read_configuration

# How many numbers a model holds, computed from its configuration alone, and where such configurations are found.

SHAPES = Path(__file__).with_name("hub_shapes.json")
"""Configurations of models that presets name, each with the page it was read on, or the file of this package."""

TRAITS = read_yaml(Path(__file__).with_suffix(".yaml"), dict[str, dict[str, bool | int]])
"""Architecture → what its configuration leaves unsaid."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The numbers of an architecture that decide how large it is."""

    width: int
    n_blocks: int
    n_heads: int
    n_kv_heads: int
    head_size: int
    mlp_width: int
    n_vocab: int
    tied: bool = False
    """Whether the unembedding is the embedding."""
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    norms: int = 2
    """Norms of the residual width in a block."""
    head_norms: bool = False
    """Whether queries and keys are normed head by head."""
    extra: int = 0
    """Parameters of an image tower that is loaded too."""

    def n_parameters(self) -> int:
        """Number of parameters, tied ones once."""
        queries, keys = self.n_heads * self.head_size, self.n_kv_heads * self.head_size
        attention = self.width * (2 * queries + 2 * keys)
        attention += self.qkv_bias * (queries + 2 * keys) + self.output_bias * self.width
        mlp = 3 * self.width * self.mlp_width + self.mlp_bias * (2 * self.mlp_width + self.width)
        norms = self.norms * self.width + self.head_norms * 2 * self.head_size
        embeddings = (1 if self.tied else 2) * self.n_vocab * self.width
        return embeddings + self.n_blocks * (attention + mlp + norms) + self.width + self.extra

    def n_adapter_parameters(self, rank: int) -> int:
        """Parameters of a LoRA on all seven projections of every block."""
        queries, keys = self.n_heads * self.head_size, self.n_kv_heads * self.head_size
        sides = 2 * (self.width + queries) + 2 * (self.width + keys) + 3 * (self.width + self.mlp_width)
        return rank * sides * self.n_blocks


def shape_of(config: Mapping[str, object]) -> Shape | None:
    """The shape that a model's ``config.json`` describes; None for an architecture that is not in ``TRAITS``.

    Raises:
        UsageError: if a number that decides the shape is missing, or is no whole number above 0.
    """
    text = config.get("text_config", config)
    traits = TRAITS.get(text.get("model_type")) if isinstance(text, Mapping) else None
    if traits is None:
        return None
    for name in SIZES:
        value = text.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{name} is {brief(value)}; expected a whole number above 0")
    width, heads = text["hidden_size"], text["num_attention_heads"]
    bias = bool(text.get("attention_bias", False))
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    own = {
        "tied": bool(traits.get("tied", False) if tied is None else tied),
        "qkv_bias": bool(traits.get("qkv_bias", False)) or bias,
    }
    return Shape(
        width=width,
        n_blocks=text["num_hidden_layers"],
        n_heads=heads,
        n_kv_heads=text.get("num_key_value_heads") or heads,
        head_size=text.get("head_dim") or width // heads,
        mlp_width=text["intermediate_size"],
        n_vocab=text["vocab_size"],
        output_bias=bias,
        mlp_bias=bool(text.get("mlp_bias", False)),
        extra=_image_tower(config["vision_config"], width) if "vision_config" in config else 0,
        **{**traits, **own},
    )


SIZES = ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "vocab_size")
"""What every configuration says of its shape."""


def _image_tower(config: Mapping[str, object], width: int) -> int:
    """Parameters of the image tower of Gemma 3 (SigLIP without a head) and of its map to the text's width."""
    own, inner, side = config["hidden_size"], config["intermediate_size"], config["patch_size"]
    n_patches = (config["image_size"] // side) ** 2
    embedding = 3 * side * side * own + own + n_patches * own
    block = 4 * (own * own + own) + 2 * own * inner + inner + own + 4 * own
    return embedding + config["num_hidden_layers"] * block + 2 * own + own * width + own


def config_of(spec: ModelSpec) -> Mapping[str, object] | None:
    """The configuration of a model: its folder's, the cached one of a hub id, or one that ships; None if unknown.

    No network is used.

    Raises:
        UsageError: naming the file, if it is no JSON object or does not describe a model that there can be.
    """
    folder = Path(spec.source).expanduser()
    found = (
        folder / "config.json" if folder.is_dir() else cached_file(spec.source, "config.json", spec.revision)
    )
    if found is not None and found.is_file():
        config = read_configuration(found)
        try:
            shape_of(config)
        except UsageError as error:
            raise UsageError(f"{found}: {error}") from None
        return config
    return _shipped().get(spec.source, {}).get("config")


@lru_cache(maxsize=1)
def _shipped() -> dict[str, dict[str, object]]:
    return json.loads(SHAPES.read_text(encoding="utf-8"))


# What measuring a preset takes: memory, disk and time, from the models' numbers and the preset's sizes.

GIGABYTE = 10**9
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
GPUS = (24, 48, 80, 141)
"""Memory in GB of graphics cards in common use."""
LOGIT_BYTES = 3 * 4 * 2**24
"""Logits, their log-probabilities and probabilities at the positions that are in memory at a time."""
GRADIENT_BYTES = 3 * 8 * 2**26
"""Two blocks of gradients in float64, and one on the way."""
HEAD_ROWS = 16_384
"""Rows of the unembedding that are raised to float32 at a time."""
ADAPTER_RANK = 32
"""Rank assumed of an adapter that is not here: that of the published ones."""
USABLE = 0.9
"""Share of a card's memory that weights and activations may fill."""
TOKENS = 300
"""Tokens assumed of a dialogue on average."""
OPERATIONS = 4e14
"""Operations a second assumed of a data-centre card: about two fifths of its peak in bfloat16."""
READING = 10**9
"""Bytes a second assumed for reading weights from disk."""


@dataclass(frozen=True)
class Demand:
    """What one variant takes; bytes."""

    role: str
    spec: ModelSpec
    shape: Shape
    weights: int
    """In the preset's dtype, its adapter in float32 with it."""
    peak: int
    """Weights, activations of the largest batch, logits and gradients."""


def demands_of(preset: Preset) -> dict[str, Demand | None]:
    """Role → what its model takes, None where its numbers are not known; variants made by the package are left out."""
    known = {}
    for role, spec in preset.variants.items():
        if spec.source not in PROVIDED:
            config = config_of(spec)
            shape = shape_of(config) if config else None
            known[role] = None if shape is None else _demand(preset, role, shape)
    return known


def _demand(preset: Preset, role: str, shape: Shape) -> Demand:
    """What a variant of that shape takes."""
    spec, size = preset.variants[role], BYTES[preset.dtype]
    adapter = 4 * shape.n_adapter_parameters(ADAPTER_RANK) if spec.adapter else 0
    weights = size * shape.n_parameters() + adapter
    kept = preset.batch_tokens * shape.width * shape.n_blocks * size
    inside = preset.batch_tokens * (8 * shape.width + 3 * shape.mlp_width) * size
    head = 4 * HEAD_ROWS * shape.width
    # The way back through the logits keeps the unembedding whole in float32.
    back = max(GRADIENT_BYTES, 4 * shape.n_vocab * shape.width + LOGIT_BYTES)
    peak = weights + inside + max(kept + LOGIT_BYTES + head, back)
    return Demand(role, spec, shape, weights, peak)


def download_bytes(demands: Sequence[Demand]) -> int:
    """Bytes of the distinct repositories in the 16 bits they are published in, adapters in 32; folders left out."""
    sizes = {}
    for demand in demands:
        sizes[demand.spec.source] = 2 * demand.shape.n_parameters()
        if demand.spec.adapter:
            sizes[demand.spec.adapter] = 4 * demand.shape.n_adapter_parameters(ADAPTER_RANK)
    return sum(size for source, size in sizes.items() if not Path(source).expanduser().is_dir())


def store_bytes(preset: Preset, demands: Sequence[Demand], n_rows: int) -> int:
    """Bytes of the window means of activations in the store, which outweigh every other record; float32."""
    return sum(4 * n_rows * len(preset.windows) * one.shape.n_blocks * one.shape.width for one in demands)


def seconds(preset: Preset, demands: Sequence[Demand], n_sets: int) -> float:
    """Seconds of the forward and gradient passes and of reading the weights.

    With ``OPERATIONS``, ``TOKENS`` and ``READING``. A token takes two operations a parameter; gradients one more pass
    over at most three sets. Statistics, figures and downloads come on top.
    """
    tokens = TOKENS * (preset.n_dialogues * n_sets + 3 * preset.n_gradient_dialogues)
    passes = sum(2 * one.shape.n_parameters() * tokens for one in demands) / OPERATIONS
    return passes + sum(2 * one.weights for one in demands) / READING


# What a preset takes on this machine: some of its dialogues go through instruct, and the rest is in proportion.

PASSES = ("forward passes", "gradients", "patching", "audit")
"""What the passes of a preset are for; each of them uses all processors."""
LIVE = 13
"""Openings for what pages measure on the spot: a number by hand on six of them, and two tables of the last block."""
PROBE_SECONDS = 5.0
"""Time that each kind of pass is given for the dialogues on which it is timed."""


@dataclass(frozen=True)
class Timing:
    """What was timed of instruct on this machine."""

    lengths: Mapping[str, Sequence[int]]
    """Of each set, the tokens of every dialogue that can be used."""
    n_answer_tokens: int
    """Of all sets."""
    opening: float
    """Seconds until the model is open, its tokenizer is read, the sets are encoded and two dialogues compared."""
    forward: float
    """Seconds a token of the pass that all probes share."""
    gradients: float
    """Seconds a token of the gradient's pass."""
    patching: float
    """Seconds a token of stitching at all layers."""
    audit: float
    """Seconds a token of an audit's pass over whole dialogues."""
    audit_half: float
    """The same in float16."""
    peak: int
    """Bytes of main memory that this process held at most."""
    noted: Mapping[str, int]
    """What is to be said of how dialogues are rendered → of how many of them."""

    def seconds(
        self, preset: Preset, gradient_sets: Sequence[str], audited: Mapping[str, Sequence[Wanted]]
    ) -> dict[str, float]:
        """What is done → seconds, of all that the notebooks of a preset measure; ``audited`` is by variant."""
        n_seeds, n_variants = len(preset.seeds), len(preset.variants)
        models = [name for name in TRIPLET if name in preset.variants]
        # One set is compared with none: then the page shows the gradients of instruct alone.
        models = models if len(gradient_sets) > 1 else ["instruct"]
        plan = patch_plan(preset)
        stitched = sum(
            self._front(name, preset.n_patch_dialogues) * (1.0 if pair in MAIN_PAIRS else 0.5)
            for pair, names in plan.items()
            for name in names
        )
        audit = {True: 0.0, False: 0.0}
        for name, condition in (one for wanted in audited.values() for one in wanted):
            audit[condition == "half"] += self._front(name, preset.n_audit_dialogues)
        stitching = len({name for pair in plan for name in pair}) + len({pair[1] for pair in plan})
        # The audit opens each model in two precisions; its gradients and those across models take five more.
        openings = n_variants + len(models) + stitching + LIVE + (2 * len(audited) + 5 if audited else 0)
        gradients = len(models) * sum(
            self._front(name, preset.n_gradient_dialogues) for name in gradient_sets
        )
        if audited:
            # Once more through two models, and of two sets with the loss on all tokens, on the answer, and across.
            gradients += sum(self._front(name, preset.n_gradient_dialogues) for name in gradient_sets[:2])
            gradients += 4 * sum(self._front(name, preset.n_audit_dialogues) for name in gradient_sets[:2])
        passes = (
            n_variants * sum(map(sum, self.lengths.values())) * self.forward,
            gradients * self.gradients,
            stitched * self.patching,
            audit[False] * self.audit + audit[True] * self.audit_half,
        )
        once = {f"{openings * n_seeds} openings of a model": openings * self.opening}
        once |= dict(zip(PASSES, passes, strict=True))
        return {what: n_seeds * seconds for what, seconds in once.items()}

    def bytes(self, preset: Preset, shape: Shape, audited: Mapping[str, Sequence[Wanted]]) -> int:
        """What the records of a preset take in the store, as far as they are of passes."""
        stream, n_sets = 4 * shape.n_blocks * shape.width, len(self.lengths)
        n_rows, n_tokens = sum(map(len, self.lengths.values())), sum(map(sum, self.lengths.values()))
        a_variant = (
            n_rows * len(preset.windows) * stream + 16 * self.n_answer_tokens + 8 * n_sets * shape.n_vocab
        )
        audit = sum(
            len(self.lengths[name][: preset.n_audit_dialogues])
            * (len(preset.windows) if condition == "shared" else 1)
            * stream
            + 17 * self._front(name, preset.n_audit_dialogues)
            for wanted in audited.values()
            for name, condition in wanted
        )
        # Texts of the vocabulary, ids of the dialogues, and what each record says of itself.
        texts = 31 * shape.n_vocab + 6 * n_tokens
        n_records = 3 * n_sets * len(preset.variants) + sum(map(len, audited.values()))
        return len(preset.seeds) * (len(preset.variants) * a_variant + audit + texts + 2_000 * n_records)

    def _front(self, name: str, count: int) -> int:
        """Tokens of the first dialogues of a set."""
        return sum(self.lengths[name][:count])


def timed(preset: Preset, store: Store) -> Timing:
    """Opens instruct, and times each kind of pass for some seconds on dialogues of the preset's sets.

    Raises:
        UsageError, RemiError: if a set or the model cannot be had, or one of them does not fit the other.
    """
    # These bring torch, which a check of what is installed does without.
    from remi_core.forward import check_pass
    from remi_core.gradients import measure_gradient_gram
    from remi_core.models import n_layers
    from remi_core.patching import PatchSet, patch, patch_layers, record_outputs
    from remi_lab.audit import in_half
    from remi_lab.audit_passes import audit_pass
    from remi_lab.passes import bare_tokens, checked_tokenizer, encoded_rows, forward_passes, joined_sets

    importlib.import_module("transformers.models.auto.modeling_auto")
    started = time.perf_counter()
    variant = find_variant(preset, "instruct", preset.seeds[0], store)
    sources = {name: load_set(preset, name) for name in dataset_names(preset)}
    reset_peak()
    with variant.open() as loaded, scratch(store.root) as folder:
        model, tokenizer = loaded.model, checked_tokenizer(variant, loaded)
        encoded = {name: encoded_rows(variant, tokenizer, source) for name, source in sources.items()}
        joined, _ = joined_sets(encoded)
        check_pass(model, joined.dialogues, dtype=preset.dtype)
        opening = time.perf_counter() - started

        def forward(rows: EncodedSet) -> None:
            forward_passes(variant, loaded, rows, folder=folder)

        def gradients(rows: EncodedSet) -> None:
            measure_gradient_gram(
                model, rows.dialogues, weight=preset.gradient_layer, batch_tokens=preset.batch_tokens
            )

        def patching(rows: EncodedSet) -> None:
            material = PatchSet(rows.dialogues, bare_tokens(rows.dialogues, tokenizer), preset.batch_tokens)
            record_outputs(model, material, folder)
            patch(model, material, folder, patch_layers(n_layers(model)))

        def audit(rows: EncodedSet) -> None:
            audit_pass(variant, loaded, tokenizer, "shared", rows.sources)

        rates = [_seconds_a_token(each, joined) for each in (forward, gradients, patching, audit)]
    half = in_half(variant)
    with half.open() as loaded:

        def audit_half(rows: EncodedSet) -> None:
            audit_pass(half, loaded, tokenizer, "half", rows.sources)

        rates.append(_seconds_a_token(audit_half, joined))
    lengths = {name: [len(row.input_ids) for row in each.dialogues] for name, each in encoded.items()}
    return Timing(
        lengths, sum(row.n_answer for row in joined.dialogues), opening, *rates, peak_bytes(), noted(joined)
    )


def _seconds_a_token(measure: Callable[[EncodedSet], None], rows: EncodedSet) -> float:
    """Of dialogues of all lengths: of one, then of as many as take about ``PROBE_SECONDS`` at its pace."""
    by_length = sorted(range(len(rows.dialogues)), key=lambda row: len(rows.dialogues[row].input_ids))
    count, rate = 1, 0.0
    for _ in range(3):
        chosen = [by_length[int((place + 0.5) * len(by_length) / count)] for place in range(count)]
        part = EncodedSet(
            tuple(rows.dialogues[row] for row in chosen), tuple(rows.sources[row] for row in chosen), {}
        )
        started = time.perf_counter()
        measure(part)
        seconds = time.perf_counter() - started
        rate = seconds / sum(len(row.input_ids) for row in part.dialogues)
        # The first pass of a process is slower than those that follow.
        count = min(len(by_length), max(2 * count, int(count * PROBE_SECONDS / max(seconds, 1e-3))))
        if seconds > PROBE_SECONDS / 2:
            break
    return rate


def fitting_gpus(peak: int) -> list[tuple[int, int]]:
    """For each card of ``GPUS``, (how many hold a model of that peak together, GB of one), where up to eight do."""
    usable = [(size, USABLE * size * GIGABYTE) for size in GPUS]
    counts = [(int(-(-peak // room)), size) for size, room in usable]
    return [(count, size) for count, size in counts if count <= 8]


# Layer numbers checked before any weights are loaded: how many blocks the models of a preset have.


def check_layers(preset: Preset, parameters: Mapping[str, object]) -> None:
    """Check that the preset's layer and every parameter that names layers (``layer``, ``…_layers``) exist.

    An architecture that is not in ``TRAITS`` must have blocks that can be read, and an attention in the preset's layer.
    Where nothing on this machine says how many blocks the models have, loading them will.

    Raises:
        UsageError: naming the value and the valid range, or saying what the architecture has in that place.
    """
    instruct = preset.variants["instruct"]
    config = config_of(instruct)
    if config is not None and shape_of(config) is None:
        _check_family(instruct, preset.gradient_layer)
    count = n_blocks(preset)
    if count is None:
        return
    named = {"gradient_layer of the preset": preset.gradient_layer}
    named |= {name: value for name, value in parameters.items() if re.fullmatch(r"(.*_)?layers?", name)}
    for name, value in named.items():
        for layer in value if isinstance(value, list | tuple) else [value]:
            if isinstance(layer, int) and not -count <= layer < count:
                raise UsageError(
                    f"{name}: no layer {layer} in preset {preset.name!r} (choices: {-count} … {count - 1})"
                )


def _check_family(spec: ModelSpec, layer: int) -> None:
    """Check, by the configuration alone, that blocks can be read and that a layer has an attention.

    Raises:
        UsageError: saying what the architecture has in that place.
    """
    from transformers import AutoConfig  # brings torch

    from remi_core.models import family_of

    try:
        config = AutoConfig.from_pretrained(
            spec.source, revision=spec.revision, local_files_only=True, trust_remote_code=False
        )
    except Exception:  # whatever is wrong with it, opening the model says so
        return
    family = family_of(config)
    if family is not None:
        family.need("stream")
        family.need(("attention", layer % config.get_text_config().num_hidden_layers))


def n_blocks(preset: Preset) -> int | None:
    """Decoder blocks of the preset's models, from files of this machine; None where no file says so."""
    config = config_of(preset.variants["instruct"])
    if config is None:
        return None
    settings = config.get("text_config", config)
    return settings.get("num_hidden_layers", settings.get("n_layer"))
