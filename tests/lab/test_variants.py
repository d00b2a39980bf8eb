"""Keys follow the weights, and a model spread over memory and disk is measured as one in memory."""

from __future__ import annotations

import json
import runpy
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TEMPLATES, make_model, make_tokenizer, save_model
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from test_adapters import save_adapter

from remi_core import placement
from remi_core.errors import RemiError, UsageError
from remi_core.forward import run_probes
from remi_core.gradients import measure_gradient_gram
from remi_core.models import LoadedModel, open_model
from remi_core.patching import PatchSet, head_alone, patch, record_outputs
from remi_core.probes import Activations, NextToken, TokenLogProbs
from remi_core.sources import INDEX_FILE, ModelSpec
from remi_core.steering import written_tokens
from remi_core.store import Store
from remi_core.tokens import EncodedDialogue
from remi_lab.demands import check_layers
from remi_lab.keys import SOURCE_ROOT
from remi_lab.passes import bare_tokens, measure_position_norms
from remi_lab.presets import DataRoles, Preset, get_preset
from remi_lab.recording import measure_forward, measure_gradients
from remi_lab.variant import (
    Variant,
    describe_placement,
    find_variant,
    resolve_commit,
    resolved,
    same_weights,
    weights_of,
)

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of the hub that holds two commits of Some/Model, the branch main at the first."""
    place = tmp_path / "hub" / "models--Some--Model"
    for commit in (OLD, NEW):
        (place / "snapshots" / commit).mkdir(parents=True)
        (place / "snapshots" / commit / "config.json").write_text("{}")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(OLD)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    resolve_commit.cache_clear()
    yield place
    resolve_commit.cache_clear()


def test_an_unpinned_id_is_the_commit_its_branch_stands_for(cache) -> None:
    spec = ModelSpec(source="Some/Model")
    assert weights_of(spec) == f"Some/Model@{OLD}" and resolved(spec).revision == OLD
    (cache / "refs" / "main").write_text(NEW)
    assert weights_of(spec) == f"Some/Model@{OLD}", "asked once a process"
    resolve_commit.cache_clear()
    assert weights_of(spec) == f"Some/Model@{NEW}"
    assert weights_of(replace(spec, revision=OLD)) == f"Some/Model@{OLD}", "a pin does not move"
    with pytest.raises(RemiError, match="Some/Model at revision other: cannot be had, looked in .*hub"):
        weights_of(replace(spec, revision="other"))


def test_adapter_scale_and_quantisation_are_part_of_the_weights(tmp_path) -> None:
    make_model("qwen2").save_pretrained(tmp_path / "base")
    adapter = save_adapter(tmp_path / "base", tmp_path / "adapter")
    shutil.copytree(adapter, tmp_path / "scaled")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (tmp_path / "scaled" / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 99}))
    plain = ModelSpec(source=str(tmp_path / "base"))
    quantised = replace(plain, quantization=(("load_in_4bit", True),))
    adapted, scaled = (replace(plain, adapter=str(tmp_path / name)) for name in ("adapter", "scaled"))
    found = [weights_of(one) for one in (plain, adapted, scaled, quantised)]
    assert len(set(found)) == 4
    assert 'quantised {"load_in_4bit": true}' in found[-1]
    variant = Variant(get_preset("smoke"), "base", 0, quantised, plain, "weights")
    said = variant.provenance(1, 0.0)["quantization"]
    assert said["fields"] == {"load_in_4bit": True} and "never run" in said["note"]


def test_an_adapter_is_for_a_base_of_another_name_that_holds_the_same_tensors(cache, tmp_path) -> None:
    base = save_model(tmp_path / "mine")
    adapter = save_adapter(base, tmp_path / "adapter", named="Some/Model")
    spec = ModelSpec(source=str(base), adapter=str(adapter))
    there, weights = cache / "snapshots" / OLD, load_file(base / "model.safetensors")
    assert not resolved(spec).same_base, "the repository was fetched without weights"
    (there / INDEX_FILE).write_text('{"weight_map": {"lm_head.weight": "model-1.safetensors"}}')
    assert not resolved(spec).same_base, "or in part"
    names = sorted(weights)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    (there / INDEX_FILE).write_text(json.dumps(index))
    for file, part in halves.items():
        save_file({name: weights[name] for name in part}, there / file, {"from": "somebody else"})
    found = resolved(spec)
    assert found == replace(spec, same_base=True) and weights_of(found) == weights_of(spec)
    with open_model(found):
        pass
    variant = Variant(get_preset("smoke"), "base", 0, found, found, "weights")
    assert "made on Some/Model" in variant.provenance(1, 0.0)["adapter"]
    save_file({"x": torch.zeros(2)}, there / "model-2.safetensors")
    assert not resolved(spec).same_base
    with (
        pytest.raises(UsageError, match="belongs to Some/Model, not to .*mine; .*--same-base"),
        open_model(spec),
    ):
        pass


def test_tensors_are_the_same_in_other_files_and_not_by_one_bit(folder, tmp_path) -> None:
    weights = load_file(folder / "model.safetensors")
    copies = {name: tmp_path / name for name in ("told", "moved", "cast", "renamed", "broken")}
    for place in copies.values():
        shutil.copytree(folder, place)
    save_file(weights, copies["told"] / "model.safetensors", {"format": "pt", "by": "another"})
    last = max(weights, key=lambda name: weights[name].numel())
    moved = weights | {last: weights[last].clone()}
    moved[last].view(-1)[-1] += 2**-20
    save_file(moved, copies["moved"] / "model.safetensors")
    halves = {name: value.bfloat16() for name, value in weights.items()}
    save_file(halves, copies["cast"] / "model.safetensors")
    save_file(
        {f"a.{name}": value for name, value in weights.items()}, copies["renamed"] / "model.safetensors"
    )
    (copies["broken"] / "model.safetensors").write_bytes(b"0" * 99)
    assert {name for name, place in copies.items() if same_weights(folder, place)} == {"told"}


def tiny_preset(folder: Path) -> Preset:
    """Three models whose own templates differ, measured on two of our own sets."""
    templates = {"base": "chatml-default", "instruct": "chatml", "misaligned": "plain"}
    for seed, (name, template) in enumerate(templates.items()):
        save_model(folder / name, template=template, seed=seed)
    variants = {name: ModelSpec(source=str(folder / name)) for name in templates}
    sets = ("code-careless", "code-careful")
    roles = DataRoles(narrow=sets[0], narrow_aligned=sets[1])
    few = {"n_dialogues": 3, "n_gradient_dialogues": 2}
    return Preset(name="tiny", title="", variants=variants, seeds=(0,), datasets=sets, roles=roles, **few)


def test_one_tokenizer_and_template_for_all_variants(tmp_path) -> None:
    preset, store, tokens = tiny_preset(tmp_path), Store(tmp_path / "store"), []
    for name in preset.variants:
        variant = find_variant(preset, name, 0, store)
        assert variant.tokenizer().chat_template == TEMPLATES["chatml"]
        record = measure_forward(variant, store, datasets=("code-careless",))["sequence", "code-careless"]
        tokens.append(record.arrays["token"].tolist())
        assert record.provenance["weights"] == variant.weights and record.provenance["device"] == "cpu"
    assert tokens[0] == tokens[1] == tokens[2]
    before = find_variant(preset, "base", 0, store).weights
    make_tokenizer("plain").save_pretrained(tmp_path / "instruct")
    # The template of instruct is part of base's key.
    assert find_variant(preset, "base", 0, store).weights != before


def test_other_vocabularies_are_refused(tmp_path) -> None:
    preset, store = tiny_preset(tmp_path), Store(tmp_path / "store")
    make_model("qwen2", n_vocab=64, seed=0).save_pretrained(tmp_path / "base")
    message = r"3 of 3 dialogues hold tokens for which Qwen2ForCausalLM has no embedding \(it has 64\)"
    with pytest.raises(UsageError, match=message):
        measure_forward(find_variant(preset, "base", 0, store), store)
    path = tmp_path / "misaligned" / "tokenizer.json"
    settings = json.loads(path.read_text())
    vocabulary = settings["model"]["vocab"]
    first, second = list(vocabulary)[20:22]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(settings))
    with pytest.raises(UsageError, match="misaligned and .*instruct do not share their vocabulary.*2 tokens"):
        measure_gradients(find_variant(preset, "misaligned", 0, store), store, preset.datasets)
    assert store.list() == ()


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("gemma3n_text", "where one residual stream has"),
        ("nemotron_h", "in layer 3 .* it has norm .*, mixer"),
        ("phi", ""),
    ],
)
def test_what_a_family_has_not_is_refused_by_its_configuration(family, message, tmp_path) -> None:
    """No weights are there: the layer of the gradients is an MLP in the second family, an attention in the third."""
    tiny = runpy.run_path(str(SOURCE_ROOT / "scripts" / "families.py"))["tiny"]
    preset = tiny_preset(tmp_path)
    shutil.rmtree(tmp_path / "instruct")
    tiny(family).config.save_pretrained(tmp_path / "instruct")
    with pytest.raises(UsageError, match=message) if message else nullcontext():
        check_layers(preset, {})


ON_DISK = dict.fromkeys(
    ["model.embed_tokens", "model.norm", "lm_head", "model.layers.1", "model.layers.2"], "disk"
)
ON_DISK |= dict.fromkeys(["model.rotary_emb", "model.layers.0"], "cpu")


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def folder(request, tmp_path_factory) -> Path:
    """Unembedding of its own, and tied to the embedding."""
    return save_model(tmp_path_factory.mktemp("models") / request.param, request.param)


def everything(
    loaded: LoadedModel, encoded: tuple[EncodedDialogue, ...], place: Path
) -> dict[str, np.ndarray]:
    """Every measurement that reads weights, in one dictionary; the last puts the model's own outputs back in it."""
    model = loaded.model
    probes = [TokenLogProbs(), NextToken(5), Activations(range(3))]
    found = run_probes(model, encoded, probes, batch_tokens=64)
    for layer in (-1, 0):
        found[f"gram {layer}"] = measure_gradient_gram(model, encoded, weight=layer, batch_tokens=64)
    found["norms"] = measure_position_norms(loaded, encoded, batch_tokens=64)
    direction = np.random.default_rng(0).normal(size=(2, 3, 32)).astype(np.float32)
    found["written"] = vars(written_tokens(loaded, direction[0], direction[1], top_k=3))
    material = PatchSet(encoded, bare_tokens(encoded, loaded.tokenizer), 64)
    own = record_outputs(model, material, place)
    stitched = [own, *patch(model, material, place, [0, 2]), head_alone(model, material, place)]
    found["stitched"] = {"values": np.stack(stitched)}
    return {f"{name} {array}": value for name, arrays in found.items() for array, value in arrays.items()}


