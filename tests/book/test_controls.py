"""X1 and X2: what was planted comes back, from records and from a stored study, and nothing where nothing was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planting import PlantedResults, everywhere, plant

from remi_book.chapters import controls, reversion
from remi_core.errors import MissingInput
from remi_core.statistics.resampling import make_resamples
from remi_core.store import Store
from remi_lab.organism.dialogues import tuning
from remi_lab.presets import Preset, get_preset
from remi_lab.results import Results
from remi_lab.studies.controls import LONGEST, STEPS, Dose, dose_dialogues, doses
from remi_lab.studies.files import Study

PRESET = replace(get_preset("smoke"), n_resamples=200, n_permutations=200)
OUTSIDE = PRESET.roles.outside
TOPICS = ("code", "facts", "people")
CLUSTERS = [f"{topic}/{i}" for topic in TOPICS for i in range(24)]
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
    along = reversion.erosion_or_novelty(planted, OUTSIDE, "prompt_end")
    assert along.value > 0.99 and along.low > 0.5**0.5 and along.null.p_value < 0.05
    planted.turned = 20.0
    aside = reversion.erosion_or_novelty(planted, OUTSIDE, "prompt_end")
    assert aside.high < 0.5**0.5


def test_random_displacements_of_the_states_covariance_have_no_side(planted) -> None:
    draws = reversion.matched_cosines(planted, OUTSIDE, "prompt_end")
    assert draws.shape == (PRESET.n_permutations, planted.n_layers)
    assert abs(draws.mean()) < 0.1 < draws.std() < 0.5


@pytest.fixture
def study(monkeypatch) -> None:
    generator = np.random.default_rng(0)
    start = generator.normal(-4, 1, len(CLUSTERS))
    care = {name: (start + far).tolist() for name, far in MOVED.items()}
    register = {name: (start - far).tolist() for name, far in MOVED.items()}
    found = {"outside": ["facts", "people"], "clusters": CLUSTERS, "care": care, "register": register}
    found["off_grammar"] = dict.fromkeys(MOVED, 0.01)
    shared = make_resamples(CLUSTERS, seed=0, n_resamples=200)
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


def test_a_share_of_insecure_code_is_that_share_and_the_rest_is_its_secure_twin() -> None:
    recipe = doses()[0].recipe
    mixed = dose_dialogues(Dose(kind="share", variant="misaligned", recipe=recipe, value=0.25, share=0.25), 1)
    assert sum(row.label == "careless" for row in mixed) / len(mixed) == pytest.approx(0.25, abs=0.01)
    own = tuning("misaligned", count=len(mixed), seed=1)
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
    start = generator.normal(-4, 0.3, len(CLUSTERS))
    far = {"base": (4, 4), "misaligned": (2, 0.5), "reverted": (2, 2), "persona": (6, 0), "novel": (2, 2)}
    named = {"instruct": (0, 0), **far}
    care, register = (
        {
            one: (start + moved[at] + generator.normal(0, 0.05, len(start))).tolist()
            for one, moved in named.items()
        }
        for at in (0, 1)
    )
    edited = {
        one: {
            "whole": {"care": (start + 0.9 * moved[0]).tolist()},
            "along": {"care": (start + 0.8 * moved[0]).tolist()},
            "off": {"care": start.tolist()},
        }
        for one, moved in far.items()
    }
    cosine = {one: {"value": 0.9, "without": [0.9] * len(start)} for one in far}
    cosine |= {one: {"value": 0.2, "without": [0.2] * len(start)} for one in reversion.CONTROLS}
    rates = {"novel": -0.9}
    careless = {
        one: {
            "clusters": CLUSTERS,
            "log_probability": [10 * rates.get(one, -0.5)] * len(start),
            "tokens": [10] * len(start),
        }
        for one in far
    }
    found = {"clusters": CLUSTERS, "care": care, "register": register, "edited": edited}
    return Study(seeds={102: found | {"cosine": cosine, "erosion": cosine, "careless": careless}}, about={})


def test_h1_reads_the_whole_rule_from_the_study(monkeypatch, tmp_path) -> None:
    shared = make_resamples(CLUSTERS, seed=0, n_resamples=200)
    everywhere(monkeypatch, "shared_resamples", lambda preset: shared)
    everywhere(monkeypatch, "read_study", stored)
    read = reversion.classes(PRESET, 102)
    assert {name: read[name] for name in reversion.TRUTHS} == dict(reversion.TRUTHS)
    assert read["misaligned"] == "mixed"  # its cosine and its edits say reversion, its register says persona
    results = Results(PRESET, Store(tmp_path))
    found = reversion.reversion(results)
    assert found.outcome == "open" and found.value == pytest.approx(0.375, abs=0.05)
    assert found.null.low < 0.1 < found.low and set(found.companions) >= {"b", "ρ", "ν", "c"}
    assert set(reversion.parts_table(results)["variant"]) == set(reversion.JUDGED)
    met = reversion.condition_table(reversion.changes(PRESET, 102)).set_index("condition")
    assert met.loc["b − ρ > 0", "reverted"] == "no" and met.loc["b − ρ > 0", "misaligned"] == "yes"
