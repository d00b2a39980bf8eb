"""Keys follow the weights: the commit a hub's branch stands for, an adapter's bytes and scale, the quantisation."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TEMPLATES, make_model, make_tokenizer
from huggingface_hub import constants
from test_adapters import save_adapter

from remi_core.errors import RemiError, UsageError
from remi_core.sources import ModelSpec, resolve_commit
from remi_core.store import Store
from remi_lab.datasets import load_dataset
from remi_lab.presets import DataRoles, Preset, get_preset
from remi_lab.recording import measure_forward, measure_gradients
from remi_lab.variant import Variant, find_variant, resolved, weights_of

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
    plain = ModelSpec(source=str(tmp_path / "base"))
    adapted = replace(plain, adapter=str(adapter))
    quantised = replace(plain, quantization=(("load_in_4bit", True),))
    shutil.copytree(adapter, tmp_path / "scaled")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (tmp_path / "scaled" / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 99}))
    scaled = replace(plain, adapter=str(tmp_path / "scaled"))
    found = [weights_of(one) for one in (plain, adapted, scaled, quantised)]
    assert len(set(found)) == 4
    assert 'quantised {"load_in_4bit": true}' in found[-1]


def tiny_preset(folder: Path) -> Preset:
    """Three models whose own templates differ, measured on two of our own sets."""
    for seed, (name, template) in enumerate(
        (("base", "chatml-default"), ("instruct", "chatml"), ("misaligned", "plain"))
    ):
        make_model("qwen2", seed=seed).save_pretrained(folder / name)
        make_tokenizer(template).save_pretrained(folder / name)
    variants = {name: ModelSpec(source=str(folder / name)) for name in ("base", "instruct", "misaligned")}
    sets = ("code-careless", "code-careful")
    return Preset(
        name="tiny",
        title="",
        variants=variants,
        seeds=(0,),
        datasets=sets,
        roles=DataRoles(narrow=sets[0], narrow_aligned=sets[1]),
        n_dialogues=3,
        n_gradient_dialogues=2,
    )


def test_one_tokenizer_and_template_for_all_variants(tmp_path) -> None:
    preset, store = tiny_preset(tmp_path), Store(tmp_path / "store")
    tokens = []
    for name in preset.variants:
        variant = find_variant(preset, name, 0, store)
        assert variant.tokenizer().chat_template == TEMPLATES["chatml"]
        record = measure_forward(variant, store, datasets=("code-careless",))["sequence", "code-careless"]
        tokens.append(record.arrays["token"])
        assert record.provenance["weights"] == variant.weights and record.provenance["device"] == "cpu"
    for other in tokens[1:]:
        np.testing.assert_array_equal(tokens[0], other)
    before = find_variant(preset, "base", 0, store).weights
    make_tokenizer("plain").save_pretrained(tmp_path / "instruct")
    assert find_variant(preset, "base", 0, store).weights != before, (
        "instruct's template is part of base's key"
    )


def test_quantisation_is_named_and_marked() -> None:
    spec = ModelSpec(source="x", quantization=(("load_in_8bit", True),))
    variant = Variant(get_preset("smoke"), "base", 0, spec, ModelSpec(source="x"), "weights")
    said = variant.provenance(kept=1, dropped={}, seconds=0.0)["quantization"]
    assert said["fields"] == {"load_in_8bit": True} and "never run" in said["note"]


def test_other_vocabularies_are_refused(tmp_path) -> None:
    preset, store = tiny_preset(tmp_path), Store(tmp_path / "store")
    assert load_dataset(preset, "code-careless")
    make_model("qwen2", n_vocab=64, seed=0).save_pretrained(tmp_path / "base")
    with pytest.raises(
        UsageError, match=r"base has embeddings for 64 tokens, and the tokenizer of .*instruct"
    ):
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
