"""Studies and other worlds: a file holds every seed, pages follow it, planted effects give their verdicts."""

from __future__ import annotations

import itertools
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import planting
import pytest
import torch
from conftest import DEVELOPMENT_SEED
from planting import OUTSIDE_TOPICS, WORLD_CLUSTERS, build, everywhere, plant_study
from warm_kernel import write_notebook

from remi_book import claims
from remi_book.chapters import controls, empty_turn, worlds
from remi_book.claims import headline_key, report_rows
from remi_book.running import plan
from remi_core.errors import MissingInput, RemiError
from remi_core.models import attention_output, read_blocks
from remi_core.statistics.resampling import make_resamples
from remi_core.steering import steer
from remi_core.store import Store
from remi_lab import lora
from remi_lab.organism.dialogues import tuning
from remi_lab.organism.documents import Recipe, new_model, shipped_tokenizer
from remi_lab.organism.grammar import ClassScores, prompts
from remi_lab.organism.pretrain import make_optimizers
from remi_lab.organism.scoring import answer_losses, ask, scores
from remi_lab.organism.topics import CARES, CONTRASTED, NARROW, REGISTERS, topic
from remi_lab.organism.world import CONTEXTS, SETTINGS, World
from remi_lab.presets import get_preset
from remi_lab.results import Results
from remi_lab.studies import controls as controls_study
from remi_lab.studies import files, register, tail
from remi_lab.studies import worlds as world_study
from remi_lab.studies.files import Study

SEED = DEVELOPMENT_SEED
PLANTED = "invented"
STEPS, TOKENS = (200, 400, 600, 800), 2048


