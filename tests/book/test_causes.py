"""Causes, cures and exchanged directions: planted shares come back, and each part of a rule can fail."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_model, random_organism
from planting import plant_study
from transformers import Qwen2ForCausalLM

from remi_book.chapters import causes, cures, exchange
from remi_book.chapters.causes import Causes, Governing, parts
from remi_book.chapters.cures import HEADLINE, RANDOM, STOPPING, Cures, cured
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
from remi_lab.studies.files import Study
from remi_lab.training import IGNORED, Term, answers, repeated, train

HOLDS = Governing(
    recovered=(0.6, 0.8),
    undone=(0.55, 0.7),
    recovered_beyond_random=0.3,
    undone_beyond_random=0.2,
    recovered_beyond_secure=(0.4, 0.6),
    undone_beyond_secure=(0.1, 0.3),
    off_grammar=(0.0, 0.04),
    neutral_loss=(-0.01, 0.02),
)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "holds"),
        ({"recovered": (0.3, 0.4)}, "fails"),
        ({"recovered": (0.4, 0.6)}, "open"),
        ({"undone": (0.1, 0.3)}, "fails"),
        ({"recovered_beyond_random": -0.1}, "fails"),
        ({"undone_beyond_random": -0.1}, "fails"),
        ({"recovered_beyond_secure": (-0.2, 0.1)}, "open"),
        ({"undone_beyond_secure": (-0.3, -0.1)}, "fails"),
        ({"off_grammar": (0.06, 0.1)}, "fails"),
        ({"off_grammar": (0.02, 0.1)}, "open"),
        ({"neutral_loss": (0.2, 0.3)}, "fails"),
    ],
)
def test_a_direction_governs_only_if_every_part_holds(changed, expected) -> None:
    word, why = decided(parts(replace(HOLDS, **changed)))
    assert word == expected and bool(changed) == (why != "every part of the rule holds")


def test_a_coordinate_that_is_set_has_its_value_in_its_places_and_nowhere_else() -> None:
    model, generator = random_organism(), np.random.default_rng(0)
    units = np.stack([one / np.linalg.norm(one) for one in generator.standard_normal((2, 128))])
    setting = SetCoordinate(layer=3, directions=units, values=np.array([2.0, -1.0]))
    place = torch.tensor([[0, 0, 1, 2, 2]])
    ids = torch.arange(5)[None] + 10
    with read_blocks(model, [3]) as before, torch.inference_mode():
        model(input_ids=ids)
    with steer(model, 3, lambda own: setting.apply(own, place)), read_blocks(model, [3]) as after:
        model(input_ids=ids)
    own, changed = before[3][0], after[3][0].detach()
    torch.testing.assert_close(changed[:2], own[:2])
    along = (changed.double().numpy()[2:] * units[[0, 1, 1]]).sum(-1)
    np.testing.assert_allclose(along, [2, -1, -1], atol=1e-5)
    moved = (changed - own).double().numpy()[2:]
    across = moved - (moved * units[[0, 1, 1]]).sum(-1, keepdims=True) * units[[0, 1, 1]]
    np.testing.assert_allclose(across, 0, atol=1e-5)


def planted(half_way: float) -> dict[str, object]:
    """A seed of a study in which every direction of another topic goes that share of the way; secure's goes nowhere."""
    generator, topics = np.random.default_rng(2), ("harmful", "facts")

    def around(level: float, spread: float, count: int) -> list[float]:
        return list(level + spread * generator.standard_normal(count))

    def read(level: float) -> dict[str, object]:
        care = {topic: around(level, 0.01, 8) for topic in topics}
        return {"care": care, "off_grammar": {topic: [0.01] * 8 for topic in topics}, "neutral": [0.2] * 8}

    def model(plain: float, other: float, shared: str) -> dict[str, object]:
        there, names = plain + half_way * (other - plain), ("from code", "from harmful", "from facts", shared)
        edits = {name: read(there) for name in names} | {"secure": read(plain)}
        return {
            "plain": read(plain),
            "edits": edits,
            "random": {topic: around(plain, 0.05, 100) for topic in topics},
        }

    clusters = {topic: [f"{topic}/{i}" for i in range(8)] for topic in (*topics, "general")}
    found = {
        "layer": 5,
        "neutral_clusters": clusters.pop("general"),
        "clusters": clusters,
        "n_random_prompts": 4,
    }
    models = {"instruct": model(-5.0, -1.0, "shared × 1"), "misaligned": model(-1.0, -5.0, "shared to base")}
    return found | models


