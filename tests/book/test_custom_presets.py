"""Any three models become a preset: what is refused before anything is loaded or written, and what roles data take."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import make_dialogue, make_model, save_model, write_rows
from own_files import turns
from test_adapters import save_adapter
from test_cli import complaint

from remi_book import cli, doctor
from remi_book.chapters.subspace import further_pairs, many_pairs
from remi_book.facts import own_front
from remi_book.words import as_markdown
from remi_core.errors import UsageError
from remi_core.sources import ModelSpec
from remi_core.store import Store
from remi_lab import demands, own_models
from remi_lab.organism.world import SETTINGS
from remi_lab.own_models import (
    LabelledSet,
    check_distinct,
    check_models,
    custom_preset,
    has_choices,
    parse_model,
    roles_of,
    save_custom,
)
from remi_lab.presets import PRESETS, TRIPLET, DataRoles, get_preset, preset_from
from remi_lab.results import Results
from remi_lab.variant import weights_of


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("REMI_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Folder with three different models, an adapter of the second, and a copy of it under another name."""
    place = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(TRIPLET):
        save_model(place / name, seed=seed)
    make_model("qwen2", seed=1).save_pretrained(place / "copy")
    save_adapter(place / "instruct", place / "adapter")
    return place


def line(models: Path, **roles: str) -> str:
    named = {role: role for role in TRIPLET} | roles
    return " ".join(["run --name mine --only 01", *(f"--{role} {models / named[role]}" for role in named)])


def test_models_coincide_by_tensors_and_part_by_what_these_compute(models, tmp_path, capsys) -> None:
    def variants(**fields: object) -> dict[str, ModelSpec]:
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        other = shutil.copytree(models / "base", tmp_path / "other")
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps(config | fields))
        make_model("qwen2").save_pretrained(tmp_path / "shards", max_shard_size="40KB")
        (other / "model.safetensors").unlink()
        for path in (tmp_path / "shards").glob("model*"):
            shutil.copy(path, other)
        return {"base": ModelSpec(source=str(models / "base")), "instruct": ModelSpec(source=str(other))}

    said: list[str] = []
    for fields in ({}, {"dtype": "float16", "eos_token_id": 7, "transformers_version": "4"}):
        with pytest.raises(UsageError, match="base and instruct coincide"):
            check_distinct(variants(**fields), say=said.append)
    check_distinct(variants(rms_norm_eps=0.5, use_cache=False), say=said.append)
    assert said == ["base and instruct have the same weights and differ in rms_norm_eps alone"]


def test_an_adapter_made_on_another_name_needs_one_word_and_has_no_other_key(
    models, store, tmp_path, capsys
) -> None:
    adapter = save_adapter(models / "instruct", tmp_path / "other", named="Some/Model")
    words = line(models, misaligned=f"instruct+{adapter}")
    assert "belongs to Some/Model, not to" in complaint(words, capsys, code=2)
    assert "--same-base" in complaint(words, capsys, code=2) and not store.exists()
    assert "--same-base goes with --name" in complaint("run --preset smoke --same-base", capsys, code=2)
    texts = {role: str(models / role) for role in TRIPLET} | {
        "misaligned": f"{models / 'instruct'}+{adapter}"
    }
    bare, mine = (custom_preset("mine", texts, [], same_base=word) for word in (False, True))
    check_models(mine)
    save_custom(mine, Store())
    assert get_preset("mine") == mine != bare and mine.fields() == bare.fields()
    assert weights_of(mine.variants["misaligned"]) == weights_of(bare.variants["misaligned"])
    note = "its adapter was made on Some/Model, in whose place this model stands"
    assert as_markdown(note) in own_front(mine) and as_markdown(note) not in own_front(bare)
    assert any(note in text for _, text in doctor._models(mine))


def test_an_adapter_with_more_tokens_than_its_model_is_refused_before_it_is_loaded(models, tmp_path) -> None:
    save_model(tmp_path / "larger", n_vocab=410)
    settings = {"modules_to_save": ["embed_tokens"], "named": str(models / "instruct")}
    adapter = save_adapter(tmp_path / "larger", tmp_path / "adapter", **settings)
    texts = {"base": str(models / "base"), "instruct": str(models / "instruct")}
    preset = custom_preset("mine", texts | {"misaligned": f"{models / 'instruct'}+{adapter}"}, [])
    with pytest.raises(UsageError, match="embed_tokens.weight has 410 tokens, .*instruct has 400; merge it"):
        check_models(preset)


