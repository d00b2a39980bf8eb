"""What measuring a preset takes: memory, disk and time, from the models' numbers and the preset's sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from remi_core.models.spec import PROVIDED, ModelSpec
from remi_core.presets.known import Preset
from remi_core.sizes import Shape, config_of, shape_of

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
    models = {
        one.spec.source: 2 * one.shape.n_parameters() for one in demands if not _is_folder(one.spec.source)
    }
    adapters = {
        one.spec.adapter: 4 * one.shape.n_adapter_parameters(ADAPTER_RANK)
        for one in demands
        if one.spec.adapter and not _is_folder(one.spec.adapter)
    }
    return sum(models.values()) + sum(adapters.values())


def store_bytes(preset: Preset, demands: Sequence[Demand], n_sets: int) -> int:
    """Bytes of the window means of activations in the store, which outweigh every other record; float32."""
    rows = preset.n_dialogues * n_sets * len(preset.windows)
    return sum(4 * rows * one.shape.n_blocks * one.shape.width for one in demands)


def seconds(preset: Preset, demands: Sequence[Demand], n_sets: int) -> float:
    """Seconds of the forward and gradient passes and of reading the weights.

    With ``OPERATIONS``, ``TOKENS`` and ``READING``. A token takes two operations a parameter; gradients one more pass
    over at most three sets. Statistics, figures and downloads come on top.
    """
    tokens = TOKENS * (preset.n_dialogues * n_sets + 3 * preset.n_gradient_dialogues)
    passes = sum(2 * one.shape.n_parameters() * tokens for one in demands) / OPERATIONS
    return passes + sum(2 * one.weights for one in demands) / READING


def fitting_gpus(peak: int) -> list[tuple[int, int]]:
    """For each card of ``GPUS``, (how many hold a model of that peak together, GB of one), where up to eight do."""
    usable = [(size, USABLE * size * GIGABYTE) for size in GPUS]
    counts = [(int(-(-peak // room)), size) for size, room in usable]
    return [(count, size) for count, size in counts if count <= 8]


def _is_folder(source: str) -> bool:
    return Path(source).expanduser().is_dir()