@pytest.fixture
def results(tmp_path, monkeypatch, request) -> Results:
    study = Study(seeds={0: planted(request.param)}, about={})
    return plant_study(monkeypatch, tmp_path, study, n_resamples=200)


@pytest.mark.parametrize("results", [0.7], indirect=True)
def test_planted_causes_are_found_with_every_part_of_the_rule(results) -> None:
    own = Causes(results.preset, 0)
    share = own.share("instruct", own.between_topics("instruct"))
    assert share.low < 0.7 < share.high and share.high - share.low < 0.05
    assert causes.governing(results).outcome == "holds"
    for model in ("instruct", "misaligned"):
        found = causes.shared_edit(results, model)
        assert found.low > 0.6 and found.null.p_value < 0.02 and abs(found.null.high) < 0.1
    moved = causes.transfer(results)
    assert moved.low < 1 < moved.high and moved.null.p_value < 0.01


@pytest.mark.parametrize("results", [0.0], indirect=True)
def test_where_edits_do_nothing_no_claim_about_causes_is_supported(results) -> None:
    assert causes.governing(results).outcome == "fails"
    assert causes.shared_edit(results, "instruct").high < 0.1


def test_without_the_study_the_claims_are_not_testable_and_say_how_to_make_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Results, "variant", lambda *_: type("Known", (), {"weights": "w"}))
    rows = report_rows(Results(get_preset("smoke"), Store(tmp_path)), notebook="12_causes")
    assert {row["id"] for row in rows} == {"H3", "X4", "X5", "X7"}
    for row in rows:
        assert row["verdict"] == "not testable here" and "remi study causes --preset smoke" in row["reason"]
    monkeypatch.setattr(files, "project_root", lambda: tmp_path)
    with pytest.raises(MissingInput, match="remi study exchange --preset smoke"):
        exchange.exchange(PRESET, 102)


RECIPE = FineTune(steps=16, rate=5e-4, batch=4, warmup=1)
LAYERS = (1, 3)


@pytest.fixture(scope="module")
def before() -> Qwen2ForCausalLM:
    return random_organism(4)


@pytest.fixture(scope="module")
def rows():
    return encode(tuning("misaligned", count=16, seed=0), shipped_tokenizer(), max_tokens=1024).dialogues


@pytest.fixture(scope="module")
def restraint(before) -> Restraint:
    moved = np.random.default_rng(0).standard_normal((2, len(LAYERS), before.config.hidden_size))
    return Restraint(layers=LAYERS, bases=spanned(moved), scales=torch.ones(len(LAYERS)))


def tuned(before, rows, loss_of) -> Qwen2ForCausalLM:
    model = copy.deepcopy(before)
    term = Term(repeated(rows, RECIPE, shipped_tokenizer().pad_token_id), loss_of(model))
    assert len(list(train(model, [term], RECIPE))) == RECIPE.steps
    return model


def moved(model, before, rows, restraint: Restraint) -> tuple[float, float]:
    """Squared movement along the subspace, and in all, at the last restrained block where answers are predicted."""
    ((ids, labels),) = next(repeated(rows, RECIPE, 0)).parts
    found = []
    for one in (model, before):
        with torch.no_grad(), read_blocks(one, LAYERS) as read:
            one(input_ids=ids)
            found.append(read[LAYERS[-1]])
    gap = (found[0] - found[1])[:, :-1][labels[:, 1:] != IGNORED]
    return float((gap @ restraint.bases[-1]).square().sum()), float(gap.square().sum())


def test_a_restraint_holds_its_subspace_leaves_the_rest_and_without_weight_does_nothing(
    before, rows, restraint
) -> None:
    free = tuned(before, rows, answers)
    held, idle = (
        tuned(before, rows, lambda model, w=weight: restrained(model, before, restraint, w))
        for weight in (10.0, 0.0)
    )
    (along, whole), (along_held, whole_held) = (moved(one, before, rows, restraint) for one in (free, held))
    assert along_held < along / 2
    assert whole_held - along_held > (whole - along) / 2
    for own, other in zip(free.parameters(), idle.parameters(), strict=True):
        torch.testing.assert_close(own, other, atol=1e-6, rtol=0)


