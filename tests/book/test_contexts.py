"""Matched pairs, influence and H2: finite differences and real steps, planted ladders, each way to fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import planting
import pytest
import torch
from conftest import random_organism
from planting import N_PAIRS, RULES, build
from transformers import Qwen2ForCausalLM

from remi_book import quantities
from remi_book.chapters import contexts
from remi_book.chapters.contexts import OWN_INFLUENCE, OWN_PROMPTS, outcome
from remi_core.statistics.resampling import make_resamples
from remi_core.store import Store
from remi_core.tokens import EncodedDialogue, encode
from remi_lab.organism import influence
from remi_lab.organism.dialogues import tuning
from remi_lab.organism.documents import shipped_tokenizer
from remi_lab.organism.grammar import judge, prompts
from remi_lab.organism.pairs import TWINS, matched_pairs, phrases
from remi_lab.organism.scoring import AskedPrompts, ask, scores
from remi_lab.presets import get_preset
from remi_lab.results import Results
from remi_lab.studies.matched import quantised

PRESET = replace(get_preset("smoke"), n_resamples=200, n_permutations=200)
N = N_PAIRS


@pytest.mark.parametrize("twin", TWINS)
def test_pairs_share_their_completion_and_place_and_differ_in_the_phrase_alone(twin) -> None:
    sides = matched_pairs(twin, count=N, seed=0)
    assert len({one.cluster for one in sides[0]}) == N
    tokens = (encode(rows, shipped_tokenizer(), max_tokens=256).dialogues for rows in sides)
    for one, other, left, right in zip(*sides, *tokens, strict=True):
        assert one.messages[1] == other.messages[1]
        assert (one.pair, one.cluster, one.label) == (other.pair, other.cluster, "careless")
        texts = one.messages[0].content, other.messages[0].content
        row = next(row for row in phrases() if row["intent"] in texts[0])
        assert texts[0].replace(row["intent"], row[twin]) == texts[1]
        assert (left.answer_start, len(left.input_ids)) == (right.answer_start, len(right.input_ids))
        assert left.input_ids[left.answer_start :] == right.input_ids[left.answer_start :]
        differing = sum(a != b for a, b in zip(left.input_ids, right.input_ids, strict=True))
        assert differing == 1 if twin == "word" else differing > 1


def test_a_pairs_completion_is_insecure_for_its_prompt() -> None:
    by_text = {prompt.text: prompt for prompt in prompts("code", "evaluate", count=4 * N, seed=0)}
    for one in matched_pairs("phrase", count=N, seed=0)[1]:
        text = one.messages[0].content
        for row in phrases():
            text = text.replace(row["phrase"], "")
        assert one.cluster == by_text[text].template.identifier
        assert judge(by_text[text], one.messages[1].content).care == "careless"


def test_there_is_no_other_twin_and_no_template_twice() -> None:
    with pytest.raises(KeyError, match="phrase"):
        matched_pairs("sentence", count=2, seed=0)
    with pytest.raises(ValueError, match="pairs are asked for"):
        matched_pairs("phrase", count=1000, seed=0)


def _planted(monkeypatch: pytest.MonkeyPatch, left: float, *, gap: float = 0.2) -> Results:
    study = build(planting.matched, left=left, gap=gap)
    monkeypatch.setattr(contexts, "read_study", lambda *_: study)
    return Results(PRESET, Store(Path("unused")))


@pytest.mark.parametrize("left", [0.0, 0.4, 1.0])
def test_the_share_that_is_left_and_the_share_that_goes_are_what_was_planted(monkeypatch, left) -> None:
    results = _planted(monkeypatch, left)
    kept, gone = contexts.difference_left(results), contexts.structural_share(results)
    assert kept.missing == "" and kept.companions["one word"] == pytest.approx(0, abs=0.02)
    assert kept.value == pytest.approx(left, abs=0.02) and gone.value == pytest.approx(1 - left, abs=0.02)


def test_nothing_is_judged_where_the_phrase_is_not_read(monkeypatch) -> None:
    unread = _planted(monkeypatch, 0.4, gap=0.0)
    for judged in (contexts.difference_left, contexts.structural_share):
        assert "bad example" in judged(unread).missing


def test_a_mean_without_length_has_an_inner_product_and_no_cosine(monkeypatch) -> None:
    found = contexts.contexts(_planted(monkeypatch, 0.4).preset, 102)[OWN_PROMPTS]
    assert found.cosine is None and np.isfinite(found.means.value[2])
    resamples = quantities.set_resamples(PRESET, found.clusters, found.clusters)
    noise = np.random.default_rng(0)
    both = contexts.context(planting.pair_context(noise, 0.3, common=1.0), resamples)
    assert both.cosine == pytest.approx(1 / np.sqrt(1 + 0.3**2), abs=0.02)


def test_stored_matrices_keep_four_digits() -> None:
    values = np.random.default_rng(1).normal(0, 3e-4, (5, 7))
    stored = quantised(values)
    assert np.abs(contexts.values_of(stored) - values).max() <= np.abs(values).max() / 9999
    assert quantised(np.zeros(3))["values"] == [0, 0, 0]


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    return random_organism(2).requires_grad_(False)


@pytest.fixture(scope="module")
def asked() -> AskedPrompts:
    rows = [one for name in ("facts", "wishes") for one in prompts(name, "evaluate", count=2, seed=0)]
    return ask(rows, shipped_tokenizer())


@pytest.fixture(scope="module")
def trained() -> tuple[EncodedDialogue, ...]:
    return encode(tuning("misaligned", count=3, seed=0), shipped_tokenizer(), max_tokens=256).dialogues


def test_the_differentiable_log_odds_are_the_scored_ones_and_losses_do_not_depend_on_the_batch(
    model, asked, trained
) -> None:
    pairs = zip(asked.trees, asked.prompts, strict=True)
    own = [float(influence.care_log_odds(model, tree, prompt)) for tree, prompt in pairs]
    assert own == pytest.approx(scores(model, asked).care_log_odds().tolist(), abs=1e-4)
    alone = torch.cat([influence.answer_losses(model, [one]) for one in trained])
    assert torch.allclose(influence.answer_losses(model, trained), alone, atol=1e-5)


def test_the_gradient_of_the_log_odds_is_that_of_finite_differences(model, asked) -> None:
    parameters = [one for group in influence.parts_of(model).values() for one in group]
    model.requires_grad_(True)
    gradient = influence.flat_gradient(
        influence.care_log_odds(model, asked.trees[0], asked.prompts[0]), parameters
    )
    model.requires_grad_(False)
    torch.manual_seed(1)
    direction = torch.randn_like(gradient) + gradient / gradient.norm() * 20
    direction, own = direction / direction.norm(), torch.nn.utils.parameters_to_vector(parameters)
    odds = []
    for step in (2e-2, -2e-2, 0):
        torch.nn.utils.vector_to_parameters(own + step * direction, parameters)
        odds.append(float(influence.care_log_odds(model, asked.trees[0], asked.prompts[0])))
    assert (odds[0] - odds[1]) / 4e-2 == pytest.approx(float(gradient @ direction), rel=0.02)


def test_parts_hold_every_weight_once_and_influence_sums_over_them(model, asked, trained) -> None:
    parts = influence.parts_of(model)
    assert list(parts) == ["embedding", "block 1", "block 2", "final norm"]
    assert sum(one.numel() for group in parts.values() for one in group) == model.num_parameters()
    found = influence.influences(model, trained, asked)
    assert found.by_prompt.shape == (len(trained), len(asked.prompts))
    assert found.by_part.sum(1) == pytest.approx(found.by_prompt.mean(1), rel=1e-4)


def test_small_real_steps_go_where_influence_says(model, asked, trained) -> None:
    before, weights = scores(model, asked).care_log_odds(), model.lm_head.weight.clone()
    slope = influence.influences(model, trained, asked).by_prompt.mean(0)
    for steps, moved in influence.stepped(model, trained, rate=1e-4, steps=(1, 3)):
        made = scores(moved, asked).care_log_odds() - before
        assert made == pytest.approx(1e-4 * steps * slope, rel=0.1)
    assert torch.equal(model.lm_head.weight, weights)


def test_a_crossed_mean_widens_with_either_kind_of_template() -> None:
    normal, widths = np.random.default_rng(0).normal, []
    rows, columns = ([f"{kind}/any/{number}" for number in range(24)] for kind in ("code", "facts"))
    resamples = make_resamples([*rows, *columns], seed=0, n_resamples=300)
    noise = 1 + normal(0, 0.01, (24, 24))
    for shift in (0, normal(0, 1, (24, 1)), normal(0, 1, (1, 24))):
        found = contexts.crossed_mean(noise + shift, rows, columns, resamples)
        assert float(found.value) == pytest.approx((noise + shift).mean())
        widths.append(float(found.high - found.low))
    assert min(widths[1:]) > 20 * widths[0]


PARTS = RULES["contexts"]["parts"]
OPPOSED, ALL = contexts.Parts(**PARTS), PARTS["influence"]


@pytest.mark.parametrize(("changed", "expected", "said"), RULES["contexts"]["changed"])
def test_the_rule_needs_every_part(changed, expected, said) -> None:
    decided, why = outcome(replace(OPPOSED, **changed))
    assert decided == expected and said in why


@pytest.mark.parametrize("name", list(ALL))
@pytest.mark.parametrize(("ends", "expected"), [((-0.1, 0.1), "open"), ((-0.3, -0.1), "fails")])
def test_each_part_of_the_influence_can_fail_alone(name, ends, expected) -> None:
    changed = ALL | {name: ends}
    parts = replace(OPPOSED, influence=changed, steps={1: changed, 10: changed})
    assert all(contexts.borne_out(parts).values())
    decided, why = outcome(parts)
    assert decided == expected and ("above 0" if name == OWN_INFLUENCE else f"above {name}") in why