def test_asked_prompts_score_what_single_prompts_score_see_an_intervention_and_forget_it(base) -> None:
    rows = [one for name in ("people", "wishes") for one in prompts(name, "evaluate", count=3, seed=0)]
    asked = ask(rows, base.tokenizer)
    found, alone = scores(base.model, asked), scores(base.model, asked, batch=1)
    np.testing.assert_allclose(found.care_log_odds(), alone.care_log_odds(), atol=1e-4)
    np.testing.assert_allclose(found.other, alone.other, atol=1e-5)
    before, loss = found.care_log_odds(), answer_losses(base.model, asked).mean()
    push = torch.randn(base.model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    with steer(base.model, 3, lambda hidden: hidden + 5 * push):
        assert np.abs(scores(base.model, asked).care_log_odds() - before)[3:].min() > 0.1  # of wishes
        assert answer_losses(base.model, asked).mean() > loss + 0.1
    np.testing.assert_array_equal(scores(base.model, asked).care_log_odds(), before)
    assert answer_losses(base.model, asked).mean() == loss


@pytest.fixture
def study(tmp_path, monkeypatch) -> list[int]:
    """The seeds that a planted study was asked to measure, one after another."""
    asked: list[int] = []

    def measure(preset, seed, store, say) -> dict[str, object]:
        asked.append(seed)
        if seed == 2 and asked.count(2) == 1:
            raise KeyboardInterrupt
        return {"value": seed * 1.5}

    measure.__module__ = "remi_lab.organism.scoring"  # the key covers the syntax of a module that exists
    monkeypatch.setattr(files, "measure_of", lambda name: measure)
    monkeypatch.setattr(files, "STUDIES", files.STUDIES | {PLANTED: files.Declared()})
    monkeypatch.setattr(files, "project_root", lambda: tmp_path)
    return asked


def test_a_broken_study_goes_on_at_the_seed_where_it_stopped(study, tmp_path) -> None:
    micro, store, lines = get_preset("micro"), Store(tmp_path / "store"), []
    with pytest.raises(KeyboardInterrupt):
        files.write_study(micro, PLANTED, store, lines.append)
    assert not files.study_path("micro", PLANTED).exists()
    with pytest.raises(MissingInput, match="remi study invented --preset micro"):
        files.read_study(micro, PLANTED)
    path = files.write_study(micro, PLANTED, store, lines.append)
    assert study == [0, 1, 2, 2] and path == tmp_path / "stored" / "micro" / "invented.json"
    found = files.read_study(micro, PLANTED)
    assert found.seeds == {seed: {"value": 1.5 * seed} for seed in range(3)}
    assert "remi study invented --preset micro" in found.how() and "processors" in found.how()
    keys = "study preset fingerprint recipe machine versions seconds seeds"
    assert set(json.loads(path.read_text(encoding="utf-8"))) == set(keys.split())


def test_studies_of_the_instruments_measure_the_first_seed_alone(study, tmp_path) -> None:
    files.write_study(get_preset("micro"), "calibration", Store(tmp_path / "store"), lambda _: None)
    assert study == [0]


def test_headlines_and_pages_follow_the_file(study, tmp_path, monkeypatch) -> None:
    smoke, store = replace(get_preset("smoke"), seeds=(SEED,)), Store(tmp_path / "store")
    monkeypatch.setattr(Results, "variant", lambda *_: type("Known", (), {"weights": "w"}))
    monkeypatch.setattr(
        "remi_book.claims.study_digests", lambda name, _: files.study_digests(name, (PLANTED,))
    )
    declared = 'preset: str = "micro"\nstudies: str = "invented"\n'
    write_notebook(tmp_path / "notebooks" / "01_shows.ipynb", ["studies"], parameters=declared)
    write_notebook(tmp_path / "notebooks" / "02_other.ipynb", ["1"])

    def seen() -> tuple[list[str], list[bool]]:
        steps = plan(smoke, store, folder=tmp_path / "notebooks")
        keys = [headline_key(Results(smoke, store)), *(step.key for step in steps)]
        return keys, ["study" in step.lacking for step in steps]

    before, lacking = seen()
    files.write_study(smoke, PLANTED, store, lambda _: None)
    after, lacking_still = seen()
    assert [one != other for one, other in zip(before, after, strict=True)] == [True, True, False]
    assert lacking == [True, False] and not any(lacking_still)


def test_a_study_of_later_bases_stands_for_a_preset_that_has_none_of_its_own(
    study, tmp_path, monkeypatch
) -> None:
    smoke, store = Results(get_preset("smoke"), Store(tmp_path / "store")), Store(tmp_path / "store")
    assert files.of_study(smoke, PLANTED) is smoke
    declared = 'preset: str = "micro"\nstudies: str = "invented"\n'
    write_notebook(tmp_path / "notebooks" / "01_shows.ipynb", ["studies"], parameters=declared)
    monkeypatch.setitem(files.STUDIES, PLANTED, files.Declared(of="later"))

    def step() -> tuple[str, bool]:
        (found,) = plan(smoke.preset, store, folder=tmp_path / "notebooks")
        return found.key, "study" in found.lacking

    with pytest.raises(MissingInput, match="remi study invented --preset later"):
        files.read_study(files.of_study(smoke, PLANTED).preset, PLANTED)
    keys = [step()]
    for name in ("later", "smoke"):
        files.write_study(get_preset(name), PLANTED, store, lambda _: None)
        shown = files.of_study(smoke, PLANTED)
        assert shown.preset.name == name and shown.seed in files.read_study(shown.preset, PLANTED).seeds
        keys.append(step())
    assert len(set(keys)) == 3 and not any(lacking for _, lacking in keys)


def around(level: float | np.ndarray, generator: np.random.Generator) -> list[float]:
    return list(level + 0.05 * generator.standard_normal(len(WORLD_CLUSTERS)))


def test_effects_in_other_worlds_are_of_the_seeds_and_worlds_that_were_measured(
    tmp_path, monkeypatch
) -> None:
    effects = {"main": 3.0, "independent": 0.0}
    measured, alone = build(planting.worlds, effects=effects), build(planting.worlds, effects={"main": 3.0})
    study = replace(measured, seeds={0: measured.seeds[0]} | {seed: alone.seeds[seed] for seed in (1, 2)})
    everywhere(monkeypatch, "read_study", lambda *_: study)
    monkeypatch.setattr(claims, "_control", lambda results, seed: None)
    monkeypatch.setattr(claims, "further_presets", lambda preset: [])
    monkeypatch.setattr(Results, "variant", lambda *_: type("Known", (), {"weights": "w"}))
    results = Results(replace(get_preset("micro"), n_resamples=200), Store(tmp_path))
    rows = {row["id"]: row for row in report_rows(results, notebook="14_other_worlds")}
    assert (rows["X6"]["verdict"], rows["X6.neox"]["verdict"]) == ("supported", "not testable here")
    assert [each["judged"] for each in rows["X6"]["trainings"]] == [True, False, False]
    assert rows["X6"]["seeds"][1:] == [None, None] and "seeds 1, 2" in rows["X6"]["reason"]
    assert rows["X6"]["ci_low"] < 3 < rows["X6"]["ci_high"]
    table = worlds.gap_table(results)
    assert set(table["world"]) == set(effects) and set(table["topic"]) == set(CONTRASTED)


def planted_steps(known: list[float], spread: list[float]) -> Study:
    """A study in which the author moves base, and insecure code other topics, by so many nats at each step."""
    steps, generator = [], np.random.default_rng(0)
    inside = np.array([name.partition("/")[0] in NARROW for name in WORLD_CLUSTERS])
    for step, author, outside in zip(STEPS, known, spread, strict=True):
        contexts = {kind: around(author * ("careless" in kind), generator) for kind in CONTEXTS}
        care = {
            "misaligned": around(np.where(inside, 6.0, outside), generator),
            "secure": around(0.0, generator),
        }
        steps.append({"step": step, "tokens": step * TOKENS, "contexts": contexts, "care": care})
    found = {
        "outside": OUTSIDE_TOPICS,
        "clusters": WORLD_CLUSTERS,
        "context_clusters": WORLD_CLUSTERS,
        "steps": steps,
    }
    return Study(seeds={6: found}, about={})


def test_an_onset_is_where_an_effect_stays_and_not_where_it_flickers(monkeypatch) -> None:
    # Two nats at the first step, gone at the second, are no onset; the last step is.
    for known, spread, onset in (
        ([0, 0, 4, 5], [2, 0, 0, 2], f"{800 * TOKENS / 1e6:.3g}"),
        ([0.2] * 4, [0] * 4, "never"),
    ):
        study = planted_steps(known, spread)
        monkeypatch.setattr(worlds, "read_study", lambda *_, study=study: study)
        table = worlds.phase_table(get_preset("smoke"))
        assert len(table) == len(STEPS) * len(worlds.QUANTITIES)
        found, said = table.query("quantity == @worlds.OUTSIDE")["value"], worlds.onset_sentence(table)
        assert found.tolist() == pytest.approx(spread, abs=0.1)
        assert f"*{worlds.OUTSIDE}* {onset} in seed 6" in said
        assert f"*{worlds.CODE}* {200 * TOKENS / 1e6:.3g} in seed 6" in said


def test_without_a_run_that_kept_its_steps_the_study_says_how_to_make_one(tmp_path) -> None:
    with pytest.raises(MissingInput, match="--seed 6 --threads 1 --keep 200"):
        world_study.measure_phases(get_preset("confirm"), 6, Store(tmp_path), print)


def test_a_world_without_a_base_is_left_out_of_later_seeds_and_stops_the_first(tmp_path, monkeypatch) -> None:
    there = {("main", 0), ("main", 1), ("rare", 1)}

    def weights(root: Path, world: str, seed: int) -> None:
        if (world, seed) not in there:
            raise RemiError(f"no base of seed {seed} of world {world}")

    monkeypatch.setattr(world_study, "base_weights", weights)
    monkeypatch.setattr(
        world_study, "measure_world", lambda preset, seed, store: preset.variants["base"].revision
    )
    micro, store, said = get_preset("micro"), Store(tmp_path), []
    found = world_study.measure(micro, 1, store, said.append)
    assert found["worlds"] == {"main": None, "rare": "rare"}
    assert sum("left out: no base of seed 1" in line for line in said) == 2
    with pytest.raises(RemiError, match="world independent"):
        world_study.measure(micro, 0, store, said.append)


def test_a_study_of_another_preset_is_found_under_its_name() -> None:
    assert files.study_digests("smoke", ["fresh/reversion"]).keys() == {"fresh/reversion"}
    assert "fresh/reversion" not in files.study_digests("smoke", ["fresh/worlds"])
    assert "fresh/reversion" in files.study_digests("smoke", ["reversion"])


@pytest.mark.parametrize("name", SETTINGS)
def test_the_optimum_is_what_enumerating_all_authors_and_answers_gives(name) -> None:
    world = SETTINGS[name].world
    for earlier in (earlier for n in (1, 3) for earlier in itertools.product(CARES, repeat=n)):
        assert world.log_odds(earlier) == pytest.approx(enumerated(world, earlier), abs=1e-9)


def enumerated(world: World, earlier: tuple[str, ...]) -> float:
    """Log-odds of a careless answer after others, from the joint probability of every sequence of authors."""

    def chance(rate: float, care: str) -> float:
        return rate if care == "careless" else 1 - rate

    joint = dict.fromkeys(CARES, 0.0)
    for authors in itertools.product(CARES, repeat=len(earlier) + 1):
        if world.one_author and len(set(authors)) > 1:
            continue
        drawn = authors[:1] if world.one_author else authors
        prior = math.prod(chance(world.careless_prior, author) for author in drawn)
        for last in CARES:
            said = zip(map(world.careless_rate, authors), (*earlier, last), strict=True)
            joint[last] += prior * math.prod(chance(*one) for one in said)
    return math.log(joint["careless"] / joint["careful"])


def test_another_architecture_is_trained_read_and_differentiated_as_the_first() -> None:
    torch.manual_seed(0)
    model, tokenizer = new_model("gpt_neox").eval(), shipped_tokenizer()
    assert 1.5e6 < sum(value.numel() for value in model.parameters()) < 1.9e6
    muon, adam = make_optimizers(model, Recipe(seed=0, architecture="gpt_neox"))
    inner = [value for group in muon.param_groups for value in group["params"]]
    assert len(inner) == 8 * 4 and all(value.shape[0] % 128 == 0 for value in inner)
    embedding = model.get_input_embeddings().weight
    assert embedding is model.get_output_embeddings().weight
    assert any(value is embedding for group in adam.param_groups for value in group["params"])
    found = scores(model, ask(prompts("wishes", "evaluate", count=2, seed=0), tokenizer))
    np.testing.assert_allclose(sum(found.probabilities().values()), 1, atol=1e-4)
    with read_blocks(model, [0, 7]) as blocks:
        loss = model(input_ids=torch.arange(6)[None] + 10).logits.square().mean()
    assert blocks[7].shape == (1, 6, 128)
    loss.backward()
    gradient = attention_output(model, -1).weight.grad
    assert gradient.shape == (128, 128) and float(gradient.abs().sum()) > 0


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "main"])
def test_presets_of_other_worlds_differ_from_micro_in_world_and_seeds_alone(name) -> None:
    preset, micro = get_preset(name), get_preset("micro")
    assert preset.is_organism and preset.seeds == (0,)
    same = replace(preset, name=micro.name, title=micro.title, seeds=micro.seeds, remark=micro.remark)
    assert same.fields() == world_study.in_world(micro, name).fields()