TRIPLETS = yaml.safe_load(Path(__file__).with_name("triplets.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("message", TRIPLETS)
def test_wrong_triplets_are_refused_before_anything_is_written(models, store, message, capsys) -> None:
    assert message in complaint(line(models, **TRIPLETS[message]), capsys, code=2)
    assert not store.exists()


def test_a_model_of_the_hub_that_is_not_here_is_named(store, capsys) -> None:
    words = "run --name mine --only 01 --base Qwen/X@main --instruct Qwen/X --misaligned Qwen/X+Some/Y"
    said = complaint(words, capsys, code=1)
    assert "Qwen/X at revision main: cannot be had, looked in" in said
    assert "give its folder instead of the id" in said and not store.exists()


def test_a_triplet_is_saved_and_found_again(models, store, capsys, monkeypatch) -> None:
    ran = []
    monkeypatch.setattr(cli, "run_steps", lambda preset, *_, **__: ran.append(preset.name) or 0)
    adapted = f"instruct+{models / 'adapter'}"
    assert cli.main(line(models, misaligned=adapted).split()) == 0
    preset = get_preset("mine")
    assert ran == ["mine"] and preset.seeds == (0,) and preset.datasets
    spec = ModelSpec(source=str(models / "instruct"), adapter=str(models / "adapter"))
    assert preset.variants["misaligned"] == spec
    assert preset.lacks("organism") and preset.lacks("controls")
    assert cli.main(["presets"]) == 0 and "mine" in capsys.readouterr().out.split()
    with monkeypatch.context() as changed:
        changed.setattr(own_models, "best_batch_tokens", lambda *_: 256)
        assert cli.main(line(models, misaligned=adapted).split()) == 0, "the same again is no change"
    capsys.readouterr()
    said = complaint(line(models), capsys, code=2)
    assert "has that name with other models" in said and get_preset("mine") == preset
    assert "nothing has been run for preset 'mine'" in complaint("report --preset mine", capsys, code=1)
    assert cli.main(["doctor", "--preset", "mine"]) in (0, 1)
    assert "weights 0.0 GB in bfloat16 with an adapter" in capsys.readouterr().out


def test_doctor_times_models_before_they_have_a_name(models, store, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(demands, "PROBE_SECONDS", 0.2)
    for name, answer in (("wrong", "No, never."), ("right", "Yes, I can help you with that.")):
        write_rows(tmp_path / f"{name}.jsonl", *(turns(f"Question {row}?", answer) for row in range(10)))
    named = [f"--{role} {models / role}" for role in TRIPLET]
    data = [f"--data misaligned={tmp_path / 'wrong.jsonl'}", f"--data aligned={tmp_path / 'right.jsonl'}"]
    words = " ".join(["doctor --dtype float32", *named, *data]).split()
    assert cli.main(words) in (0, 1)
    said = capsys.readouterr().out
    assert "20 dialogues can be used; tokens: wrong " in said and "time on this machine: about " in said
    assert not Store().saved_presets() and not Store().list()
    cut = shutil.copytree(models / "base", tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:-1])
    assert cli.main([str(cut) if word == str(models / "base") else word for word in words]) == 1
    assert (
        "MISSING  base: " in (answer := capsys.readouterr().out)
        and "model.safetensors cannot be read" in answer
    )
    # What is timed is what the records hold: tokens by set, and bytes in the store to a tenth.
    preset = custom_preset(
        "mine",
        {role: str(models / role) for role in TRIPLET},
        [word.removeprefix("--data ") for word in data],
    )
    timing = demands.timed(preset, Store())
    results = Results(preset, Store())
    for name in ("wrong", "right"):
        assert timing.lengths[name] == [len(one.input_ids) for one in results.encoded(name).dialogues]
    # Dialogues of twice the tokens take twice the time of all that reads them, and the models open as often.
    twice = replace(timing, lengths={name: [2 * n for n in each] for name, each in timing.lengths.items()})
    before, after = (
        list(
            each.seconds(
                preset, ["wrong", "right"], {"base": [("wrong", "half"), ("right", "shared")]}
            ).values()
        )
        for each in (timing, twice)
    )
    assert np.divide(after, before) == pytest.approx([1, 2, 2, 2, 2])
    (tmp_path / "wrong.jsonl").write_text("")
    assert cli.main(words) == 2 and "wrong.jsonl" in capsys.readouterr().err


def test_a_batch_takes_seconds_on_this_machine(models, monkeypatch) -> None:
    spec = ModelSpec(source=str(models / "instruct"))
    shape = demands.shape_of(demands.config_of(spec))
    products = shape.width * shape.mlp_width
    for seconds_a_token in (1e-9, 1e-3, 2e-3, 1.0):
        row = seconds_a_token / shape.n_parameters() * products * own_models.FEWEST_BATCH_TOKENS
        monkeypatch.setattr("timeit.repeat", lambda *_, row=row, **__: [row, 2 * row])
        tokens = own_models.best_batch_tokens(spec, "float32")
        wanted = own_models.BATCH_SECONDS / seconds_a_token
        assert tokens in (256, 8192) or wanted / 2 < tokens <= wanted
        assert (tokens == 256) == (wanted < 512) and (tokens == 8192) == (wanted >= 8192)
    assert own_models.best_batch_tokens(ModelSpec(source="Some/Unknown"), "float32") == 8192


def test_labels_of_files_give_roles(models, tmp_path) -> None:
    for name, answer in (("wrong", "No, never."), ("right", "Yes, I can help you with that.")):
        write_rows(tmp_path / f"{name}.jsonl", *(turns(f"Question {row}?", answer) for row in range(10)))
    named = {role: str(models / role) for role in TRIPLET}
    data = [f"misaligned={tmp_path / 'wrong.jsonl'}", f"aligned={tmp_path / 'right.jsonl'}"]
    preset = custom_preset("mine", named, data)
    outside = {"outside": ("wrong",), "outside_aligned": ("right",)}
    pair = DataRoles(example="wrong", narrow="wrong", narrow_aligned="right", **outside)
    assert preset.datasets == () and preset.roles == pair
    assert preset.loss_tokens == 2, "three quarters of the answers have two words"
    saved = preset.fields() | {"batch_tokens": preset.batch_tokens}
    assert preset_from(json.loads(json.dumps(saved))) == preset
    (tmp_path / "few.jsonl").write_text("".join((tmp_path / "wrong.jsonl").read_text().splitlines(True)[:9]))
    with pytest.raises(UsageError, match="'few' has 9 prompt templates in 9 dialogues; at least 10"):
        custom_preset("mine", named, [*data, f"aligned={tmp_path / 'few.jsonl'}"])
    with pytest.raises(
        UsageError, match="set 'wrong' says of no reply whether it is aligned: write aligned=FILE"
    ):
        custom_preset("mine", named, [str(tmp_path / "wrong.jsonl")])


ROLES = yaml.safe_load(Path(__file__).with_name("roles.yaml").read_text(encoding="utf-8"))


def labelled(name: str) -> LabelledSet:
    """A set of the table, with a reply of one letter to each question."""
    label, answers, prompt = ROLES["sets"][name]
    alternative = "z" if name == "wrong" else None
    asked = [(f"{prompt}{row}?", answer, str(row)) for row, answer in enumerate(answers)]
    rows = [make_dialogue(*said, identifier=row, alternative=alternative) for *said, row in asked]
    return LabelledSet(name, label, [replace(one, label=label) for one in rows])


@pytest.mark.parametrize("wanted", ROLES["roles"], ids=lambda wanted: "-".join(wanted["sets"]))
def test_roles_from_what_sets_share(wanted) -> None:
    found = roles_of([labelled(name) for name in wanted["sets"]])
    for role in wanted.keys() - {"sets"}:
        assert getattr(found, role) in (wanted[role], tuple(wanted[role])), role


def test_choices_need_both_answers_and_sets_without_a_label_have_no_role() -> None:
    wrong, other, twin = map(labelled, ("wrong", "other", "twin"))
    assert has_choices([wrong, twin]) and not has_choices([wrong, other]) and not has_choices([twin])
    assert roles_of([LabelledSet("loose", "", wrong.dialogues)]) == DataRoles()


def test_no_pair_is_a_set_beside_itself_or_shown_twice() -> None:
    bad, good = ("bad", "worse"), ("good", "fine")
    several = {"outside": bad, "outside_aligned": good, "shared": bad, "unrelated": good}
    one = DataRoles(example="bad", narrow="bad", narrow_aligned="good", **several)
    preset = replace(get_preset("micro"), datasets=tuple(dict.fromkeys(one.names())), roles=one)
    assert further_pairs(preset) == [("fine", "worse")]
    assert many_pairs(preset) == [("good", "fine"), ("bad", "worse"), ("bad", "good"), ("bad", "fine")]
    assert len(further_pairs(get_preset("micro"))) == 4 and len(many_pairs(get_preset("micro"))) > 5


def test_models_as_they_are_written(models) -> None:
    adapter = {"adapter": "Some/Y", "adapter_revision": "def"}
    assert parse_model("Qwen/X@abc+Some/Y@def") == ModelSpec(source="Qwen/X", revision="abc", **adapter)
    spec = parse_model(f"{models / 'instruct'}+Some/Y")
    assert spec.source == str(models / "instruct") and spec.adapter == "Some/Y"
    assert parse_model(spec.spelled()) == spec
    with pytest.raises(UsageError, match="not an adapter folder"):
        parse_model(f"Qwen/X+{models / 'base'}")


def test_shipped_presets_survive_json_and_name_no_strange_revision() -> None:
    for preset in PRESETS.values():
        assert preset_from(json.loads(json.dumps(preset.fields()))).fields() == preset.fields()
        parent, known = preset.variants["instruct"], {None, *(SETTINGS if preset.is_organism else ())}
        for spec in preset.variants.values():
            named = {spec.revision, spec.adapter_revision} - known
            assert all(len(revision) == 40 and int(revision, 16) for revision in named)
            assert spec.adapter is None or (spec.source, spec.revision) == (parent.source, parent.revision)
    assert Store().saved_presets() == {}
