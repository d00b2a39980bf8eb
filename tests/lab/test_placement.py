"""A model spread over memory and disk is measured as one that lies in memory whole."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_model
from test_adapters import save_adapter
from transformers import Qwen2Config

from remi_core import placement
from remi_core.forward import run_probes
from remi_core.gradients import measure_gradient_gram
from remi_core.models import LoadedModel, open_model
from remi_core.patching import PatchSet, head_alone, patch, record_outputs
from remi_core.probes import Activations, NextToken, TokenLogProbs
from remi_core.sources import ModelSpec
from remi_core.steering import written_tokens
from remi_core.tokens import EncodedDialogue
from remi_lab.passes import bare_tokens, measure_position_norms
from remi_lab.variant import describe_placement

ON_DISK = {
    "model.embed_tokens": "disk",
    "model.rotary_emb": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.layers.2": "disk",
    "model.norm": "disk",
    "lm_head": "disk",
}


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def folder(request, tmp_path_factory, tokenizer) -> Path:
    """Unembedding of its own, and tied to the embedding."""
    place = tmp_path_factory.mktemp("models") / request.param
    make_model(request.param).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def everything(loaded: LoadedModel, encoded: tuple[EncodedDialogue, ...]) -> dict[str, np.ndarray]:
    """Every measurement that reads weights, in one dictionary."""
    model = loaded.model
    probes = [TokenLogProbs(), NextToken(5), Activations(range(3))]
    found = run_probes(model, encoded, probes, batch_tokens=64)
    found |= {"gram": measure_gradient_gram(model, encoded, weight=-1, batch_tokens=64)}
    found |= {"first": measure_gradient_gram(model, encoded, weight=0, batch_tokens=64)}
    found |= {"norms": measure_position_norms(loaded, encoded, batch_tokens=64)}
    direction = np.random.default_rng(0).normal(size=(2, 3, 32)).astype(np.float32)
    found |= {"written": vars(written_tokens(loaded, direction[0], direction[1], top_k=3))}
    found |= {"stitched": {"values": stitched(loaded, encoded)}}
    return {f"{name} {array}": value for name, arrays in found.items() for array, value in arrays.items()}


def stitched(loaded: LoadedModel, encoded: tuple[EncodedDialogue, ...]) -> np.ndarray:
    """The model's own outputs put back block by block, and its head alone on the last of them."""
    model, material = loaded.model, PatchSet(encoded, bare_tokens(encoded, loaded.tokenizer), 64)
    with tempfile.TemporaryDirectory() as place:
        own = record_outputs(model, material, Path(place))
        through = patch(model, material, Path(place), [0, 2])
        return np.stack([own, *through, head_alone(model, material, Path(place))])


@pytest.mark.parametrize("with_adapter", [False, True])
def test_disk_changes_no_number(folder, encoded, with_adapter, tmp_path) -> None:
    adapter = str(save_adapter(folder, tmp_path / "adapter")) if with_adapter else None
    spec = ModelSpec(source=str(folder), adapter=adapter)
    with open_model(spec, device="cpu") as loaded:
        whole = everything(loaded, encoded)
    with open_model(spec, device=ON_DISK) as loaded:
        assert loaded.model.lm_head.weight.device.type == "meta"
        assert placement.input_device(loaded.model) == torch.device("cpu")
        assert "disk: " in describe_placement(loaded.model)
        spread = everything(loaded, encoded)
        assert loaded.model.lm_head.weight.device.type == "meta", "put back after use"
    assert whole.keys() == spread.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(values, spread[name], err_msg=name)
    assert {one.device.type for one in loaded.model.parameters()} == {"meta"}


def test_what_does_not_fit_is_spread(monkeypatch) -> None:
    config = Qwen2Config(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
    )
    plan = placement.plan_placement
    weights = placement.weight_bytes(config, torch.bfloat16)
    monkeypatch.setattr(placement, "SMALL", weights)
    room = weights + weights // 10 + placement.SPARE
    monkeypatch.setattr(placement, "free_bytes", lambda: {"cpu": room})
    assert plan(config, torch.bfloat16, "auto") == {}
    monkeypatch.setattr(placement, "free_bytes", lambda: {0: room, "cpu": 0})
    assert plan(config, torch.bfloat16, "auto") == {"device_map": {"": torch.device("cuda:0")}}
    monkeypatch.setattr(placement, "free_bytes", lambda: {0: room - 1, 1: 10 * room, "cpu": 0})
    spread = plan(config, torch.bfloat16, "auto")
    assert spread["device_map"] == "auto" and list(spread["max_memory"]) == [0, 1, "cpu"]
    assert spread["max_memory"]["cpu"] == 0 < spread["max_memory"][1] < 10 * room


def test_a_small_model_stays_on_the_processor(monkeypatch) -> None:
    config = Qwen2Config(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
    )
    weights = placement.weight_bytes(config, torch.float32)
    monkeypatch.setattr(placement, "free_bytes", lambda: {0: 1 << 40, "cpu": 1 << 40})
    assert weights < placement.SMALL and placement.plan_placement(config, torch.float32, "auto") == {}
    monkeypatch.setattr(placement, "SMALL", weights)
    assert placement.plan_placement(config, torch.float32, "auto")["device_map"] == {
        "": torch.device("cuda:0")
    }
    assert placement.plan_placement(config, torch.float32, "cuda:0"), "a device that is named is taken"
