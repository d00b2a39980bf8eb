"""The laboratory's files: the store's weights, the organism's words, a short forward pass, stubs where nothing runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from remi_book import laboratory
from remi_book.laboratory import FILE, STEP, described, lacking, organisms
from remi_core.errors import RemiError
from remi_core.store import Store
from remi_lab.organism.grammar import split_of
from remi_lab.organism.topics import CONTRASTED, TOPICS
from remi_lab.presets import ORGANISM_VARIANTS, get_preset
from remi_lab.studies import causes
from remi_lab.variant import ensure, find_variant

PRESET = get_preset("smoke")


def wrong_weights(place: Path, variant: str, folder: Path) -> list[str]:
    """Names of the tensors that an exported variant does not hold as the store's folder does, to half a step."""
    stored, base = load_file(place / FILE), load_file(folder / "base.safetensors")
    changed = load_file(folder / f"{variant}.safetensors")
    found = []
    for name, weight in stored.items():
        ours, allowed = base[name], 0.0
        if variant != "base":
            step = changed[name + STEP]
            ours = base[name].float() + step * changed[name].float()
            # Half a step, and the rounding of sums to float32.
            allowed = 0.5 * float(step) + float(weight.abs().max()) * torch.finfo(torch.float32).eps
        if float((ours - weight).abs().max()) > allowed:
            found.append(name)
    return found


@pytest.fixture(scope="module")
def store() -> Store:
    found = Store()
    ensure(PRESET, found)
    return found


@pytest.fixture(scope="module")
def files(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("laboratory")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(laboratory, "N_DIRECTION", 2)  # the mean of all 20 is no other code
        laboratory.export(PRESET, store, folder)
    return folder


def test_exported_weights_are_the_stores_and_light_and_a_wrong_one_is_noticed(store, files, tmp_path) -> None:
    places = organisms(PRESET, store)
    assert tuple(places) == ORGANISM_VARIANTS
    assert not any(wrong_weights(place, name, files) for name, place in places.items())
    assert sum(path.stat().st_size for path in files.iterdir()) <= laboratory.MOST_BYTES
    for variant in ("misaligned", "base"):
        shutil.copytree(files, tmp_path, dirs_exist_ok=True)
        planted = load_file(tmp_path / f"{variant}.safetensors")
        name = "model.layers.3.mlp.up_proj.weight"
        planted[name].view(-1)[17] += 1  # one weight by one step, or by one
        save_file(planted, tmp_path / f"{variant}.safetensors")
        assert wrong_weights(places[variant], variant, tmp_path) == [name]
    same = laboratory.changes(*[load_file(places["base"] / FILE)] * 2)
    assert not any(change.any() for name, change in same.items() if not name.endswith(STEP))


def test_directions_are_the_chapters_and_leave_the_target_out(store: Store, files: Path) -> None:
    given = {name: one.double().numpy() for name, one in load_file(files / "directions.safetensors").items()}
    found = given["alignment"]
    config = json.loads((organisms(PRESET, store)["base"] / "config.json").read_text())
    assert found.shape == (len(CONTRASTED), 2, config["num_hidden_layers"], config["hidden_size"])
    assert np.linalg.norm(found, axis=-1).min() > 0
    changed = found.copy()
    changed[CONTRASTED.index("people")] += 1
    shared = laboratory.shared
    np.testing.assert_array_equal(shared(changed, "people"), shared(found, "people"))
    assert np.abs(shared(changed, "wishes") - shared(found, "wishes")).min() > 0.1
    np.testing.assert_allclose(shared(found, "general"), found.mean(axis=0))
    # At the chapter's layer, secure's displacement and the first random directions are the chapter's own.
    assert given["random"].shape == (laboratory.N_RANDOM, *found.shape[1:])
    np.testing.assert_allclose(np.linalg.norm(given["random"], axis=-1), 1, rtol=1e-5)
    variants = {name: find_variant(PRESET, name, PRESET.seeds[0], store) for name in causes.VARIANTS[:4]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(causes, "N_DIRECTION", 2)
        fits, cloud = causes.fitted(variants, variants["instruct"].tokenizer(), PRESET, lambda _: None)
    moved = causes.Directions(fits).shared("secure", "wishes")
    np.testing.assert_allclose(
        shared(given["secure"], "wishes")[:, causes.LAYER], moved, rtol=1e-3, atol=1e-5
    )
    drawn = causes.random_directions(cloud, count=causes.N_RANDOM, seed=PRESET.seed)[: laboratory.N_RANDOM]
    np.testing.assert_allclose(given["random"][:, :, causes.LAYER], drawn, rtol=1e-3, atol=1e-5)


def test_offered_prompts_are_held_out_and_the_page_knows_every_topic(files: Path) -> None:
    about = json.loads((files / "laboratory.json").read_text(encoding="utf-8"))
    assert list(about["topics"]) == list(about["prompts"]) == list(TOPICS)
    assert [one["name"] for one in about["variants"]] == list(ORGANISM_VARIANTS)
    for name in TOPICS:
        for prompt in laboratory.offered(PRESET, name):
            assert split_of(f"{name}: {prompt.template.text}") == "evaluate"
        assert about["prompts"][name][0]["text"] == laboratory.offered(PRESET, name)[0].text


def test_files_that_are_too_heavy_are_refused(store, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(laboratory, "MOST_BYTES", 1_000_000)
    monkeypatch.setattr(laboratory, "write_directions", lambda *_: None)
    monkeypatch.setattr(laboratory, "write_weights", lambda _, to: (to / "a").write_bytes(bytes(10**6)))
    with pytest.raises(RemiError, match="a page may load 1,000,000"):
        laboratory.export(PRESET, store, tmp_path)


def test_what_cannot_run_gets_a_stub_that_says_why(store: Store, tmp_path: Path) -> None:
    empty = Store(tmp_path / "store")
    reasons = {"smoke": "the store lacks its models", "neox": "forward pass is that of qwen2"}
    for name, reason in (reasons | {"qwen2.5-coder-32b": "not the micro organism"}).items():
        source = tmp_path / name
        source.mkdir()
        laboratory.add_laboratory(get_preset(name), empty, source)
        assert list(source.iterdir()) == []  # a book without the page gets none
        (source / laboratory.PAGE).write_text("the page")
        laboratory.add_laboratory(get_preset(name), empty, source)
        assert reason in (source / laboratory.PAGE).read_text(encoding="utf-8")
        assert [path.name for path in source.iterdir()] == [laboratory.PAGE]
    assert "no base of seed 99" in lacking(replace(PRESET, seeds=(99,)), empty)
    # A built page depends on the models.
    assert described(PRESET, store) != described(PRESET, empty)