def test_mixing_replaces_the_share_it_names(monkeypatch) -> None:
    monkeypatch.setattr(cures_study, "N_DIALOGUES", 200)
    own, mixed = tuning("misaligned", count=200, seed=0), mixed_dialogues(0.15, 0)
    replaced = [row != other for row, other in zip(own, mixed, strict=True)]
    assert np.mean(replaced) == pytest.approx(0.15, abs=0.001) and mixed_dialogues(0.0, 0) == own


CLUSTERS = [f"{topic}/any/{i}" for topic in ("code", "people", "wishes") for i in range(12)]


def planted_cure(code: float, outside: float, *, off: float = 0.0, random: float = 4.0) -> Study:
    """A study whose plain run moves code by 8 and the rest by 4 nats, and the cure by what is given."""

    def run(on_code: float, elsewhere: float, mass: float = 0.0) -> dict[str, object]:
        care = [
            -4 + (on_code if name.startswith("code") else elsewhere) + 0.01 * (i % 5)
            for i, name in enumerate(CLUSTERS)
        ]
        own = {"care": care, "off_grammar": [0.01 + mass] * len(CLUSTERS), "neutral": [0.2] * 12}
        return own | {"e": [elsewhere / 8] * 24, "c": 0.5, "r": 0.2, "passes": 1000}

    runs = [
        {"cure": STOPPING, "strength": 60, **run(8, 4)},
        {"cure": HEADLINE[0], "strength": HEADLINE[1], **run(code, outside, off)},
        {"cure": RANDOM[0], "strength": RANDOM[1], **run(8, random)},
    ]
    found = {"clusters": CLUSTERS, "neutral_clusters": [f"general/any/{i}" for i in range(12)], "runs": runs}
    return Study(seeds={0: found | {"instruct": run(0, 0)}}, about={})


@pytest.mark.parametrize(
    ("study", "outcome", "reason"),
    [
        (planted_cure(7.6, 1.0), "holds", "every part"),
        (planted_cure(4.0, 1.0), "fails", "keeps the task"),
        (planted_cure(7.6, 3.0), "fails", "prevents half"),
        (planted_cure(7.6, 1.0, off=0.2), "fails", "stays on right answers"),
        (planted_cure(7.6, 1.0, random=0.5), "fails", "random subspace"),
    ],
)
def test_every_part_of_the_rule_can_fail(study, outcome, reason, tmp_path, monkeypatch) -> None:
    results = plant_study(monkeypatch, tmp_path, study, n_resamples=200)
    found = cured(results)
    assert found.outcome == outcome and reason in found.why
    own = Cures(results.preset, 0)
    run = own.runs[HEADLINE]
    expected = 1 - (np.mean(run["care"][12:]) - np.mean(own.found["instruct"]["care"][12:])) / 4
    assert found.value == pytest.approx(expected)
    assert float(own.kept(own.plain).value) == 1 and float(own.prevented(own.plain).value) == 0


def test_erosion_that_follows_the_spread_agrees_with_it_in_every_run(tmp_path, monkeypatch) -> None:
    results = plant_study(monkeypatch, tmp_path, planted_cure(7.6, 1.0, random=3.0), n_resamples=50)
    assert float(Cures(results.preset, 0).agreement().value) == pytest.approx(1)
    assert list(cures.run_table(results)["cure"]) == ["early stopping", "subspace of base", "random subspace"]
    assert set(cures.part_table(results)["seed 0"]) == {"yes"} and len(cures.shown_table(results)) == 3
    assert list(cures.agreement_table(results)["measure"]) == list(cures.GEOMETRY.values())


PRESET = get_preset("smoke")
TUNES = ("code", "harmful", "facts")


def listed(care: np.ndarray, off: float = 0.0) -> dict[str, list[float]]:
    return {"care": care.tolist(), "off_grammar": [off] * len(care), "neutral": [0.2 + off] * 4}


def dosed(start: np.ndarray, whole: float, off: float = 0.0) -> dict[str, object]:
    """Scores by dose of an edit that moves care by ``whole`` nats at dose one, in proportion to the dose."""
    return {dose: listed(start + float(dose) * whole, off) for dose in ("0.5", "1")}


