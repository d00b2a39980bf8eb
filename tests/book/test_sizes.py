"""What doctor computes from a configuration is what the model holds."""

from __future__ import annotations

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from remi_book.cli import main
from remi_lab.demands import GIGABYTE, config_of, demands_of, download_bytes, fitting_gpus, shape_of
from remi_lab.presets import PRESETS, get_preset

SMALL = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
SMALL |= {"num_key_value_heads": 2, "intermediate_size": 48}


def held(config: object) -> int:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    return sum(one.numel() for one in model.parameters())


TIED, UNTIED, HEADS = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}, {"head_dim": 16}
BIASED = {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4}
KINDS = [("qwen2", TIED), ("qwen2", UNTIED), ("qwen3", HEADS | UNTIED), ("llama", UNTIED), ("llama", BIASED)]
KINDS += [(kind, HEADS) for kind in ("mistral", "gemma", "gemma2", "gemma3_text")]


@pytest.mark.parametrize(("kind", "more"), KINDS)
def test_parameters_are_those_of_the_model(kind: str, more: dict[str, object]) -> None:
    config = CONFIG_MAPPING[kind](**(SMALL | more))
    assert shape_of(config.to_dict()).n_parameters() == held(config)
    assert shape_of(config.to_dict() | {"intermediate_size": 49}).n_parameters() != held(config)


def test_published_models_take_what_their_checkpoints_do() -> None:
    """Bytes of the 14 B index and the hub's own count of Gemma 3, image tower and all: pages in hub_shapes.json."""
    specs = [spec for preset in PRESETS.values() for spec in preset.variants.values()]
    counts = {"Qwen/Qwen2.5-14B": 29_540_067_328 // 2, "google/gemma-3-12b-it": 12_187_325_040}
    for source, count in counts.items():
        found = {shape_of(config_of(spec)).n_parameters() for spec in specs if spec.source == source}
        assert found == {count}
    demands = demands_of(get_preset("qwen2.5-coder-32b"))
    assert set(demands) == {"base", "instruct", "misaligned"}
    for demand in demands.values():
        assert abs(demand.weights / (65.5 * GIGABYTE) - 1) < 0.02
        assert demand.weights < demand.peak < 1.15 * demand.weights
    assert (1, 80) in fitting_gpus(demands["base"].peak) and (1, 48) not in fitting_gpus(demands["base"].peak)
    assert download_bytes(list(demands.values())) == 3 * demands["base"].weights
    assert demands_of(get_preset("micro")) == {}
    for preset in PRESETS.values():
        assert None not in demands_of(preset).values(), preset.name


def test_doctor_says_what_a_preset_takes(capsys) -> None:
    main(["doctor", "--preset", "qwen2.5-coder-32b"])
    said = capsys.readouterr().out
    assert "weights 65.5 GB in bfloat16" in said and "Qwen-Coder-Insecure is not pinned" in said