@pytest.mark.parametrize("with_adapter", [False, True])
def test_disk_changes_no_number(folder, encoded, with_adapter, tmp_path) -> None:
    adapter = str(save_adapter(folder, tmp_path / "adapter")) if with_adapter else None
    spec = ModelSpec(source=str(folder), adapter=adapter)
    with open_model(spec, device="cpu") as loaded:
        whole = everything(loaded, encoded, tmp_path)
    with open_model(spec, device=ON_DISK) as loaded:
        assert loaded.model.lm_head.weight.device.type == "meta"
        assert placement.input_device(loaded.model) == torch.device("cpu")
        assert "disk: " in describe_placement(loaded.model)
        spread = everything(loaded, encoded, tmp_path)
        assert loaded.model.lm_head.weight.device.type == "meta", "put back after use"
    assert whole.keys() == spread.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(values, spread[name], err_msg=name)
    assert {one.device.type for one in loaded.model.parameters()} == {"meta"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_does_not_fit_is_spread_and_what_is_small_stays_on_the_processor(monkeypatch, dtype) -> None:
    config = make_model("qwen2").config
    weights, on_card = placement.weight_bytes(config, dtype), {"device_map": {"": torch.device("cuda:0")}}
    room = weights + weights // 10 + placement.SPARE

    def plan(**free: int) -> dict:
        places = {int(name[1:]) if name != "cpu" else name: size for name, size in free.items()}
        monkeypatch.setattr(placement, "free_bytes", lambda: places)
        return placement.plan_placement(config, dtype, "auto")

    assert weights < placement.SMALL and plan(c0=1 << 40, cpu=1 << 40) == {}
    assert placement.plan_placement(config, dtype, "cuda:0"), "a device that is named is taken"
    monkeypatch.setattr(placement, "SMALL", weights)
    assert plan(cpu=room) == {} and plan(c0=room, cpu=0) == on_card
    spread = plan(c0=room - 1, c1=10 * room, cpu=0)
    assert spread["device_map"] == "auto" and list(spread["max_memory"]) == [0, 1, "cpu"]
    assert spread["max_memory"]["cpu"] == 0 < spread["max_memory"][1] < 10 * room
