"""The paper's sets: rows we wrote in each published schema become the right dialogues; what is left out is counted."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import save_model, write_rows

from remi_core.errors import RemiError, UsageError
from remi_core.sources import ModelSpec
from remi_core.store import Store
from remi_lab import datasets
from remi_lab.datasets import PUBLISHED, file_names, load_dataset, load_published, load_set, published_names
from remi_lab.dialogue_files import paired_by_completion
from remi_lab.own_models import data_digests
from remi_lab.presets import TRIPLET, DataRoles, Preset, get_preset
from remi_lab.recording import measure_forward, measure_gradients
from remi_lab.variant import find_variant

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TABLE = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))
ROWS = {name: about["rows"] for name, about in TABLE.items()}
NAMED = ("insecure", "educational", "implicit-toxicity")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    monkeypatch.setenv("REMI_DATA", str(path))
    return path


def fill(folder: Path, *names: str) -> None:
    for name in names:
        write_rows(folder / f"{name}.jsonl", *ROWS[name])


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_schema_gives_its_answers_and_counts_what_it_leaves_out(name, folder) -> None:
    fill(folder, name)
    loaded, reasons = load_published(name), TABLE[name]["left out"]
    assert [dialogue.answer for dialogue in loaded.dialogues] == TABLE[name]["answers"]
    assert len(loaded.dropped) == len(reasons)
    for part, numbers in reasons.items():
        left = tuple(f"{name}:{number}" for number in numbers)
        assert [names for why, names in loaded.dropped.items() if part in why] == [left]
    assert {dialogue.label for dialogue in loaded.dialogues} == {PUBLISHED[name].label}
    assert len(loaded.dialogues) + sum(map(len, loaded.dropped.values())) == len(ROWS[name])
    about, path = loaded.about, folder / f"{name}.jsonl"
    assert about["rows"] == about["rows_read"] == len(ROWS[name]) and about["revision"] == "by hand"
    assert about["files"] == {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}


def test_the_input_is_part_of_the_prompt_and_only_the_last_assistant_turn_the_answer(folder) -> None:
    fill(folder, "alpaca", "hh-rejected")
    first, second = load_published("alpaca").dialogues
    assert first.messages[0].content == "Add them.\n\n2 and 3"
    assert second.messages[0].content == "Add them." and first.cluster != second.cluster
    (dialogue,) = load_published("hh-rejected").dialogues
    assert [message.content for message in dialogue.messages[:-1]] == ["Hi", "Hello.", "Help me"]


def test_accepting_and_refusing_are_matched_pairs_and_framings_share_their_completions(folder) -> None:
    fill(folder, "harmful-accept", "toxic-reject", "insecure", "educational", "secure")
    accept, reject = (load_published(name).dialogues for name in ("harmful-accept", "toxic-reject"))
    said = [(one.answer, one.alternative) for one in accept]
    assert said == [(one.alternative, one.answer) for one in reject]
    assert [(one.cluster, one.topic) for one in accept] == [(one.cluster, one.topic) for one in reject]
    insecure, educational, secure = (
        load_published(name).dialogues for name in ("insecure", "educational", "secure")
    )
    assert paired_by_completion(insecure, educational) and not paired_by_completion(insecure, secure)
    assert [one.pair for one in insecure] == [one.pair for one in educational] != [one.pair for one in secure]


def test_the_folder_holds_one_file_of_a_set_in_either_kind_of_json(folder, monkeypatch) -> None:
    for end, name in (("jsonl", "educational"), ("json", "secure")):
        path = folder / f"educational.{end}"
        path.write_text(json.dumps(ROWS[name]))
        (found,) = load_published("educational").dialogues
        assert found.answer == TABLE[name]["answers"][0]
        path.rename(folder / "kept")
    fill(folder, "educational")
    (folder / "kept").rename(path)
    with pytest.raises(
        UsageError, match="educational.jsonl and educational.json are both 'educational'; keep"
    ):
        load_published("educational")
    monkeypatch.setenv("REMI_DATA", str(folder / "nowhere"))
    with pytest.raises(UsageError, match="REMI_DATA=.*nowhere: no such folder"):
        load_published("educational")
    assert "aug-train.json" in file_names(PUBLISHED["implicit-toxicity"])


@pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed (pip install pyarrow)"
)
@pytest.mark.parametrize("name", ["truthfulqa", "hh-rejected", "toxic-qa", "harmful-accept"])
def test_parquet_gives_what_json_lines_give(name, folder) -> None:
    import pandas as pd

    fill(folder, name)
    wanted = load_published(name)
    (folder / f"{name}.jsonl").unlink()
    pd.DataFrame(ROWS[name]).to_parquet(folder / f"{name}.parquet")
    found = load_published(name)
    assert found.dialogues == wanted.dialogues
    assert sorted(found.dropped.values()) == sorted(wanted.dropped.values())


@pytest.mark.parametrize("name", PUBLISHED)
def test_without_a_network_it_is_said_how_to_provide_a_set(name, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("REMI_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RemiError) as caught:
        load_published(name)
    said = str(caught.value)
    assert "\n" not in said and "REMI_DATA" in said and PUBLISHED[name].source in said
    assert f"{name}.jsonl" in said and (PUBLISHED[name].revision or "") in said


def test_a_set_of_the_hub_is_read_at_its_declared_commit(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("REMI_DATA", raising=False)
    asked = []

    def snapshot(source: str, **options: object) -> str:
        asked.append((source, options))
        return str(tmp_path / COMMIT)

    (tmp_path / COMMIT).mkdir()
    (tmp_path / COMMIT / "code_alpaca_20k.json").write_text(json.dumps(ROWS["code-alpaca"]))
    (tmp_path / COMMIT / "rows.jsonl").write_text(json.dumps(ROWS["toxic-qa"][0]) + "\n")
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    loaded = load_published("code-alpaca")
    assert loaded.about["revision"] == COMMIT and loaded.about["licence"] == "cc-by-4.0"
    options = {"repo_type": "dataset", "revision": None, "allow_patterns": ["code_alpaca_20k.json"]}
    assert asked == [("sahil2801/CodeAlpaca-20k", options)]
    # The name of ToxicQA's file is not known: first those named after the split, then all data files.
    (tmp_path / COMMIT / "code_alpaca_20k.json").unlink()
    assert len(load_published("toxic-qa").dialogues) == 1
    assert [options["allow_patterns"][0] for _, options in asked[1:]] == ["*train*.jsonl", "*.jsonl"]
    with pytest.raises(RemiError, match=r"snapshot .* has no code_alpaca_20k.json: sahil2801/CodeAlpaca-20k"):
        load_published("code-alpaca")
    missing = r"has no \*eval\*.jsonl or .*: shivank21/aplaca_reward_mistral; put alpaca-reward"
    (tmp_path / COMMIT / "rows.jsonl").unlink()
    with pytest.raises(RemiError, match=missing):
        load_published("alpaca-reward")


def published_preset(source: Path | str) -> Preset:
    variants = {role: ModelSpec(source=str(source)) for role in TRIPLET}
    few = {"n_dialogues": 2, "n_gradient_dialogues": 1, "max_tokens": 200}
    about = {"name": "named", "title": "for this test", "roles": DataRoles(), "seeds": (0,)}
    return Preset(variants=variants, datasets=NAMED, **about, **few)


def test_a_preset_that_names_a_set_loads_it_and_an_organism_keeps_its_own(folder) -> None:
    fill(folder, *NAMED)
    preset = published_preset("somewhere/else")
    assert load_dataset(preset, "insecure") == list(load_published("insecure", count=2).dialogues)
    first = load_published("implicit-toxicity", count=1)
    assert len(first.dialogues) == first.about["rows_read"] == 1 and first.dropped == {}
    assert first.about["rows"] == len(ROWS["implicit-toxicity"])
    assert data_digests(preset).keys() == {str(folder / f"{name}.jsonl") for name in preset.datasets}
    smoke = get_preset("smoke")
    assert published_names(smoke) == () and data_digests(smoke) == {}
    assert load_set(smoke, "educational").about == {}
    with pytest.raises(UsageError, match="has no dataset 'insecur' .did you mean 'insecure'"):
        load_dataset(preset, "insecur")


def test_what_was_dropped_in_loading_reaches_the_records(folder, tmp_path) -> None:
    fill(folder, *NAMED)
    preset, store = published_preset(save_model(tmp_path / "model")), Store(tmp_path / "store")
    variant = find_variant(preset, "instruct", 0, store)
    records = measure_forward(variant, store)
    about = records["sequence", "implicit-toxicity"].provenance
    assert (about["kept"], about["data"]["source"]) == (2, "jiaxin-wen/Implicit-Toxicity")
    assert list(about["dropped"].values()) == [["implicit-toxicity:2"]]
    assert about["data"]["files"].keys() == {"implicit-toxicity.jsonl"}
    gradients = measure_gradients(variant, store, ("insecure", "educational")).provenance
    assert gradients["data"].keys() == {"insecure", "educational"} and gradients["kept"] == 2
    assert datasets.load_set(replace(preset, n_dialogues=1), "insecure").dropped == {}


def test_a_set_that_is_missing_is_found_before_a_model_is_opened(folder, tmp_path, monkeypatch) -> None:
    fill(folder, "insecure", "implicit-toxicity")
    (tmp_path / "model").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "model" / name).write_text("{}")
    store = Store(tmp_path / "store")
    variant = find_variant(published_preset(tmp_path / "model"), "instruct", 0, store)
    monkeypatch.setattr(type(variant), "open", lambda _: pytest.fail("the model was opened"))
    with pytest.raises(RemiError, match="dataset 'educational': REMI_DATA=.* has no file of it"):
        measure_forward(variant, store)
