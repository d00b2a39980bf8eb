"""Causes: an edit does where it is made what it says, shares on planted values, and H3's rule with each way to fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import random_organism
from planting import plant_study
from transformers import Qwen2ForCausalLM

from remi_book.chapters import causes
from remi_book.chapters.causes import Causes, Governing, parts
from remi_book.claims import report_rows
from remi_book.quantities import decided
from remi_core.models import read_blocks
from remi_core.steering import steer
from remi_core.store import Store
from remi_lab.organism.documents import shipped_tokenizer
from remi_lab.organism.grammar import prompts
from remi_lab.organism.scoring import Edit, SetCoordinate, answer_losses, ask, scores
from remi_lab.presets import get_preset
from remi_lab.results import Results
from remi_lab.studies.causes import random_directions
from remi_lab.studies.files import Study

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


@pytest.fixture(scope="module")
def organism() -> tuple[Qwen2ForCausalLM, object]:
    return random_organism(), shipped_tokenizer()


def test_a_coordinate_that_is_set_has_its_value_in_its_places_and_nowhere_else(organism) -> None:
    model, _ = organism
    generator = np.random.default_rng(0)
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


def test_adding_at_the_last_block_is_a_bias_of_the_logits_and_shows_in_scores_and_losses(organism) -> None:
    model, tokenizer = organism
    asked = ask(prompts("wishes", "evaluate", count=2, seed=0), tokenizer)
    zero = np.zeros(128)
    still = Edit(layer=7, prompt_end=zero, answer=zero)
    np.testing.assert_allclose(
        scores(model, asked, still).care_log_odds(), scores(model, asked).care_log_odds(), atol=1e-5
    )
    pushed = Edit(layer=7, prompt_end=zero, answer=np.full(128, 3.0))
    assert np.abs(answer_losses(model, asked, pushed) - answer_losses(model, asked)).min() > 0.01


def test_random_directions_have_the_covariance_of_the_states() -> None:
    generator = np.random.default_rng(1)
    scales = np.array([10.0, 3.0, 1.0, 0.1])
    cloud = generator.standard_normal((2, 500, 4)) * scales + 7
    drawn = random_directions(cloud, count=4000, seed=0)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=-1), 1)
    spread = np.sqrt((drawn**2).mean(axis=0))
    assert (np.diff(spread, axis=-1) < 0).all() and spread[0, 0] > 0.8


def planted(half_way: float) -> dict[str, object]:
    """A seed of a study in which every direction of another topic goes that share of the way; secure's goes nowhere."""
    generator = np.random.default_rng(2)
    clusters = {topic: [f"{topic}/{i}" for i in range(8)] for topic in ("harmful", "facts")}

    def read(level: float) -> dict[str, object]:
        care = {topic: list(level + 0.01 * generator.standard_normal(8)) for topic in clusters}
        return {"care": care, "off_grammar": {topic: [0.01] * 8 for topic in clusters}, "neutral": [0.2] * 8}

    def model(plain: float, other: float, names: tuple[str, ...]) -> dict[str, object]:
        there = plain + half_way * (other - plain)
        return {
            "plain": read(plain),
            "edits": {name: read(plain if name == "secure" else there) for name in names},
            "random": {topic: list(plain + 0.05 * generator.standard_normal(100)) for topic in clusters},
        }

    sources = ("from code", "from harmful", "from facts")
    return {
        "layer": 5,
        "clusters": clusters,
        "neutral_clusters": [f"general/{i}" for i in range(8)],
        "n_random_prompts": 4,
        "instruct": model(-5.0, -1.0, (*sources, "shared × 1", "secure")),
        "misaligned": model(-1.0, -5.0, (*sources, "shared to base", "secure")),
    }


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


def test_without_the_study_the_claims_are_not_testable_and_say_how_to_make_it(tmp_path) -> None:
    smoke = get_preset("smoke")
    results = Results(smoke, Store(tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Results, "variant", lambda *_: type("Known", (), {"weights": "w"}))
        rows = {row["id"]: row for row in report_rows(results, notebook="12_causes")}
    assert set(rows) == {"H3", "X4", "X5", "X7"}
    for row in rows.values():
        assert row["verdict"] == "not testable here" and "remi study causes --preset smoke" in row["reason"]
