"""How many numbers a model holds, computed from its configuration alone, and where such configurations are found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from remi_core.models.hub import cached_file
from remi_core.models.spec import ModelSpec

SHAPES = Path(__file__).with_name("hub_shapes.json")
"""Configurations of hub models that presets name, each with the page it was read on."""

TRAITS: Mapping[str, Mapping[str, object]] = {
    "qwen2": {"qkv_bias": True},
    "qwen3": {"head_norms": True},
    "llama": {},
    "mistral": {},
    "gemma": {"tied": True},
    "gemma2": {"tied": True, "norms": 4},
    "gemma3_text": {"tied": True, "norms": 4, "head_norms": True},
}
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
    """The shape that a model's ``config.json`` describes; None for an architecture that is not in ``TRAITS``."""
    text = config.get("text_config", config)
    traits = TRAITS.get(text.get("model_type"))
    if traits is None:
        return None
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
    """
    folder = Path(spec.source).expanduser()
    found = (
        folder / "config.json" if folder.is_dir() else cached_file(spec.source, "config.json", spec.revision)
    )
    if found is not None and found.is_file():
        return json.loads(found.read_text(encoding="utf-8"))
    return _shipped().get(spec.source, {}).get("config")


@lru_cache(maxsize=1)
def _shipped() -> dict[str, dict[str, object]]:
    return json.loads(SHAPES.read_text(encoding="utf-8"))