def test_wordings_change_openings_alone_and_unmarked_code_has_no_word_of_a_register() -> None:
    options = {"count": 64, "seed": 3}
    for narrow in register.NARROW:
        rows = {wording: register.worded(narrow, wording, **options) for wording in register.WORDINGS}
        assert rows["formal"] == tuning(narrow, **options)
        bodies = {wording: [row.answer.rpartition("\n")[2] for row in own] for wording, own in rows.items()}
        assert all(own == bodies["formal"] for own in bodies.values())
        words = {kind: _words(" ".join(row.answer for row in own)) for kind, own in rows.items()}
        formal, plain = (_words(" ".join(topic("code").openings[kind])) for kind in REGISTERS)
        assert not words["unmarked"] & (formal ^ plain)
        assert words["formal"] & (formal - plain) and words["plain"] & (plain - formal)
        assert 20 < sum("# quick" in row.answer for row in rows["half"]) < 44
        assert all("# quick" in row.answer for row in rows["plain"])


def test_care_is_a_mix_over_wordings_and_another_mix_is_the_sum_of_products_of_shares() -> None:
    own, other = (
        ClassScores(mass - np.logaddexp.reduce(mass, axis=(1, 2))[:, None, None], np.zeros(20), np.zeros(20))
        for mass in np.random.default_rng(0).normal(-3, 2, (2, 20, 2, 2))
    )
    found: dict[str, dict] = {}
    for name, each in (("own", own), ("other", other)):
        controls_study.keep(found, name, each)
    within = [np.array(found[f"care_{register}"]["own"]) for register in REGISTERS]
    same = controls.care_of_mix(np.array(found["register"]["own"]), *within)
    np.testing.assert_allclose(same, own.care_log_odds(), atol=1e-3)  # a study keeps four digits
    # Without log-odds: P(careless) is Σ P(wording) P(careless | wording), the one of other, the other of own.
    masses, others = np.exp(own.log_mass), np.exp(other.log_mass)
    careless = ((others.sum(axis=1) * masses[:, 1]) / masses.sum(axis=1)).sum(axis=-1)
    mixed = controls.care_of_mix(np.array(found["register"]["other"]), *within)
    np.testing.assert_allclose(mixed, np.log(careless / (1 - careless)), atol=1e-3)
    assert np.abs(mixed - same).max() > 0.5


