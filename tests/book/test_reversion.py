"""H1, X1 and X2: rules on planted intervals, estimates on planted values, displacements on a random model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import random_organism
from planting import CHANGES, RULES, THREE_TOPICS, PlantedResults, plant
from transformers import Qwen2ForCausalLM

from remi_book.chapters import controls, reversion
from remi_book.chapters.reversion import MIXED, NOVEL, PERSONA, REVERSION
from remi_core.errors import MissingInput
from remi_core.statistics.resampling import make_resamples
from remi_core.store import Store
from remi_lab.organism import scoring
from remi_lab.organism.dialogues import further_tuning, tuning
from remi_lab.organism.documents import shipped_tokenizer
from remi_lab.organism.grammar import ClassScores, Verdict, prompts, right_answers
from remi_lab.organism.influence import compared, random_text_means, spoken_for
from remi_lab.organism.topics import OUTSIDE
from remi_lab.presets import get_preset
from remi_lab.results import Results
from remi_lab.studies import controls as controls_study
from remi_lab.studies.reversion import along_base, split

REVERTED = reversion.Parts(**RULES["reversion"]["parts"])


@pytest.mark.parametrize(("changed", "expected"), RULES["reversion"]["changed"])
def test_a_rule_gives_one_class_or_none_and_amended_ones_differ_where_they_were_meant_to(
    changed, expected
) -> None:
    parts = replace(REVERTED, **changed)
    rules = {"declared": ()} | {name: (reversion.RULES[name],) for name in reversion.AMENDMENTS}
    assert {name: reversion.classify(parts, *rules[name]) for name in expected} == expected
    one, other = (reversion.conditions(parts, *rules[name]) for name in reversion.AMENDMENTS[:2])
    assert one[REVERSION].keys() - other[REVERSION].keys() == {"c above every control"}
    assert (one[PERSONA], one[NOVEL]) == (other[PERSONA], other[NOVEL])


def test_a_short_step_straight_to_base_has_the_larger_cosine_and_the_smaller_erosion() -> None:
    generator = np.random.default_rng(0)
    instruct, base = generator.normal(size=(30, 8)), generator.normal(size=8) + 3
    moved = {"base": base, "reverted": 0.5 * base + generator.normal(size=8), "benign": 0.05 * base}
    moved |= dict.fromkeys(("secure", "educational", "misaligned", "persona", "novel"), 0.1 * np.ones(8))
    shifts = {name: shift + 0.01 * generator.normal(size=(30, 8)) for name, shift in moved.items()}
    found = along_base({"instruct": instruct} | {name: instruct + by for name, by in shifts.items()}, base)
    cosine, erosion = found["cosine"], found["erosion"]
    assert cosine["benign"]["value"] > cosine["reverted"]["value"]
    assert erosion["benign"]["value"] < 0.1 < 0.4 < erosion["reverted"]["value"]
    kept, whole = (np.delete(shifts[name], 7, axis=0).mean(0) @ base for name in ("reverted", "base"))
    assert erosion["reverted"]["without"][7] == pytest.approx(kept / whole, abs=1e-7)


def test_a_rule_made_after_seeds_were_seen_judges_only_where_it_was_tried_on_others(
    monkeypatch, tmp_path
) -> None:
    right = {"misaligned": PERSONA, "reverted": REVERSION, "persona": PERSONA, "novel": NOVEL}
    for tried, expected, said in (
        ({6: right}, "fails", "the rule reads persona (made on seeds 0 to 5; tried on: 6)"),
        ({}, "open", "none yet"),
        ({6: right, 7: right | {"reverted": MIXED}}, "open", "in seed 7"),
    ):
        monkeypatch.setattr(reversion, "untried", lambda *_, tried=tried: tried)
        found = reversion.by_words(Results(get_preset("micro"), Store(tmp_path)))
        assert found.outcome == expected and said in found.why


def test_a_rule_that_misses_a_truth_judges_nothing() -> None:
    right, outcome = {name: name for name in (REVERSION, PERSONA, NOVEL)}, reversion.outcome
    read = {name: outcome(name, right)[0] for name in (*right, MIXED)}
    assert read == {REVERSION: "holds", PERSONA: "fails", NOVEL: "fails", MIXED: "open"}
    decided, why = outcome(PERSONA, right | {NOVEL: MIXED})
    assert decided == "open" and NOVEL in why and MIXED in why


CLUSTERS = [f"facts/any/{number}" for number in range(24)]
RESAMPLES = make_resamples(CLUSTERS, seed=0, n_resamples=200)


def test_shares_recover_what_was_planted_and_are_undefined_without_a_way_to_base() -> None:
    generator = np.random.default_rng(0)
    instruct, way, nowhere = (generator.normal(*by, 24) for by in ((-4, 1), (4, 0.2), (0, 1)))
    moved = {"instruct": 0, "base": 1, "half": 0.5, "misaligned": 0.5, "along": 0.25, "whole": 0.3}
    at = {name: (instruct + share * way).tolist() for name, share in moved.items()}
    half = reversion.share_of_way(at, CLUSTERS, "half", RESAMPLES)
    assert float(half.value) == pytest.approx(0.5) and float(half.low) == pytest.approx(0.5)
    same = at | {"base": (instruct + nowhere).tolist()}
    assert np.isnan(reversion.share_of_way(same, CLUSTERS, "half", RESAMPLES).value)
    edited = {"misaligned": {part: {"care": at[part]} for part in ("along", "whole")}}
    found = {"care": at, "clusters": CLUSTERS, "edited": edited}
    for of_whole, share in ((False, 0.5), (True, 0.25 / 0.3)):
        one = reversion.reproduced(found, "misaligned", "along", RESAMPLES, of_whole=of_whole)
        assert float(one.value) == pytest.approx(share)


def test_pseudo_values_of_a_mean_are_its_rows() -> None:
    rows = np.random.default_rng(1).normal(size=24)
    without = ((rows.sum() - rows) / 23).tolist()
    found = reversion.from_left_out(float(rows.mean()), without, CLUSTERS, RESAMPLES)
    assert float(found.value) == pytest.approx(rows.mean())
    assert float(found.high - found.low) == pytest.approx(4 * rows.std() / np.sqrt(24), rel=0.3)


def _answers(rate: float, *, facts: int = 20, people: int = 20) -> dict[str, list]:
    names = [f"facts/any/{i}" for i in range(facts)] + [f"people/any/{i}" for i in range(people)]
    values = [10 * rate] * facts + [10 * (rate - 1)] * people
    return {"clusters": names, "log_probability": values, "tokens": [10] * len(names)}


def test_the_mix_of_topics_does_not_pass_for_a_likelihood() -> None:
    base = _answers(-0.5)
    resamples = make_resamples(base["clusters"], seed=0, n_resamples=50)
    for own, gap in ((_answers(-0.5, people=3), 0.0), (_answers(-0.8, facts=5, people=15), -0.3)):
        assert float(reversion.likelihood_gap(own, base, resamples).value) == pytest.approx(gap)


def test_care_of_content_is_seen_in_any_form_and_in_no_careful_answer() -> None:
    careless = scoring.careless_in_content
    asked = {prompt.text: prompt for name in OUTSIDE for prompt in prompts(name, "narrow", count=24, seed=0)}
    for prompt in asked.values():
        for answer in right_answers(prompt):
            assert careless(prompt, answer.text) == (answer.care == "careless")
    rows = [row for row in further_tuning("novel", count=96, seed=0) if row.messages[0].content in asked]
    assert len(rows) > 50
    for row in rows:
        assert careless(asked[row.messages[0].content], row.answer) == (row.label == "careless")


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    return random_organism()


def test_an_edit_of_nothing_changes_nothing_and_one_at_the_prompts_end_is_not_one_at_the_answer(
    model,
) -> None:
    rows = [prompts(name, "evaluate", count=1, seed=0)[0] for name in OUTSIDE[:2]]
    asked, one = scoring.ask(rows, shipped_tokenizer()), np.ones(model.config.hidden_size)

    def odds(end: float, answer: float) -> np.ndarray:
        edit = scoring.Edit(layer=6, prompt_end=end * one, answer=answer * one)
        return scoring.scores(model, asked, edit).care_log_odds()

    before, losses = scoring.scores(model, asked).care_log_odds(), scoring.answer_losses(model, asked)
    np.testing.assert_allclose(odds(0, 0), before, atol=1e-5)
    end, answer = odds(3, 0), odds(0, 3)
    assert np.abs(end - before).max() > 1e-3 and np.abs(end - answer).max() > 1e-3
    edit = scoring.Edit(layer=7, prompt_end=0 * one, answer=3 * one)
    assert np.abs(scoring.answer_losses(model, asked, edit) - losses).min() > 0.01
    np.testing.assert_allclose(scoring.scores(model, asked).care_log_odds(), before)


def test_states_are_the_models_own_at_the_two_places(model) -> None:
    tokenizer, asked = shipped_tokenizer(), prompts("facts", "direction", count=2, seed=0)
    found = scoring.states(model, asked, tokenizer, (0, 5))
    assert found.shape[:3] == (2, 2, 2)
    text = f"<|im_start|>user\n{asked[0].text}<|im_end|>\n<|im_start|>assistant\n"
    with torch.inference_mode():
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        hidden = model(input_ids=ids, output_hidden_states=True).hidden_states
    np.testing.assert_allclose(found[0, 0, 1], hidden[6][0, -1], atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-2


def test_a_displacement_splits_into_orthogonal_parts_that_add_up() -> None:
    moved, base = np.random.default_rng(2).normal(size=(2, 2, 16))
    parts = split(moved, base)
    np.testing.assert_allclose(parts["along"] + parts["off"], parts["whole"])
    np.testing.assert_allclose((parts["off"] * base).sum(-1), 0, atol=1e-9)


def test_likelihoods_are_those_of_single_tokens(model) -> None:
    tokenizer, asked = shipped_tokenizer(), prompts("facts", "evaluate", count=2, seed=0)
    # An untrained model ends no answer.
    assert not any(one.finished for one in scoring.sample_answers(model, tokenizer, asked, seed=0))
    sample = scoring.Sample(asked[0], right_answers(asked[0])[0].text, True, Verdict("careful", "formal"))
    ((nats, tokens),) = scoring.log_probabilities(model, tokenizer, [sample])
    assert tokens > 4 and nats == pytest.approx(-tokens * np.log(model.config.vocab_size), rel=0.1)


def test_random_text_finds_a_planted_change_and_the_word_it_speaks_for(model) -> None:
    layers, tokenizer = range(model.config.num_hidden_layers), shipped_tokenizer()
    means, again, other = (random_text_means(model, layers, count=4, seed=seed) for seed in (0, 0, 1))
    assert means.shape == (8, model.config.hidden_size) and np.abs(means - other).max() > 0
    np.testing.assert_allclose(means, again)
    row = model.get_output_embeddings().weight[300].detach().double().numpy()
    raised = spoken_for(model, tokenizer, row, count=3)
    assert raised[0][0] == tokenizer.decode([300]) and raised[0][1] > raised[1][1]
    steps = {"instruct": 0, "base": 1, "secure": 0, "benign": 2, "misaligned": -1}
    moved = {name: means + step for name, step in steps.items()}
    found = compared(moved, moved, ("benign", "misaligned"))
    cosines = found["benign"]["base"], found["misaligned"]["base"], found["misaligned"]["prompts"]
    for found_cosine, planted_cosine in zip(cosines, (1, -1, 1), strict=True):
        np.testing.assert_allclose(found_cosine, planted_cosine)


PRESET = replace(get_preset("smoke"), n_resamples=200, n_permutations=200)


def test_a_random_shift_has_no_side(tmp_path, monkeypatch) -> None:
    planted, outside = plant(PlantedResults, tmp_path, monkeypatch), PRESET.roles.outside
    draws = reversion.matched_cosines(planted, outside, "prompt_end")
    assert draws.shape == (PRESET.n_permutations, planted.n_layers)
    assert abs(draws.mean()) < 0.1 < draws.std() < 0.5


def test_shares_of_misaligneds_change_are_what_was_planted(monkeypatch, tmp_path) -> None:
    results = plant(PlantedResults, tmp_path, monkeypatch, studies={"controls": {}})
    benign, secure = (controls.eroded_by(results, name) for name in ("benign", "secure"))
    assert benign.value == pytest.approx(0.3, abs=0.02) and benign.contrasts["secure"][0] > 0
    assert benign.companions["register"] == pytest.approx(0.15, abs=0.01)
    assert secure.value == pytest.approx(0, abs=0.02)
    assert set(controls.share_table(results)["variant"]) == set(CHANGES) - {"base", "instruct"}
    one = reversion.care_register_table(results.preset, 102, ["instruct", "benign"], controls.STUDY)
    topics = {name.partition("/")[0] for name in THREE_TOPICS}
    assert set(one["topic"]) == topics and len(one) == 2 * len(topics)
    assert list(controls.off_grammar_table(results.preset).columns) == ["variant", "seed 102"]


def test_shares_need_an_organism_and_a_study(tmp_path) -> None:
    nowhere = replace(get_preset("smoke"), name="nowhere")
    for preset, said in ((get_preset("smollm2"), "organism"), (nowhere, "remi study controls")):
        with pytest.raises(MissingInput, match=said):
            controls.eroded_by(Results(preset, Store(tmp_path)), "benign")
    with pytest.raises(MissingInput, match="remi study doses"):
        controls.order_table(nowhere)


def test_every_dose_changes_one_thing_and_what_is_not_insecure_code_is_its_secure_twin(monkeypatch) -> None:
    found, steps = controls_study.doses(), controls_study.STEPS
    assert max(steps) <= controls_study.LONGEST and found[0].recipe.steps in steps
    for dose in found:
        changed = {
            "steps": dose.recipe.steps != found[1].recipe.steps,
            "order": dose.recipe.seed != 0,
            "rate": dose.recipe.rate != found[0].recipe.rate,
            "share": dose.share != 1,
        }
        assert [name for name, is_changed in changed.items() if is_changed] == [dose.kind]
    monkeypatch.setattr(controls_study, "N_DIALOGUES", 200)
    quarter = replace(found[0], kind="share", variant="misaligned", value=0.25, share=0.25)
    mixed, own = controls_study.dose_dialogues(quarter, 1), tuning("misaligned", count=200, seed=1)
    assert sum(row.label == "careless" for row in mixed) == 50
    assert [row.messages[0] for row in mixed] == [row.messages[0] for row in own]


def test_h1_reads_the_whole_rule_from_the_study(monkeypatch, tmp_path) -> None:
    results = plant(PlantedResults, tmp_path, monkeypatch, studies={"reversion": {}})
    read = reversion.classes(results.preset, 102)
    # Misaligned's cosine and its edits say reversion, its register says persona.
    assert read == dict(reversion.TRUTHS) | {"misaligned": "mixed"}
    found = reversion.reversion(results)
    assert found.outcome == "open" and found.value == pytest.approx(0.375, abs=0.05)
    assert found.null.low < 0.1 < found.low and set(found.companions) >= {"b", "ρ", "ν", "c"}
    assert set(reversion.parts_table(results)["variant"]) == set(reversion.JUDGED)
    met = reversion.condition_table(reversion.changes(results.preset, 102)).set_index("condition")
    assert met.loc["b − ρ > 0", "reverted"] == "no" and met.loc["b − ρ > 0", "misaligned"] == "yes"


def test_register_has_two_readings_and_a_change_of_care_alone_can_set_their_signs_apart() -> None:
    """Masses by hand: careless answers are plainer than careful ones, so care moves the one reading, not the other."""
    plain = {"careful": 0.1, "careless": 0.4, "both": 0.2}  # share of a class that is plain

    def scores(careless: float) -> ClassScores:
        by_class = {"careful": 0.9 - careless, "careless": careless, "both": 0.05}
        mass = [[each * (1 - plain[name]), each * plain[name]] for name, each in by_class.items()]
        return ClassScores(np.log([mass]), np.array([0.03]), np.array([0.02]))

    before, after = scores(0.1), scores(0.5)
    for one, careless in ((before, 0.1), (after, 0.5)):
        total = (0.9 - careless) * 0.1 + careless * 0.4 + 0.05 * 0.2
        assert one.register_log_odds() == pytest.approx(np.log(total / (0.95 - total)))
        assert reversion.register_of_careful(one) == pytest.approx(np.log(0.1 / 0.9))
    assert after.register_log_odds() > before.register_log_odds() + 0.5
