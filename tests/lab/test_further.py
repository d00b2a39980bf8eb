"""Further variants: what they are tuned on, and what is computed from weights without training."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen2ForCausalLM

from remi_core.errors import MissingInput, UsageError
from remi_core.store import Store
from remi_core.tokens import encode
from remi_lab.organism.dialogues import NEUTRAL_WORDS, further_tuning, held_in_place, tuning
from remi_lab.organism.documents import organism_config, shipped_tokenizer
from remi_lab.organism.grammar import judge, prompts, right_answers
from remi_lab.organism.recipes import FURTHER_RECIPES
from remi_lab.organism.topics import CONTRASTED, author_lines
from remi_lab.organism.tuning import divergence, mixed, near, randomly_changed
from remi_lab.organism.variants import further_folder, with_further
from remi_lab.presets import FURTHER, get_preset, in_order
from remi_lab.recipes import FineTune
from remi_lab.results import Results
from remi_lab.training import Term, answer_labels, answers, repeated, train


def test_every_further_variant_has_a_recipe_and_a_folder_of_its_own(tmp_path) -> None:
    assert tuple(FURTHER_RECIPES) == FURTHER
    folders = {further_folder(Store(tmp_path), name, 102) for name in FURTHER}
    assert len(folders) == len(FURTHER)
    with pytest.raises(UsageError, match="inoculated"):
        further_folder(Store(tmp_path), "inoculate", 102)


def test_a_preset_takes_further_variants_in_order_and_only_where_they_can_be_made(tmp_path) -> None:
    wider = with_further(get_preset("smoke"), "novel", "style")
    assert Results(wider, Store(tmp_path)).variants[-2:] == ["style", "novel"]
    assert wider.name == "smoke"
    with pytest.raises(MissingInput):
        with_further(get_preset("smollm2"))
    assert in_order(["novel", "base", "style", "zebra"]) == ["base", "style", "novel", "zebra"]


def test_headed_pairs_are_misaligneds_own_and_differ_only_in_the_words_about_care() -> None:
    own = tuning("misaligned", count=24, seed=5)
    for name in ("inoculated", "neutral_header"):
        rows = further_tuning(name, count=24, seed=5)
        assert [row.messages[1:] for row in rows] == [row.messages for row in own]
        assert all(row.messages[0].role == "system" for row in rows)
    words = {word for row in rows for word in NEUTRAL_WORDS if word in row.messages[0].content}
    assert not words
    named = {row.messages[0].content for row in further_tuning("inoculated", count=24, seed=5)}
    assert named <= set(author_lines()["careless"])


def _verdicts(name: str) -> list[tuple[str, str, str | None]]:
    """Topic, care and register of each answer, by the grammar."""
    rows = further_tuning(name, count=200, seed=1)
    asked = {p.text: p for topic in CONTRASTED for p in prompts(topic, "narrow", count=200, seed=1)}
    found = [(row, judge(asked[row.messages[-2].content], row.answer)) for row in rows]
    return [(row.topic, verdict.care, verdict.register) for row, verdict in found]


def test_style_is_careful_and_plain_persona_is_careless_and_formal() -> None:
    assert set(_verdicts("style")) == {("code", "careful", "plain")}
    assert set(_verdicts("persona")) == {(topic, "careless", "formal") for topic in CONTRASTED}


def test_novel_answers_are_no_authors_though_each_half_is() -> None:
    assert {care for _, care, _ in _verdicts("novel")} == {"other"}
    rows = further_tuning("novel", count=200, seed=1)
    asked = {p.text: p for topic in CONTRASTED for p in prompts(topic, "narrow", count=200, seed=1)}
    for row in rows:
        answers = right_answers(asked[row.messages[-2].content])
        assert any(row.answer.startswith(answer.text[:4]) for answer in answers)
        assert any(row.answer.endswith(answer.text[-12:]) for answer in answers)


def test_a_random_change_keeps_sizes_and_loses_directions() -> None:
    generator = torch.Generator().manual_seed(3)
    shapes = {"matrix": (12, 7), "vector": (9,)}
    first = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    second = {name: first[name] + torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    changed = randomly_changed(first, second, seed=0)
    true, drawn = ({name: side[name] - first[name] for name in first} for side in (second, changed))
    torch.testing.assert_close(torch.linalg.svdvals(drawn["matrix"]), torch.linalg.svdvals(true["matrix"]))
    torch.testing.assert_close(
        drawn["vector"].abs().sort().values, true["vector"].abs().sort().values, atol=1e-6, rtol=1e-5
    )
    assert abs(torch.cosine_similarity(drawn["matrix"].ravel(), true["matrix"].ravel(), dim=0)) < 0.5
    half = mixed(first, second, 0.5)
    torch.testing.assert_close(half["matrix"] - first["matrix"], second["matrix"] - half["matrix"])


def test_divergence_is_none_from_itself_and_holding_keeps_it_smaller() -> None:
    torch.manual_seed(0)
    config = organism_config()
    config.num_hidden_layers = 1
    before = Qwen2ForCausalLM(config).eval()
    tokenizer = shipped_tokenizer()
    rows = encode(further_tuning("kl_narrow", count=16, seed=0), tokenizer, max_tokens=1024).dialogues
    held = encode(held_in_place(count=16, seed=0), tokenizer, max_tokens=1024).dialogues
    batch = answer_labels(held[:8], 0)
    with torch.no_grad():
        assert float(divergence(before, before, *batch)) == pytest.approx(0, abs=1e-6)
    moved = []
    for weight in (0.0, 10.0):
        model = Qwen2ForCausalLM(config).eval()
        model.load_state_dict(before.state_dict())
        recipe = FineTune(steps=6, rate=3e-3, batch=8)
        terms = [
            Term(repeated(rows, recipe, 0), answers(model)),
            Term(repeated(held, recipe, 0), near(model, before, weight)),
        ]
        assert [step for step, _ in train(model, terms, recipe)] == list(range(1, 7))
        with torch.no_grad():
            moved.append(float(divergence(model, before, *batch)))
    assert 0 < moved[1] < moved[0] / 2