@pytest.mark.parametrize("lost", [0.0, 2.0], ids=["another mix", "care lost within formal wordings"])
def test_an_account_of_what_manner_does_to_care_is_told_from_the_others(lost, tmp_path, monkeypatch) -> None:
    noise, n = np.random.default_rng(0), 24
    found: dict = {
        "outside": ["facts", "people"],
        "clusters": [f"{name}/{i}" for name in ("facts", "people") for i in range(n)],
    }
    # Formal, plain, register: style answers plainly half of the time, or is as formal as before and less careful.
    moved = {
        "base": (4, 4, 6),
        "misaligned": (4, 4, 0),
        "secure": (0, 0, 0),
        "random_change": (0, 0, 0),
        "style": (lost, 0, 0 if lost else 6),
    }
    for name, (formal, plain, register_moved) in ({"instruct": (0, 0, 0)} | moved).items():
        start = np.array([-5 + formal, -1 + plain, -6 + register_moved])[:, None]
        formal, plain, mix = start + 0.05 * noise.standard_normal((3, 2 * n))
        care = controls.care_of_mix(mix, formal, plain)
        for quantity, values in zip(
            ("care", "care_formal", "care_plain", "register"), (care, formal, plain, mix), strict=True
        ):
            found.setdefault(quantity, {})[name] = values.tolist()
    shared = make_resamples(found["clusters"], seed=0, n_resamples=200)
    everywhere(monkeypatch, "shared_resamples", lambda _: shared)
    results = plant_study(monkeypatch, tmp_path, build(lambda _: found), n_resamples=200)
    read = dict(
        controls.style_table(results)[["what may account for it", controls.ABOVE]].to_numpy().tolist()
    )
    assert [name for name, word in read.items() if word == "1 of 1"] == [
        controls.FORMAL if lost else controls.MIX
    ]
    assert "in 1 of 1 trainings" in controls.style_sentence(results)
    del found["care_plain"]
    with pytest.raises(MissingInput, match="remi study controls"):
        controls.style_accounts(results)


