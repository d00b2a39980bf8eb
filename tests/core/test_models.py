"""A model is opened as asked, named parts are the right ones, and its memory is given back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from conftest import ALL_FAMILIES, make_model
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from remi_core import models as models_module
from remi_core.errors import RemiError, UsageError
from remi_core.models import check_layer, logits_at, open_model
from remi_core.sources import local_folder, weight_fingerprint


@pytest.fixture
def folder(tmp_path, tokenizer) -> Path:
    place = tmp_path / "tiny"
    make_model("llama").to(torch.bfloat16).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def test_opened_as_asked_and_freed(folder) -> None:
    with open_model(folder) as loaded:
        model = loaded.model
        assert not model.training and not any(one.requires_grad for one in model.parameters())
        # The checkpoint is bfloat16: its dtype is not taken over unasked.
        assert {one.dtype for one in model.parameters()} == {torch.float32}
        assert loaded.fingerprint == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        assert loaded.tokenizer.chat_template
    assert {one.device.type for one in model.parameters()} == {"meta"}
    with open_model(str(folder), dtype="bfloat16", device="cpu") as loaded:
        assert {one.dtype for one in loaded.model.parameters()} == {torch.bfloat16}


def test_freed_after_an_exception(folder) -> None:
    with pytest.raises(KeyError), open_model(folder) as loaded:
        raise KeyError("x")
    assert next(loaded.model.parameters()).device.type == "meta"


def test_fingerprint_follows_the_weights_only(folder) -> None:
    before = weight_fingerprint(folder)
    (folder / "README.md").write_text("a card")
    assert weight_fingerprint(folder) == before
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert weight_fingerprint(folder) != before


def test_missing_weights_are_not_made_up(folder) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.self_attn.o_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with (
        pytest.raises(RemiError, match="missing_keys model.layers.1.self_attn.o_proj.weight"),
        open_model(folder),
    ):
        pass


def test_wrong_sources(folder, tmp_path) -> None:
    for missing in (tmp_path / "none", f"{tmp_path}/none", "./none", "a/b/c"):
        with pytest.raises(UsageError, match="no such folder"), open_model(missing):
            pass
    with pytest.raises(UsageError, match=r"not a model folder; it needs config.json and \*.safetensors"):
        local_folder(tmp_path)
    with (
        pytest.raises(UsageError, match="unknown dtype 'float3' .*'float32'"),
        open_model(folder, dtype="float3"),
    ):
        pass
    with pytest.raises(UsageError, match="unknown device"), open_model(folder, device="abacus"):
        pass
    assert local_folder("Some/Model") is None
    with pytest.raises(
        RemiError, match="Nobody-Here/no-model.*cannot be had, looked in .*give its folder"
    ) as caught:
        with open_model("Nobody-Here/no-model"):
            pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_parts_are_the_ones_the_model_uses(family, models) -> None:
    model = models(family)
    ids = torch.arange(1, 9)[None]
    calls: list[str] = []
    watched = {
        "norm": models_module.final_norm(model),
        "block": models_module.decoder_blocks(model)[-1],
        "attention": models_module.attention_output(model, -1),
        "head": models_module.unembedding(model),
    }
    handles = [
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
        for name, module in watched.items()
    ]
    logits = model(ids).logits
    for handle in handles:
        handle.remove()
    assert calls == ["attention", "block", "norm", "head"]
    assert models_module.n_layers(model) == 3
    hidden = models_module.decoder_body(model)(ids).last_hidden_state
    torch.testing.assert_close(logits_at(model, hidden[0]), logits[0])


def test_the_soft_cap_matters_where_there_is_one(models) -> None:
    model = models("gemma2")
    hidden = models_module.decoder_body(model)(torch.arange(1, 9)[None]).last_hidden_state[0]
    assert logits_at(model, hidden).abs().max() <= 1.5 < models_module.unembedding(model)(hidden).abs().max()


def test_logits_are_float32_and_do_not_depend_on_slices(monkeypatch) -> None:
    model = make_model("qwen2").to(torch.bfloat16)
    hidden = torch.randn(5, 32, dtype=torch.bfloat16)
    exact = hidden.double() @ models_module.unembedding(model).weight.double().T
    whole = logits_at(model, hidden)
    monkeypatch.setattr(models_module, "_ROWS", 7)
    torch.testing.assert_close(logits_at(model, hidden), whole)
    assert whole.dtype == torch.float32
    assert (whole - exact).abs().max() < 1e-4 < (models_module.unembedding(model)(hidden) - exact).abs().max()


def test_layers_are_checked(models) -> None:
    model = models("qwen2")
    assert [check_layer(model, layer) for layer in (0, 2, -1, -3)] == [0, 2, 2, 0]
    for layer in (3, -4):
        with pytest.raises(UsageError, match=f"layer {layer} does not exist; valid are 0 to 2"):
            check_layer(model, layer)


def test_unknown_families_are_refused() -> None:
    model = make_model("qwen2")
    model.config.logit_scale = 0.5
    with pytest.raises(UsageError, match="logit_scale=0.5"):
        models_module.find_family(model)
    model.config.logit_scale = 1.0
    del model.model
    with pytest.raises(UsageError, match="no supported family"):
        models_module.find_family(model)


def test_the_text_of_a_model_with_an_image_tower() -> None:
    """Gemma 3 of 4 B and more: its decoder stands one level deeper."""
    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 48}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8}
    vision = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = CONFIG_MAPPING["gemma3"](
        text_config={"model_type": "gemma3_text", **sizes},
        vision_config={"model_type": "siglip_vision_model", **vision, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
    )
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    ids = torch.arange(2, 22)[None]
    with torch.inference_mode():
        expected = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        hidden = models_module.decoder_body(model)(
            input_ids=ids, attention_mask=torch.ones_like(ids)
        ).last_hidden_state
        torch.testing.assert_close(logits_at(model, hidden[0]), expected[0].float())
    assert models_module.n_layers(model) == 3 and models_module.attention_output(model, -1).out_features == 32