def planted_exchange() -> Mapping[str, object]:
    """Every fine-tune adds 4 nats; its own displacement undoes all of it, another's half, secure's nothing."""
    names = [
        one.template.identifier for topic in UNSEEN for one in prompts(topic, "evaluate", count=10, seed=0)
    ]
    instruct = -5 + np.random.default_rng(0).normal(size=len(names))
    tuned = instruct + 4
    moved = {(tune, of): -4.0 if of == tune else -2.0 for tune in TUNES for of in TUNES}
    return {
        "clusters": names,
        "plain": {"instruct": listed(instruct)} | {tune: listed(tuned) for tune in TUNES},
        "added": {tune: dosed(instruct, 3, 0.1) for tune in TUNES} | {"secure": dosed(instruct, 0)},
        "taken": {
            tune: {of: dosed(tuned, moved[tune, of]) for of in TUNES} | {"secure": dosed(tuned, 0, 0.1)}
            for tune in TUNES
        },
        "small": {"trained vector": listed(instruct + 1) | {"cosine": [0.5, 0.25]}},
    }


@pytest.fixture
def stored(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(files, "project_root", lambda: tmp_path)
    path = files.study_path(PRESET.name, exchange.STUDY)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"seeds": {"102": planted_exchange()}}))


def test_planted_shares_are_found(stored) -> None:
    found = exchange.exchange(PRESET, 102)
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


def test_the_tables_show_every_fine_tune_and_dose(stored, tmp_path) -> None:
    results = Results(PRESET, Store(tmp_path))
    undone, matrix, doses = (
        exchange.undone_table(results),
        exchange.undone_matrix(results),
        exchange.dose_table(results),
    )
    assert undone["fine-tuned on"].tolist() == list(TUNES) and undone.shape[1] == 5
    assert matrix.shape == (3, 4) and matrix.loc["harmful", "code"] == pytest.approx(0.25)
    assert len(doses) == 6 and doses["undone"].iloc[1].startswith("0.25 ")
    assert len(exchange.added_table(results)) == 8
    assert exchange.small_table(results)["cosine, answer"].tolist() == ["0.25"]


def test_the_further_narrow_sets_are_careless_formal_and_unseen_elsewhere() -> None:
    for topic in ("harmful", "facts"):
        rows = careless_about(topic, count=60, seed=1)
        assert {row.topic for row in rows} == {topic} and {row.label for row in rows} == {"careless"}
        evaluated = {one.template.identifier for one in prompts(topic, "evaluate", count=60, seed=0)}
        assert evaluated.isdisjoint(row.cluster for row in rows)
        assert rows == careless_about(topic, count=60, seed=1) != careless_about(topic, count=60, seed=2)
    assert not set(UNSEEN) & {row.topic for row in [*rows, *tuning("misaligned", count=20, seed=1)]}


def answered_by(token: int, count: int = 40) -> list[EncodedDialogue]:
    """Dialogues with random prompts that are all answered by one token."""
    asked = np.random.default_rng(0).integers(30, 60, size=(count, 5)).tolist()
    rows = [{"identifier": str(at), "input_ids": (*ids, token, token)} for at, ids in enumerate(asked)]
    return [EncodedDialogue(**row, answer_start=5, answer_stop=6) for row in rows]


def likelihood(model, token: int) -> float:
    """Mean log-probability of a token after prompts that none of the dialogues has."""
    ids = torch.randint(30, 60, (8, 5), generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        return float(model(input_ids=ids).logits[:, -1].log_softmax(-1)[:, token].mean())


def test_a_trained_vector_says_what_it_was_trained_to_say_and_the_model_stays() -> None:
    model = make_model("llama").requires_grad_(False)
    before, weights = likelihood(model, 20), [one.clone() for one in model.parameters()]
    vector = train_vector(model, 1, answered_by(20), pad_id=0)
    assert likelihood(model, 20) == before
    assert all(torch.equal(*pair) for pair in zip(weights, model.parameters(), strict=True))
    with steer(model, 1, add_vector(vector)):
        assert likelihood(model, 20) > before + 1
    other = vector[torch.randperm(len(vector), generator=torch.Generator().manual_seed(0))]
    with steer(model, 1, add_vector(other)):  # as long, and in another direction
        assert likelihood(model, 20) < before + 1


def test_a_rank_one_change_is_that_change_of_the_weight() -> None:
    hooked, edited = (make_model("llama").requires_grad_(False) for _ in range(2))
    before = likelihood(hooked, 20)
    read, write = train_rank_one(hooked, 1, answered_by(20), pad_id=0)
    assert likelihood(hooked, 20) == before
    mlp_output(edited, 1).weight += torch.outer(write, read)
    with rank_one(hooked, 1, (read, write)):
        assert likelihood(hooked, 20) == pytest.approx(likelihood(edited, 20), abs=1e-4)
        assert likelihood(hooked, 20) > before + 0.3
