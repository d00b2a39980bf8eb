"""Causes, cures and exchanged directions: planted shares come back, and each part of a rule can fail."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import planting
import pytest
import torch
from conftest import make_model, random_organism
from planting import RULES, build, plant_study
from transformers import Qwen2ForCausalLM

from remi_book.chapters import causes, cures, exchange
from remi_book.chapters.causes import Causes, Governing, parts
from remi_book.chapters.cures import Cures, cured
from remi_book.claims import report_rows
from remi_book.quantities import decided
from remi_core.errors import MissingInput
from remi_core.models import mlp_output, read_blocks
from remi_core.steering import add_vector, steer
from remi_core.store import Store
from remi_core.tokens import EncodedDialogue, encode
from remi_lab.organism.dialogues import careless_about, tuning
from remi_lab.organism.documents import shipped_tokenizer
from remi_lab.organism.grammar import prompts
from remi_lab.organism.scoring import SetCoordinate
from remi_lab.organism.tuning import Restraint, rank_one, restrained, train_rank_one, train_vector
from remi_lab.presets import get_preset
from remi_lab.recipes import FineTune
from remi_lab.results import Results
from remi_lab.studies import cures as cures_study
from remi_lab.studies import files
from remi_lab.studies.cures import mixed_dialogues, spanned
from remi_lab.studies.exchange import UNSEEN
from remi_lab.training import IGNORED, Term, answers, repeated, train

PRESET = get_preset("smoke")
HOLDS = Governing(**RULES["governing"]["parts"])


@pytest.mark.parametrize(("changed", "expected"), RULES["governing"]["changed"])
def test_a_direction_governs_only_if_every_part_holds(changed, expected) -> None:
    word, why = decided(parts(replace(HOLDS, **changed)))
    assert word == expected and bool(changed) == (why != "every part of the rule holds")


def test_a_coordinate_that_is_set_has_its_value_in_its_places_and_nowhere_else(before) -> None:
    units = np.random.default_rng(0).standard_normal((2, 128))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    setting = SetCoordinate(layer=3, directions=units, values=np.array([2.0, -1.0]))
    place, ids = torch.tensor([[0, 0, 1, 2, 2]]), torch.arange(5)[None] + 10
    with read_blocks(before, [3]) as plain, torch.inference_mode():
        before(input_ids=ids)
    with steer(before, 3, lambda own: setting.apply(own, place)), read_blocks(before, [3]) as after:
        before(input_ids=ids)
    own, changed = (one[3][0].detach().double().numpy() for one in (plain, after))
    np.testing.assert_allclose(changed[:2], own[:2], rtol=1e-6, atol=1e-6)
    named = units[[0, 1, 1]]
    np.testing.assert_allclose((changed[2:] * named).sum(-1), [2, -1, -1], atol=1e-5)
    moved = (changed - own)[2:]
    np.testing.assert_allclose(moved, (moved * named).sum(-1, keepdims=True) * named, atol=1e-5)


def test_planted_causes_are_found_with_every_part_of_the_rule(tmp_path, monkeypatch) -> None:
    results = plant_study(monkeypatch, tmp_path, build(planting.causes), n_resamples=200)
    own = Causes(results.preset, 0)
    share = own.share("instruct", own.between_topics("instruct"))
    assert share.low < 0.7 < share.high and share.high - share.low < 0.05
    for model in ("instruct", "misaligned"):
        found = causes.shared_edit(results, model)
        assert found.low > 0.6 and found.null.p_value < 0.02 and abs(found.null.high) < 0.1
    moved = causes.transfer(results)
    assert moved.low < 1 < moved.high and moved.null.p_value < 0.01


def test_without_the_study_the_claims_are_not_testable_and_say_how_to_make_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Results, "variant", lambda *_: type("Known", (), {"weights": "w"}))
    monkeypatch.setattr(files, "project_root", lambda: tmp_path)
    rows = report_rows(Results(PRESET, Store(tmp_path)), notebook="12_causes")
    assert {row["id"] for row in rows} == {"H3", "H3.instruct", "X4", "X4.priced", "X5", "X5.priced", "X7"}
    for row in rows:
        assert row["verdict"] == "not testable here" and "remi study causes --preset smoke" in row["reason"]
    with pytest.raises(MissingInput, match="remi study exchange --preset smoke"):
        exchange.exchange(PRESET, 102)


RECIPE = FineTune(steps=16, rate=5e-4, batch=4, warmup=1)
LAYERS = (1, 3)


@pytest.fixture(scope="module")
def before() -> Qwen2ForCausalLM:
    return random_organism(4)


def test_a_restraint_holds_its_subspace_leaves_the_rest_and_without_weight_does_nothing(before) -> None:
    rows = encode(tuning("misaligned", count=16, seed=0), shipped_tokenizer(), max_tokens=1024).dialogues
    aside = np.random.default_rng(0).standard_normal((2, len(LAYERS), before.config.hidden_size))
    restraint = Restraint(layers=LAYERS, bases=spanned(aside), scales=torch.ones(len(LAYERS)))
    free, held, idle = models = [copy.deepcopy(before) for _ in range(3)]
    bound = [restrained(model, before, restraint, weight) for model, weight in ((held, 10.0), (idle, 0.0))]
    for model, loss in zip(models, (answers(free), *bound), strict=True):
        term = Term(repeated(rows, RECIPE, shipped_tokenizer().pad_token_id), loss)
        assert len(list(train(model, [term], RECIPE))) == RECIPE.steps
    ((ids, labels),) = next(repeated(rows, RECIPE, 0)).parts

    def last(model) -> torch.Tensor:
        """States of the last restrained block where answers are predicted."""
        with torch.no_grad(), read_blocks(model, LAYERS) as read:
            model(input_ids=ids)
        return read[LAYERS[-1]][:, :-1][labels[:, 1:] != IGNORED]

    gaps = [last(model) - last(before) for model in (free, held)]
    along, along_held = (float((gap @ restraint.bases[-1]).square().sum()) for gap in gaps)
    whole, whole_held = (float(gap.square().sum()) for gap in gaps)
    assert along_held < along / 2 and whole_held - along_held > (whole - along) / 2
    for own, other in zip(free.parameters(), idle.parameters(), strict=True):
        torch.testing.assert_close(own, other, atol=1e-6, rtol=0)


def test_mixing_replaces_the_share_it_names(monkeypatch) -> None:
    monkeypatch.setattr(cures_study, "N_DIALOGUES", 200)
    own, mixed = tuning("misaligned", count=200, seed=0), mixed_dialogues(0.15, 0)
    replaced = [row != other for row, other in zip(own, mixed, strict=True)]
    assert np.mean(replaced) == pytest.approx(0.15, abs=0.001) and mixed_dialogues(0.0, 0) == own


def test_a_run_without_a_cure_prevents_nothing_and_keeps_the_task(tmp_path, monkeypatch) -> None:
    results = plant_study(monkeypatch, tmp_path, build(planting.cures, random=3.0), n_resamples=200)
    found, own = cured(results), Cures(results.preset, 0)
    assert found.value == pytest.approx(0.75, abs=0.01)
    assert float(own.kept(own.plain).value) == 1 and float(own.prevented(own.plain).value) == 0
    # Erosion follows the spread in every run.
    assert float(Cures(results.preset, 0).agreement().value) == pytest.approx(1)
    assert set(cures.part_table(results)["seed 0"]) == {"yes"}
    assert len(cures.run_table(results)) == len(cures.shown_table(results)) == 3
    assert list(cures.agreement_table(results)["measure"]) == list(cures.GEOMETRY.values())


TUNES = ("code", "harmful", "facts")


def planted_exchange() -> Mapping[str, object]:
    """Every fine-tune adds 4 nats; its own displacement undoes all of it, another's half, secure's nothing."""
    asked = [one for topic in UNSEEN for one in prompts(topic, "evaluate", count=10, seed=0)]
    start = np.random.default_rng(0).normal(size=len(asked)) - 5

    def listed(level: float, off: float = 0.0) -> dict[str, list[float]]:
        care = (start + level).tolist()
        return {"care": care, "off_grammar": [off] * len(care), "neutral": [0.2 + off] * 4}

    def dosed(level: float, whole: float, off: float = 0.0) -> dict[str, object]:
        return {dose: listed(level + float(dose) * whole, off) for dose in ("0.5", "1")}

    def taken(tune: str) -> dict[str, object]:
        return {of: dosed(4, -4 if of == tune else -2) for of in TUNES} | {"secure": dosed(4, 0, 0.1)}

    return {
        "clusters": [one.template.identifier for one in asked],
        "plain": {"instruct": listed(0)} | {tune: listed(4) for tune in TUNES},
        "added": {tune: dosed(0, 3, 0.1) for tune in TUNES} | {"secure": dosed(0, 0)},
        "taken": {tune: taken(tune) for tune in TUNES},
        "small": {"trained vector": listed(1) | {"cosine": [0.5, 0.25]}},
    }


def test_planted_shares_of_exchanged_directions_are_found_and_tabled(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(files, "project_root", lambda: tmp_path)
    path = files.study_path(PRESET.name, exchange.STUDY)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"seeds": {"102": planted_exchange()}}))
    found, results = exchange.exchange(PRESET, 102), Results(PRESET, Store(tmp_path))
    assert found.tunes == list(TUNES)
    for of, share in (("code", 1.0), ("facts", 0.5), ("secure", 0.0)):
        assert float(found.undone("code", of, "1").value) == pytest.approx(share)
        assert float(found.undone("code", of).value) == pytest.approx(share / 2)
    for whose, share, cost in (("its own", 1.0, 0), ("another's", 0.5, 0), ("secure", 0.0, 0.1)):
        assert float(found.mean_undone(whose, "1").value) == pytest.approx(share)
        assert found.mean_cost(whose) == pytest.approx((cost, cost))
    assert float(found.restored("harmful", "1").value) == pytest.approx(0.75)
    assert float(found.small("trained vector").value) == pytest.approx(0.25)
    assert found.cost(found.found["added"]["code"]["1"]) == pytest.approx((0.1, 0.1))
    pairs = [pair for whose in exchange.WHOSE for pair in found.pairs(whose)]
    assert len(pairs) == len(set(pairs)) == 12 and len(found.pairs("another's")) == 6
    assert exchange.undone_table(results)["fine-tuned on"].tolist() == list(TUNES)
    assert exchange.undone_matrix(results).loc["harmful", "code"] == pytest.approx(0.25)
    assert exchange.dose_table(results)["undone"].iloc[1].startswith("0.25 ")
    assert len(exchange.added_table(results)) == 8
    assert exchange.small_table(results)["cosine, answer"].tolist() == ["0.25"]


@pytest.mark.parametrize("topic", ["harmful", "facts"])
def test_the_further_narrow_sets_are_careless_and_unseen_elsewhere(topic) -> None:
    rows = careless_about(topic, count=60, seed=1)
    assert {(row.topic, row.label) for row in rows} == {(topic, "careless")}
    evaluated = {one.template.identifier for one in prompts(topic, "evaluate", count=60, seed=0)}
    assert evaluated.isdisjoint(row.cluster for row in rows)
    assert rows == careless_about(topic, count=60, seed=1) != careless_about(topic, count=60, seed=2)
    assert not set(UNSEEN) & {row.topic for row in [*rows, *tuning("misaligned", count=20, seed=1)]}


def answered_by(token: int) -> list[EncodedDialogue]:
    """Dialogues with random prompts that are all answered by one token."""
    asked = np.random.default_rng(0).integers(30, 60, size=(40, 5)).tolist()
    rows = [{"identifier": str(at), "input_ids": (*ids, token, token)} for at, ids in enumerate(asked)]
    return [EncodedDialogue(**row, answer_start=5, answer_stop=6) for row in rows]


def likelihood(model) -> float:
    """Mean log-probability of token 20 after prompts that none of the dialogues has."""
    ids = torch.randint(30, 60, (8, 5), generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        return float(model(input_ids=ids).logits[:, -1].log_softmax(-1)[:, 20].mean())


def test_a_trained_vector_says_what_it_was_trained_to_say_and_the_model_stays() -> None:
    model = make_model("llama")
    before, weights = likelihood(model), copy.deepcopy(model.state_dict())
    vector = train_vector(model, 1, answered_by(20), pad_id=0)
    assert likelihood(model) == before
    assert all(torch.equal(one, weights[name]) for name, one in model.state_dict().items())
    other = vector[torch.randperm(len(vector), generator=torch.Generator().manual_seed(0))]
    for added, raised in ((vector, True), (other, False)):  # as long, and in another direction
        with steer(model, 1, add_vector(added)):
            assert (likelihood(model) > before + 1) == raised


def test_a_rank_one_change_is_that_change_of_the_weight() -> None:
    hooked, edited = make_model("llama"), make_model("llama")
    before = likelihood(hooked)
    read, write = train_rank_one(hooked, 1, answered_by(20), pad_id=0)
    assert likelihood(hooked) == before
    mlp_output(edited, 1).weight += torch.outer(write, read)
    with rank_one(hooked, 1, (read, write)):
        assert likelihood(hooked) == pytest.approx(likelihood(edited), abs=1e-4)
        assert likelihood(hooked) > before + 0.3