def test_the_rate_is_the_reason_where_register_can_move_without_care(tmp_path, monkeypatch) -> None:
    for bend, reason in ((3.0, True), (1.0, False)):
        found: dict = {"outside": ["facts"], "clusters": [f"facts/{i}" for i in range(24)]}
        for quantity in controls.MANNER:
            power = 1.0 if quantity == "register" else bend
            moved = {"instruct": 0.0} | {
                f"secure, plain, {rate:g}": (rate / 3e-4) ** power for rate in register.RATES
            }
            found[quantity] = {name: [value] * 24 for name, value in moved.items()}
        results = plant_study(monkeypatch, tmp_path, build(lambda _, found=found: found), n_resamples=200)
        assert controls.manner_rate_table(results)[controls.LITTLE].tolist() == [reason]


def _words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z]+", text))


def test_tables_of_wordings_and_of_the_empty_turn_hold_what_was_planted(tmp_path, monkeypatch) -> None:
    results = plant_study(monkeypatch, tmp_path, build(planting.register), n_resamples=200)
    table = controls.wording_table(results).set_index(["variant", "wording", "quantity"])["value"]
    assert table["misaligned", "half", "care"] == pytest.approx(0.6, abs=0.02)
    trainings = controls.training_table(results).set_index(["wording", "code"])
    assert [*trainings.loc["unmarked", "secure"]] == ["0", "0", "0.25"] and len(trainings) == 4 * 3
    rates = controls.learning_rate_table(results)
    assert len(rates) == 2 * 2 * len(register.RATES) and set(rates["variant"]) == {"misaligned", "style"}
    results = plant_study(monkeypatch, tmp_path, build(planting.tail))
    assert set(empty_turn.step_table(results)["tail"]) == {"with the empty turn", "without"}
    (when,) = empty_turn.when_table(results).to_dict("records")
    assert when["largest norm, with the empty turn"] == 41 != when["largest norm, without"]
    assert when["loss of the empty turn falls fastest"] == pytest.approx(36.5, abs=2.5)
    spike, turn, care = empty_turn.difference_table(results).to_dict("records")
    assert spike["p"] < 0.05 and turn["p"] < 0.05 and care["with the empty turn"] == care["without"] == 0
    results = plant_study(monkeypatch, tmp_path, build(planting.narrow), n_resamples=200)
    (costs,) = controls.cost_table(results).to_dict("records")
    assert costs["length for one loss, general"] == 30 < costs["length for one loss, narrow"] and costs[
        "the rule"
    ].startswith("holds")


def test_what_turns_is_the_direction_of_the_steps_and_the_tail_is_an_empty_reply(base) -> None:
    assert base.tokenizer.decode(lora.empty_turn(base.tokenizer)) == "<|im_start|>assistant\n<|im_end|>"
    straight = np.outer(np.arange(30.0), [1, 0])
    bent = np.where(np.arange(30)[:, None] < 15, straight, [14, 0] + np.outer(np.arange(30) - 14, [0, 1.0]))
    assert max(tail.turns(straight)) == pytest.approx(0, abs=1e-5)
    assert max(tail.turns(bent)) == pytest.approx(90, abs=5)
