"""H1, X1 and X2: rules on planted intervals, estimates on planted values, displacements on a random model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import random_organism
from planting import PlantedResults, everywhere, plant
from transformers import Qwen2ForCausalLM

from remi_book.chapters import controls, reversion
from remi_book.chapters.reversion import (
    MIXED,
    NOVEL,
    PERSONA,
    REVERSION,
    RULES,
    Parts,
    classify,
    conditions,
    from_left_out,
    likelihood_gap,
    outcome,
    reproduced,
    share_of_way,
)
from remi_core.errors import MissingInput
from remi_core.statistics.resampling import make_resamples
from remi_core.store import Store
from remi_lab.organism.dialogues import further_tuning, tuning
from remi_lab.organism.documents import shipped_tokenizer
from remi_lab.organism.grammar import Verdict, prompts, right_answers
from remi_lab.organism.influence import compared, random_text_means, spoken_for
from remi_lab.organism.scoring import (
    Edit,
    Sample,
    answer_losses,
    ask,
    careless_in_content,
    log_probabilities,
    sample_answers,
    scores,
    states,
)
from remi_lab.organism.topics import OUTSIDE
from remi_lab.presets import Preset, get_preset
from remi_lab.results import Results
from remi_lab.studies import controls as controls_study
from remi_lab.studies.controls import LONGEST, STEPS, Dose, dose_dialogues, doses
from remi_lab.studies.files import Study
from remi_lab.studies.reversion import along_base, split

REVERTED = Parts(
    cosine_gaps={"secure": (0.2, 0.4), "benign": (0.1, 0.3)},
    along=(0.7, 0.9),
    off=(-0.1, 0.1),
    care=(0.5, 0.7),
    register=(0.5, 0.7),
    care_beyond_register=(-0.1, 0.1),
    likelihood=(-0.05, 0.05),
)
NAN = (float("nan"), float("nan"))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, REVERSION),
        ({"cosine_gaps": {"secure": (0.2, 0.4), "benign": (-0.1, 0.3)}}, MIXED),
        ({"cosine_gaps": {}}, MIXED),
        ({"along": (0.4, 0.9)}, MIXED),
        ({"register": (-0.1, 0.3)}, MIXED),
        ({"care": (0.9, 1.1)}, MIXED),
        ({"likelihood": (-0.15, 0.0)}, MIXED),
        ({"register": (0.0, 0.1), "care_beyond_register": (0.4, 0.6), "along": (0.2, 0.4)}, PERSONA),
        ({"care": (1.2, 1.4), "register": (1.2, 1.4)}, PERSONA),
        # Everything that reversion asks for, and care ahead of register: two classes at once are none.
        ({"care_beyond_register": (0.1, 0.2)}, MIXED),
        ({"likelihood": (-0.4, -0.2)}, NOVEL),
        ({"along": (0.0, 0.2), "off": (0.6, 0.9)}, NOVEL),
        ({"likelihood": (-0.4, -0.2), "care_beyond_register": (0.4, 0.6)}, MIXED),
        ({"care": NAN, "care_beyond_register": NAN}, MIXED),
    ],
)
def test_the_rule_reads_intervals_and_gives_one_class_or_none(changed, expected) -> None:
    assert classify(replace(REVERTED, **changed)) == expected


AMENDED, AMENDED_AGAIN, BY_WORDS = reversion.AMENDMENTS
ELSEWHERE = {"along": (0.3, 0.4), "off": (0.6, 0.7)}
BY_ANOTHER_WAY = ELSEWHERE | {"care_beyond_register": (0.4, 0.6)}
NEW_WORDS = {"likelihood": (-0.4, -0.2)}
OUTDONE = {"cosine_gaps": {"secure": (0.2, 0.4), "benign": (-0.1, -0.05)}}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, {"declared": REVERSION, AMENDED: REVERSION, BY_WORDS: REVERSION}),
        # A lead too small to matter, which can be told from zero: the declared rule sees a persona in it.
        ({"care_beyond_register": (0.02, 0.04)}, {"declared": MIXED, AMENDED: REVERSION}),
        ({"care_beyond_register": (0.12, 0.2), "along": (0.2, 0.4)}, {"declared": PERSONA, AMENDED: PERSONA}),
        # Register that comes back by a hundredth is no reversion.
        (
            {"register": (0.01, 0.03), "care_beyond_register": (0.6, 0.7)},
            {"declared": MIXED, AMENDED: PERSONA},
        ),
        (OUTDONE, {AMENDED: MIXED, AMENDED_AGAIN: REVERSION}),  # controls are left to another claim
        (BY_ANOTHER_WAY, {AMENDED_AGAIN: MIXED, BY_WORDS: PERSONA}),
        (NEW_WORDS, {BY_WORDS: NOVEL}),
        # A persona that says what base would not is neither; and off base's way without either is nothing it knows.
        (BY_ANOTHER_WAY | NEW_WORDS, {BY_WORDS: MIXED}),
        (ELSEWHERE, {BY_WORDS: MIXED}),
    ],
)
def test_amended_rules_differ_where_they_were_meant_to(changed, expected) -> None:
    parts = replace(REVERTED, **changed)
    rules = {"declared": ()} | {name: (RULES[name],) for name in reversion.AMENDMENTS}
    assert {name: classify(parts, *rules[name]) for name in expected} == expected
    one, other = (conditions(parts, RULES[name]) for name in (AMENDED, AMENDED_AGAIN))
    assert one[REVERSION].keys() - other[REVERSION].keys() == {"c above every control"}
    assert (one[PERSONA], one[NOVEL]) == (other[PERSONA], other[NOVEL])


def test_a_short_step_straight_to_base_has_the_larger_cosine_and_the_smaller_erosion() -> None:
    generator = np.random.default_rng(0)
    instruct, base = generator.normal(size=(30, 8)), generator.normal(size=8) + 3
    moved = {"base": base, "reverted": 0.5 * base + generator.normal(size=8), "benign": 0.05 * base}
    others = dict.fromkeys(("secure", "educational", "misaligned", "persona", "novel"), 0.1 * np.ones(8))
    held = {"instruct": instruct} | {
        name: instruct + shift + 0.01 * generator.normal(size=(30, 8))
        for name, shift in (others | moved).items()
    }
    found = along_base(held, base)
    cosine, erosion = (
        {name: one["value"] for name, one in found[kind].items()} for kind in ("cosine", "erosion")
    )
    assert cosine["benign"] > cosine["reverted"] and erosion["benign"] < 0.1 < 0.4 < erosion["reverted"]
    without = found["erosion"]["reverted"]["without"][7]
    kept = np.delete(held["reverted"] - instruct, 7, axis=0).mean(0) @ base
    assert without == pytest.approx(
        kept / (np.delete(held["base"] - instruct, 7, axis=0).mean(0) @ base), abs=1e-7
    )


def test_a_rule_made_after_seeds_were_seen_judges_only_where_it_was_tried_on_others(
    monkeypatch, tmp_path
) -> None:
    right = {"misaligned": PERSONA, "reverted": REVERSION, "persona": PERSONA, "novel": NOVEL}
    fails = {"reverted": MIXED}

    def judged(tried: dict[int, dict[str, str]]) -> tuple[str, str]:
        monkeypatch.setattr(reversion, "untried", lambda *_: tried)
        found = reversion.by_words(Results(get_preset("micro"), Store(tmp_path)))
        return found.outcome, found.why

    assert judged({6: right}) == ("fails", "the rule reads persona (made on seeds 0 to 5; tried on: 6)")
    assert judged({})[0] == "open" and "none yet" in judged({})[1]
    decided, why = judged({6: right, 7: right | fails})
    assert decided == "open" and "in seed 7" in why


def test_a_rule_that_misses_a_truth_judges_nothing() -> None:
    right = {name: name for name in (REVERSION, PERSONA, NOVEL)}
    assert outcome(REVERSION, right)[0] == "holds"
    assert outcome(PERSONA, right)[0] == outcome(NOVEL, right)[0] == "fails"
    assert outcome(MIXED, right)[0] == "open"
    decided, why = outcome(PERSONA, right | {NOVEL: MIXED})
    assert decided == "open" and NOVEL in why and MIXED in why


CLUSTERS = [f"facts/any/{number}" for number in range(24)]
RESAMPLES = make_resamples(CLUSTERS, seed=0, n_resamples=200)


def test_shares_recover_what_was_planted_and_are_undefined_without_a_way_to_base() -> None:
    generator = np.random.default_rng(0)
    instruct = generator.normal(-4, 1, 24)
    base = instruct + generator.normal(4, 0.2, 24)

    def on_the_way(share: float) -> list[float]:
        return (instruct + share * (base - instruct)).tolist()

    care = {
        "instruct": on_the_way(0),
        "base": on_the_way(1),
        "half": on_the_way(0.5),
        "misaligned": on_the_way(0.5),
    }
    half = share_of_way(care, CLUSTERS, "half", RESAMPLES)
    assert float(half.value) == pytest.approx(0.5) and float(half.low) == pytest.approx(0.5)
    nowhere = care | {"base": (instruct + generator.normal(0, 1, 24)).tolist()}
    assert np.isnan(share_of_way(nowhere, CLUSTERS, "half", RESAMPLES).value)
    edited = {"misaligned": {"along": {"care": on_the_way(0.25)}, "whole": {"care": on_the_way(0.3)}}}
    found = {"care": care, "clusters": CLUSTERS, "edited": edited}
    assert float(reproduced(found, "misaligned", "along", RESAMPLES).value) == pytest.approx(0.5)
    of_whole = reproduced(found, "misaligned", "along", RESAMPLES, of_whole=True)
    assert float(of_whole.value) == pytest.approx(0.25 / 0.3)


def test_pseudo_values_of_a_mean_are_its_rows() -> None:
    rows = np.random.default_rng(1).normal(size=24)
    without = ((rows.sum() - rows) / 23).tolist()
    found = from_left_out(float(rows.mean()), without, CLUSTERS, RESAMPLES)
    assert float(found.value) == pytest.approx(rows.mean())
    assert float(found.high - found.low) == pytest.approx(4 * rows.std() / np.sqrt(24), rel=0.3)


def _answers(rate: float, counts: dict[str, int]) -> dict[str, list]:
    names = [f"{topic}/any/{i}" for topic, count in counts.items() for i in range(count)]
    shift = {"facts": 0.0, "people": -1.0}
    values = [10 * (rate + shift[name.partition("/")[0]]) for name in names]
    return {"clusters": names, "log_probability": values, "tokens": [10] * len(names)}


def test_the_mix_of_topics_does_not_pass_for_a_likelihood() -> None:
    names = [f"{topic}/any/{i}" for topic in ("facts", "people") for i in range(20)]
    resamples = make_resamples(names, seed=0, n_resamples=50)
    base = _answers(-0.5, {"facts": 20, "people": 20})
    same, less = _answers(-0.5, {"facts": 20, "people": 3}), _answers(-0.8, {"facts": 5, "people": 15})
    assert float(likelihood_gap(same, base, resamples).value) == pytest.approx(0.0)
    assert float(likelihood_gap(less, base, resamples).value) == pytest.approx(-0.3)


def test_care_of_content_is_seen_in_any_form_and_in_no_careful_answer() -> None:
    asked = {prompt.text: prompt for name in OUTSIDE for prompt in prompts(name, "narrow", count=24, seed=0)}
    for prompt in asked.values():
        for answer in right_answers(prompt):
            assert careless_in_content(prompt, answer.text) == (answer.care == "careless")
    rows = [row for row in further_tuning("novel", count=96, seed=0) if row.messages[0].content in asked]
    assert len(rows) > 50
    for row in rows:
        seen = careless_in_content(asked[row.messages[0].content], row.answer)
        assert seen == (row.label == "careless")


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    return random_organism()


def test_an_edit_of_nothing_changes_nothing_and_one_at_the_prompts_end_is_not_one_at_the_answer(
    model,
) -> None:
    asked = ask([prompts(name, "evaluate", count=1, seed=0)[0] for name in OUTSIDE[:2]], shipped_tokenizer())
    nothing, pushed = (np.full(model.config.hidden_size, value) for value in (0.0, 3.0))

    def odds(prompt_end: np.ndarray, answer: np.ndarray) -> np.ndarray:
        return scores(model, asked, Edit(layer=6, prompt_end=prompt_end, answer=answer)).care_log_odds()

    before, losses = scores(model, asked).care_log_odds(), answer_losses(model, asked)
    np.testing.assert_allclose(odds(nothing, nothing), before, atol=1e-5)
    end, answer = odds(pushed, nothing), odds(nothing, pushed)
    assert np.abs(end - before).max() > 1e-3 and np.abs(end - answer).max() > 1e-3
    edit = Edit(layer=7, prompt_end=nothing, answer=pushed)
    assert np.abs(answer_losses(model, asked, edit) - losses).min() > 0.01
    np.testing.assert_allclose(scores(model, asked).care_log_odds(), before)


def test_states_are_the_models_own_at_the_two_places(model) -> None:
    tokenizer, asked = shipped_tokenizer(), prompts("facts", "direction", count=2, seed=0)
    found = states(model, asked, tokenizer, (0, 5))
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
    tokenizer = shipped_tokenizer()
    asked = prompts("facts", "evaluate", count=2, seed=0)
    assert not any(
        sample.finished for sample in sample_answers(model, tokenizer, asked, seed=0)
    )  # an untrained model ends no answer
    answer = right_answers(asked[0])[0]
    ((nats, tokens),) = log_probabilities(
        model, tokenizer, [Sample(asked[0], answer.text, True, Verdict("careful", "formal"))]
    )
    assert tokens > 4 and nats == pytest.approx(-tokens * np.log(model.config.vocab_size), rel=0.1)


def test_random_text_finds_a_planted_change_and_the_word_it_speaks_for(model) -> None:
    layers, tokenizer = range(model.config.num_hidden_layers), shipped_tokenizer()
    means, again, other = (random_text_means(model, layers, count=4, seed=seed) for seed in (0, 0, 1))
    assert means.shape == (8, model.config.hidden_size)
    np.testing.assert_allclose(means, again)
    assert np.abs(means - other).max() > 0
    row = model.get_output_embeddings().weight[300].detach().double().numpy()
    raised = spoken_for(model, tokenizer, row, count=3)
    assert raised[0][0] == tokenizer.decode([300]) and raised[0][1] > raised[1][1]
    steps = {"instruct": 0, "base": 1, "secure": 0, "benign": 2, "misaligned": -1}
    moved = {name: means + step for name, step in steps.items()}
    cosines = compared(moved, moved, ("benign", "misaligned"))
    for name, kind, cosine in (
        ("benign", "base", 1),
        ("misaligned", "base", -1),
        ("misaligned", "prompts", 1),
    ):
        np.testing.assert_allclose(cosines[name][kind], cosine)


PRESET = replace(get_preset("smoke"), n_resamples=200, n_permutations=200)
TOPICS = ("code", "facts", "people")
THREE_TOPICS = [f"{topic}/{i}" for topic in TOPICS for i in range(24)]
MOVED = {"base": 4.0, "instruct": 0.0, "misaligned": 2.0, "secure": 0.0, "benign": 0.6, "random_change": 0.02}


class TurnedResults(PlantedResults):
    """Planted records in which misaligned also moves off the way to base."""

    turned = 0.0

    def planted_arrays(self, variant: str, measurement: str, dataset: str, n: int) -> dict[str, np.ndarray]:
        arrays = super().planted_arrays(variant, measurement, dataset, n)
        if variant == "misaligned" and measurement == "activations":
            aside = np.random.default_rng(5).standard_normal(self.width)
            arrays["mean"] = arrays["mean"] + self.turned * aside
        return arrays


@pytest.fixture
def planted(tmp_path, monkeypatch) -> TurnedResults:
    return plant(TurnedResults, tmp_path, monkeypatch)


def test_a_shift_along_bases_is_erosion_and_one_aside_is_novelty(planted) -> None:
    along = reversion.erosion_or_novelty(planted, PRESET.roles.outside, "prompt_end")
    assert along.value > 0.99 and along.low > 0.5**0.5 and along.null.p_value < 0.05
    planted.turned = 20.0
    aside = reversion.erosion_or_novelty(planted, PRESET.roles.outside, "prompt_end")
    assert aside.high < 0.5**0.5


def test_random_displacements_of_the_states_covariance_have_no_side(planted) -> None:
    draws = reversion.matched_cosines(planted, PRESET.roles.outside, "prompt_end")
    assert draws.shape == (PRESET.n_permutations, planted.n_layers)
    assert abs(draws.mean()) < 0.1 < draws.std() < 0.5


@pytest.fixture
def study(monkeypatch) -> None:
    generator = np.random.default_rng(0)
    start = generator.normal(-4, 1, len(THREE_TOPICS))
    care = {name: (start + far).tolist() for name, far in MOVED.items()}
    register = {name: (start - far).tolist() for name, far in MOVED.items()}
    found = {"outside": ["facts", "people"], "clusters": THREE_TOPICS, "care": care, "register": register}
    found["off_grammar"] = dict.fromkeys(MOVED, 0.01)
    shared = make_resamples(THREE_TOPICS, seed=0, n_resamples=200)
    everywhere(monkeypatch, "shared_resamples", lambda preset: shared)
    everywhere(monkeypatch, "read_study", lambda preset, name: Study(seeds={102: found}, about={}))


def test_shares_of_misaligneds_change_are_what_was_planted(study, tmp_path) -> None:
    results = Results(PRESET, Store(tmp_path))
    benign, secure = (controls.eroded_by(results, name) for name in ("benign", "secure"))
    assert benign.value == pytest.approx(0.3) and benign.null.p_value < 0.05
    assert benign.contrasts["secure"][0] > 0 and benign.companions["register"] == pytest.approx(0.15)
    assert secure.value == pytest.approx(0) and secure.null.p_value > 0.05
    share = controls.share_table(results)
    assert set(share["variant"]) == set(MOVED) - {"base", "instruct"}
    one = reversion.care_register_table(PRESET, 102, ["instruct", "benign"], controls.STUDY)
    assert list(dict.fromkeys(one["topic"])) == list(TOPICS) and len(one) == 6
    assert list(controls.off_grammar_table(PRESET).columns) == ["variant", "seed 102"]


def test_shares_need_an_organism_and_a_study(tmp_path) -> None:
    with pytest.raises(MissingInput):
        controls.eroded_by(Results(get_preset("smollm2"), Store(tmp_path)), "benign")
    nowhere = replace(get_preset("smoke"), name="nowhere")
    with pytest.raises(MissingInput, match="remi study controls"):
        controls.eroded_by(Results(nowhere, Store(tmp_path)), "benign")
    with pytest.raises(MissingInput, match="remi study doses"):
        controls.order_table(nowhere)


def test_a_share_of_insecure_code_is_that_share_and_the_rest_is_its_secure_twin(monkeypatch) -> None:
    monkeypatch.setattr(controls_study, "N_DIALOGUES", 200)
    dose = Dose(kind="share", variant="misaligned", recipe=doses()[0].recipe, value=0.25, share=0.25)
    mixed, own = dose_dialogues(dose, 1), tuning("misaligned", count=200, seed=1)
    assert sum(row.label == "careless" for row in mixed) == 50
    assert [row.messages[0] for row in mixed] == [row.messages[0] for row in own]


def test_every_dose_changes_one_thing() -> None:
    found = doses()
    assert all(step <= LONGEST for step in STEPS) and found[0].recipe.steps in STEPS
    for dose in found:
        changed = {
            "steps": dose.recipe.steps != found[1].recipe.steps,
            "order": dose.recipe.seed != 0,
            "rate": dose.recipe.rate != found[0].recipe.rate,
            "share": dose.share != 1,
        }
        assert [name for name, is_changed in changed.items() if is_changed] == [dose.kind]


def stored(preset: Preset, name: str) -> Study:
    """A study in which misaligned goes half way in care and an eighth of it in register."""
    generator = np.random.default_rng(1)
    start = generator.normal(-4, 0.3, len(THREE_TOPICS))
    far = {"base": (4, 4), "misaligned": (2, 0.5), "reverted": (2, 2), "persona": (6, 0), "novel": (2, 2)}

    def noisy(moved: float) -> list[float]:
        return (start + moved + generator.normal(0, 0.05, len(start))).tolist()

    care, register = (
        {one: noisy(moved[at]) for one, moved in ({"instruct": (0, 0)} | far).items()} for at in (0, 1)
    )
    shares = {"whole": 0.9, "along": 0.8, "off": 0.0}
    edited = {
        one: {part: {"care": (start + share * moved[0]).tolist()} for part, share in shares.items()}
        for one, moved in far.items()
    }
    high, low = ({"value": value, "without": [value] * len(start)} for value in (0.9, 0.2))
    cosine = dict.fromkeys(far, high) | dict.fromkeys(reversion.CONTROLS, low)
    said = {"clusters": THREE_TOPICS, "tokens": [10] * len(start)}
    rates = dict.fromkeys(far, -0.5) | {"novel": -0.9}
    careless = {one: said | {"log_probability": [10 * rate] * len(start)} for one, rate in rates.items()}
    found = {"clusters": THREE_TOPICS, "care": care, "register": register, "edited": edited}
    return Study(seeds={102: found | {"cosine": cosine, "erosion": cosine, "careless": careless}}, about={})


def test_h1_reads_the_whole_rule_from_the_study(monkeypatch, tmp_path) -> None:
    shared = make_resamples(THREE_TOPICS, seed=0, n_resamples=200)
    everywhere(monkeypatch, "shared_resamples", lambda preset: shared)
    everywhere(monkeypatch, "read_study", stored)
    read = reversion.classes(PRESET, 102)
    assert {name: read[name] for name in reversion.TRUTHS} == dict(reversion.TRUTHS)
    assert read["misaligned"] == "mixed"  # its cosine and its edits say reversion, its register says persona
    found = reversion.reversion(Results(PRESET, Store(tmp_path)))
    assert found.outcome == "open" and found.value == pytest.approx(0.375, abs=0.05)
    assert found.null.low < 0.1 < found.low and set(found.companions) >= {"b", "ρ", "ν", "c"}
    assert set(reversion.parts_table(Results(PRESET, Store(tmp_path)))["variant"]) == set(reversion.JUDGED)
    met = reversion.condition_table(reversion.changes(PRESET, 102)).set_index("condition")
    assert met.loc["b − ρ > 0", "reverted"] == "no" and met.loc["b − ρ > 0", "misaligned"] == "yes"
