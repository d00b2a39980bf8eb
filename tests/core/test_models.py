"""A model is opened as asked, its named parts are the right ones and exact, and no hook stays behind."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch
from conftest import ALL_FAMILIES, make_model, save_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from remi_core import models as models_module
from remi_core import sources
from remi_core.errors import RemiError, UsageError
from remi_core.files import read_sealed, write_sealed
from remi_core.models import (
    check_layer,
    decoder_blocks,
    final_norm,
    hidden_of,
    linear_in_float32,
    logits_at,
    open_model,
    read_blocks,
)
from remi_core.sources import local_folder, weight_fingerprint

IDS = torch.arange(1, 9)[None]
GENERATOR = torch.Generator().manual_seed(0)
VALUES, WEIGHT = (torch.randn(n, 48, generator=GENERATOR).bfloat16() for n in (5, 33))


@pytest.fixture
def folder(tmp_path, tokenizer) -> Path:
    place = tmp_path / "tiny"
    make_model("llama").to(torch.bfloat16).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def test_opened_as_asked_and_freed_after_an_exception_too(folder) -> None:
    with pytest.raises(KeyError), open_model(folder) as loaded:
        model = loaded.model
        assert not model.training and not any(one.requires_grad for one in model.parameters())
        # The checkpoint is bfloat16: its dtype is not taken over unasked.
        assert {one.dtype for one in model.parameters()} == {torch.float32}
        assert loaded.fingerprint == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        assert loaded.tokenizer.chat_template
        raise KeyError("x")
    assert {one.device.type for one in model.parameters()} == {"meta"}
    with open_model(str(folder), dtype="bfloat16", device="cpu") as loaded:
        assert {one.dtype for one in loaded.model.parameters()} == {torch.bfloat16}
    assert {one.device.type for one in loaded.model.parameters()} == {"meta"}


def test_fingerprints_follow_the_weights_only_and_missing_weights_are_not_made_up(folder) -> None:
    before = weight_fingerprint(folder)
    (folder / "README.md").write_text("a card")
    assert weight_fingerprint(folder) == before
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.self_attn.o_proj.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert weight_fingerprint(folder) != before
    message = "missing_keys model.layers.1.self_attn.o_proj.weight"
    with pytest.raises(RemiError, match=message), open_model(folder):
        pass


def test_a_kept_fingerprint_is_served_until_a_file_changes_in_any_way(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("REMI_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(sources, "REMEMBERED_FROM", 1)
    monkeypatch.setattr(sources, "_SETTLED", -1)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    true = weight_fingerprint(tmp_path)
    (kept,) = (tmp_path / "store").rglob("*.json")
    about = read_sealed(kept)
    assert about["sha256"] == true
    write_sealed(kept, {**about, "sha256": "served"})
    sources._digest.cache_clear()  # as in the next process
    assert weight_fingerprint(tmp_path) == "served"
    # Same path, size and time of writing, as a tool that restores times leaves it.
    times = weights.stat()
    weights.write_bytes(b"two")
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert weight_fingerprint(tmp_path) == hashlib.sha256(b"two").hexdigest()
    # What has just been written may be written again within the clock's grain: nothing is kept of it.
    monkeypatch.setattr(sources, "_SETTLED", 5)
    kept.unlink()
    sources._digest.cache_clear()
    assert weight_fingerprint(tmp_path) == hashlib.sha256(b"two").hexdigest()
    assert not kept.exists()


def test_beside_an_index_only_what_is_read_counts(tmp_path) -> None:
    folder = save_model(tmp_path / "one", "llama")
    whole = load_file(folder / "model.safetensors")
    before = weight_fingerprint(folder)
    make_model("llama").save_pretrained(folder, max_shard_size="40KB")
    (folder / "model.safetensors").unlink()
    shards = weight_fingerprint(folder)
    paths = sorted(folder.glob("*.safetensors"))
    assert len(paths) > 2 and shards != before
    assert shards == hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
    stray = {"model.norm.weight": torch.zeros(32)}
    save_file(stray, folder / "consolidated.safetensors", {"format": "pt"})
    assert weight_fingerprint(folder) == shards, "a stray file is read by nobody"
    with open_model(folder) as loaded:
        assert torch.equal(loaded.model.model.norm.weight, whole["model.norm.weight"])
    # One whole file is looked for before an index, so it alone counts.
    save_file(whole, folder / "model.safetensors", {"format": "pt"})
    assert weight_fingerprint(folder) == before
    (folder / "model.safetensors").unlink()
    paths[1].unlink()
    for change in (None, "[]", '{"weight_map": 3}', "{"):
        if change:
            (folder / "model.safetensors.index.json").write_text(change)
        with pytest.raises(UsageError, match="safetensors.index.json") as caught, open_model(folder):
            pass
        assert "\n" not in str(caught.value)


def test_a_head_that_is_missing_is_not_made_up(tmp_path) -> None:
    folder = save_model(tmp_path / "one", "llama")
    weights = load_file(folder / "model.safetensors")
    weights.pop("lm_head.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with (
        pytest.raises(RemiError, match="do not fill the model: missing_keys lm_head.weight"),
        open_model(folder),
    ):
        pass


def test_wrong_sources(folder, tmp_path) -> None:
    missing = (tmp_path / "none", f"{tmp_path}/none", "./none", "a/b/c")
    for source, options, message in (
        *((place, {}, "no such folder") for place in missing),
        (tmp_path, {}, r"not a model folder; it needs config.json and \*.safetensors"),
        (folder, {"dtype": "float3"}, "unknown dtype 'float3' .*'float32'"),
        (folder, {"device": "abacus"}, "unknown device"),
        ("Nobody-Here/no-model", {}, "Nobody-Here/no-model.*cannot be had, looked in .*give its folder"),
    ):
        with pytest.raises((UsageError, RemiError), match=message) as caught, open_model(source, **options):
            pass
        assert "\n" not in str(caught.value)
    assert local_folder("Some/Model") is None


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_parts_are_the_ones_the_model_uses(family, models) -> None:
    model, calls = models(family), list[str]()
    watched = {
        "norm": final_norm(model),
        "block": decoder_blocks(model)[-1],
        "attention": models_module.attention_output(model, -1),
        "head": models_module.unembedding(model),
    }
    hooks = [
        part.register_forward_hook(lambda *_, name=name: calls.append(name)) for name, part in watched.items()
    ]
    logits = model(IDS).logits
    for hook in hooks:
        hook.remove()
    assert calls == ["attention", "block", "norm", "head"] and models_module.n_layers(model) == 3
    hidden = models_module.decoder_body(model)(IDS).last_hidden_state
    torch.testing.assert_close(logits_at(model, hidden[0]), logits[0])


def test_logits_are_float32_and_do_not_depend_on_slices(models, monkeypatch) -> None:
    model = make_model("qwen2").to(torch.bfloat16)
    hidden, head = torch.randn(5, 32, dtype=torch.bfloat16), models_module.unembedding(model)
    exact = hidden.double() @ head.weight.double().T
    whole = logits_at(model, hidden)
    monkeypatch.setattr(models_module, "_ROWS", 7)
    torch.testing.assert_close(logits_at(model, hidden), whole)
    assert whole.dtype == torch.float32
    assert (whole - exact).abs().max() < 1e-4 < (head(hidden) - exact).abs().max()
    # Where logits are capped softly, the cap matters.
    hidden, head = 9 * torch.randn(5, 32), models_module.unembedding(models("gemma2"))
    assert logits_at(models("gemma2"), hidden).abs().max() <= 1.5 < head(hidden).abs().max()


def test_unknown_layers_and_families_are_refused() -> None:
    model = make_model("qwen2")
    assert [check_layer(model, layer) for layer in (0, 2, -1, -3)] == [0, 2, 2, 0]
    for layer in (3, -4):
        with pytest.raises(UsageError, match=f"layer {layer} does not exist; valid are 0 to 2"):
            check_layer(model, layer)
    # Behind an encoder stands more than a norm.
    bert = AutoModelForCausalLM.from_config(
        CONFIG_MAPPING["bert"](
            vocab_size=9,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            is_decoder=True,
        )
    ).eval()
    with pytest.raises(
        UsageError, match="BertLMHeadModel is not supported: its unembedding reads no decoder's"
    ):
        models_module.find_family(bert)


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
    given = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    with torch.inference_mode():
        hidden = models_module.decoder_body(model)(**given).last_hidden_state
        torch.testing.assert_close(logits_at(model, hidden[0]), model(**given).logits[0].float())
    assert models_module.n_layers(model) == 3 and models_module.attention_output(model, -1).out_features == 32


def test_nothing_is_rounded_but_the_sum_and_a_trained_weight_has_its_gradient() -> None:
    exact = VALUES.double() @ WEIGHT.double().T
    for values in (VALUES, VALUES.float()):
        found = linear_in_float32(values, WEIGHT)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    half = (VALUES @ WEIGHT.T).double()
    assert not torch.allclose(half, exact, rtol=1e-5, atol=1e-5), "half precision rounds"
    weight = WEIGHT.clone().requires_grad_(True)
    linear_in_float32(VALUES, weight).sum().backward()
    torch.testing.assert_close(weight.grad, VALUES.sum(0).expand_as(weight), rtol=2**-6, atol=2**-6)


@pytest.mark.parametrize("rows", [7, 1000])
def test_the_gradient_is_that_of_float32_up_to_rounding(rows, monkeypatch) -> None:
    monkeypatch.setattr(models_module, "_ROWS", rows)
    own, raised = (one.clone().requires_grad_(True) for one in (VALUES, VALUES.float()))
    for one in (own, raised):
        wanted = torch.tensor([3, 0, 32, 8, 8])
        torch.nn.functional.cross_entropy(linear_in_float32(one, WEIGHT), wanted).backward()
    assert own.grad.dtype == torch.bfloat16
    assert (own.grad.float() - raised.grad).abs().max() < 2**-7 * raised.grad.abs().max()


def test_a_nearly_certain_prediction_keeps_its_gradient() -> None:
    # 1 − p is far below the spacing of bfloat16 at 1: rounding p instead of p − 1 would leave nothing.
    values = torch.tensor([[1.0]]).bfloat16().requires_grad_(True)
    weight = torch.tensor([[8.0], [0.0]]).bfloat16()
    torch.nn.functional.cross_entropy(linear_in_float32(values, weight), torch.tensor([0])).backward()
    expected = -8 * (1 - torch.sigmoid(torch.tensor(8.0)))
    torch.testing.assert_close(values.grad.float()[0, 0], expected, rtol=1e-2, atol=0)


def hook_count(model: PreTrainedModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_edit_is_seen_whenever_it_was_registered(when, models) -> None:
    model, naive = models("qwen2"), dict[str, Tensor]()
    block = decoder_blocks(model)[1]
    with read_blocks(model, [1]) as plain:
        model(IDS)
    edit, register = lambda _m, _i, output: hidden_of(output) + 1.0, block.register_forward_hook  # noqa: E731
    handles = [register(edit)] if when == "before" else []
    handles.append(register(lambda _m, _i, output: naive.update(block=hidden_of(output))))
    with read_blocks(model, [1]) as edited:
        if when == "after":
            handles.append(register(edit))
        model(IDS)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(edited[1], plain[1] + 1.0)
    # The failing twin: a reader in the order of registration misses an edit registered after it.
    assert torch.equal(naive["block"], edited[1]) == (when == "before")


def test_layers_are_named_as_asked_and_hooks_are_gone_after_an_exception(models) -> None:
    model = models("llama")
    before, last_token = hook_count(model), lambda hidden: hidden[:, -1]
    with read_blocks(model, [2, -1, 0], select=last_token) as last, read_blocks(model, [2]) as whole:
        model(IDS)
    assert set(last) == {2, -1, 0} and torch.equal(hidden_of((IDS, None)), hidden_of(IDS))
    assert torch.equal(last[2], last[-1]) and torch.equal(last[2], whole[2][:, -1])
    assert not torch.equal(last[0], last[2])
    with pytest.raises(RuntimeError, match="planned"), read_blocks(model, [0, -1]):
        model(IDS)
        assert hook_count(model) == before + 4
        raise RuntimeError("planned")
    with pytest.raises(UsageError, match="layer 7 does not exist"), read_blocks(model, [0, 7]):
        pass
    assert hook_count(model) == before
