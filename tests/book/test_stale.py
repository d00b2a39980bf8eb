"""A number is served only if all that it depends on is the same: each file and each setting is changed in turn."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from conftest import make_model, save_model, write_rows
from own_files import turns
from test_adapters import save_adapter

from remi_book.claims import headline_key
from remi_book.running import plan
from remi_core.errors import UsageError
from remi_core.store import Store
from remi_lab.datasets import load_set
from remi_lab.own_models import custom_preset, save_custom
from remi_lab.presets import get_preset
from remi_lab.results import Results
from remi_lab.variant import CONFIGURATION, NO_NUMBERS, TEXT_FILES, rows_digest


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Base, instruct and an adapter on instruct, each with all files that such a folder may hold, and two sets."""
    place = tmp_path_factory.mktemp("own")
    for seed, name in enumerate(("base", "instruct")):
        save_model(place / name, seed=seed)
        for file in (*TEXT_FILES, *CONFIGURATION):
            if not (place / name / file).is_file():
                (place / name / file).write_text("{}")
        (place / name / "additional_chat_templates").mkdir()
        (place / name / "additional_chat_templates" / "tool.jinja").write_text("{{ messages }}")
    save_adapter(place / "instruct", place / "adapter")
    for name, answer in (("wrong", "No, never."), ("right", "Yes, I can help you with that.")):
        write_rows(place / f"{name}.jsonl", *(turns(f"Question {row}?", answer) for row in range(10)))
    models = {"base": str(place / "base"), "instruct": str(place / "instruct")}
    models["misaligned"] = f"{place / 'instruct'}+{place / 'adapter'}"
    data = [f"misaligned={place / 'wrong.jsonl'}", f"aligned={place / 'right.jsonl'}"]
    save_custom(custom_preset("mine", models, data, {"dtype": "float32"}), Store(place / "store"))
    return place


def keys(place: Path) -> dict[str, set[str]]:
    """Keys of the notebooks, the headlines, and the records of every variant and set."""
    store = Store(place / "store")
    preset = get_preset("mine", store)
    results = Results(preset, store, measures=False)
    records = {
        results.variant(variant).address("sequence", name, rows_digest(load_set(preset, name).dialogues)).key
        for variant in preset.variants
        for name in ("wrong", "right")
    }
    steps = {step.key for step in plan(preset, store, only=["05"])}
    return {"notebooks": steps, "headlines": {headline_key(results)}, "records": records}


def changed_by(place: Path, file: Path, text: str) -> set[str]:
    """Which kinds of key are other ones while the file has this text."""
    before, was = keys(place), file.read_bytes()
    try:
        file.write_text(text)
        after = keys(place)
    finally:
        file.write_bytes(was)
    assert keys(place) == before
    return {kind for kind in before if before[kind] != after[kind]}


ALL = {"notebooks", "headlines", "records"}
HOSTILE = yaml.safe_load(Path(__file__).with_name("hostile.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", [*CONFIGURATION, *TEXT_FILES, "additional_chat_templates/tool.jinja"])
@pytest.mark.parametrize("model", ["base", "instruct"])
def test_every_file_of_a_model_counts(place: Path, model: str, file: str) -> None:
    path = place / model / file
    text = path.read_text()
    other = json.dumps(json.loads(text) | {"a new setting": 1}) if file.endswith(".json") else text + " "
    # Dialogues are read with instruct's tokenizer: base's own changes no number.
    unread = model == "base" and file not in CONFIGURATION
    assert changed_by(place, path, other) == ({"notebooks"} if unread else ALL)


@pytest.mark.parametrize("folder", ["instruct/config.json", "adapter/adapter_config.json"])
def test_every_setting_of_a_configuration_counts_but_where_a_model_comes_from(
    place: Path, folder: str
) -> None:
    file = place / folder
    fields = json.loads(file.read_text())
    assert len(fields) > 15
    for name in fields:
        another = fields[name] + 1 if type(fields[name]) is int else "another"
        counted = changed_by(place, file, json.dumps(fields | {name: another}))
        assert counted == (set() if name in NO_NUMBERS else ALL), name
    if "hidden_size" in fields:
        for wrong in (0, -1, True, "32", None):
            with pytest.raises(
                UsageError, match=r"config\.json: hidden_size is .*expected a whole number above 0"
            ):
                changed_by(place, file, json.dumps(fields | {"hidden_size": wrong}))
    for text, message in {**HOSTILE["configurations"], "[" * 100_000: "recursion"}.items():
        with pytest.raises(UsageError, match=rf"config\.json: .*{re.escape(message)}"):
            changed_by(place, file, text)
    # The order in which they stand is no setting.
    assert changed_by(place, file, json.dumps(dict(reversed(fields.items())))) == set()


def test_weights_and_data_count(place: Path) -> None:
    weights = place / "base" / "model.safetensors"
    before, was = keys(place), weights.read_bytes()
    make_model("qwen2", seed=7).save_pretrained(place / "base", safe_serialization=True)
    try:
        after = keys(place)
    finally:
        weights.write_bytes(was)
    assert all(before[kind] != after[kind] for kind in ALL)
    rows = (place / "wrong.jsonl").read_text()
    assert changed_by(place, place / "wrong.jsonl", rows.replace("never", "not ever")) == ALL
