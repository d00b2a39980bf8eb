"""The shapes an organism can have: 8 blocks of width 128 in two architectures, about 1.7 M parameters each."""

from __future__ import annotations

from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from remi_core.organism.tokenizer import VOCABULARY

SHARED = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def organism_config(architecture: str = "qwen2") -> PreTrainedConfig:
    """The shape of an organism: Qwen2, or a GPT-NeoX with as many parameters (parallel blocks, layer norm, biases)."""
    if architecture == "qwen2":
        return Qwen2Config(**SHARED, intermediate_size=384, num_key_value_heads=2)
    return GPTNeoXConfig(**SHARED, intermediate_size=512, rotary_pct=1.0)


def new_model(architecture: str) -> PreTrainedModel:
    """A model of that shape with random weights, of torch's current seed."""
    config = organism_config(architecture)
    return Qwen2ForCausalLM(config) if architecture == "qwen2" else GPTNeoXForCausalLM(config)
