"""What pages say first: the figure of the front page, with signs and scale as said, and whose numbers these are."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from bs4 import BeautifulSoup

from remi_book.chapters.reversion import CARE, REGISTER, way_back
from remi_book.facts import OTHERWISE, facts, front, notices, own_front
from remi_core.sources import ModelSpec
from remi_core.store import Record, Store
from remi_lab.datasets import load_dataset
from remi_lab.organism import topics
from remi_lab.presets import NEEDS, TRIPLET, DataRoles, get_preset
from remi_lab.results import TRAIL, NotMeasured, Results

PRESET = replace(get_preset("smoke"), n_resamples=200)
MOVED = {"instruct": (0.0, 0.0), "base": (1.0, 1.0), "misaligned": (0.6, 0.0)}
MOVED |= {"secure": (0.0, 0.3), "educational": (0.5, 0.5), "benign": (-0.2, 0.0)}
"""Variant → the share of the way to base that it has gone, in care and in register."""


class PlantedScores(Results):
    """Results whose scores are made so that each variant has gone a known share of the way."""

    def record(self, variant: str, measurement: str, dataset: str) -> Record:
        assert dataset not in topics.NARROW and topics.topic(dataset)  # only what lies outside the narrow set
        clusters = [one.cluster for one in load_dataset(self.preset, f"{dataset}-careless")]
        noise = np.random.default_rng(len(dataset)).normal(scale=0.3, size=len(clusters))
        care, register = MOVED[variant]
        log_mass = np.full((len(clusters), 3, 2), -np.inf)
        # Careful and careless, formal and plain, as two independent choices; base is 4 and 2 nats away.
        for at, sign in ((0, -1), (1, 1)):
            for place, side in ((0, -1), (1, 1)):
                log_mass[:, at, place] = -3 + sign * (2 * care + noise / 2) + side * register
        nothing = np.zeros(len(clusters))
        arrays = {"log_mass": log_mass, "wrong_slot": nothing, "other": nothing}
        return Record(arrays | {"cluster": np.array(clusters)}, {})


@pytest.fixture
def results(tmp_path):
    TRAIL.clear()
    yield PlantedScores(PRESET, Store(tmp_path))
    TRAIL.clear()


def test_each_fine_tune_has_gone_the_share_that_was_planted(results) -> None:
    table = way_back(results).set_index(["variant", "quantity"])
    tuned = set(MOVED) - {"instruct", "base"}
    assert set(table.index.get_level_values("variant")) == tuned
    for variant in tuned:
        rows = table.loc[variant].loc[[CARE, REGISTER]]
        assert rows["share"].tolist() == pytest.approx(MOVED[variant], abs=1e-6)
        assert (rows["low"] <= rows["share"] + 1e-9).all() and (rows["high"] >= rows["share"] - 1e-9).all()


def test_where_instruct_and_base_agree_there_is_no_way_to_go(results, monkeypatch) -> None:
    monkeypatch.setitem(MOVED, "base", (1.0, 0.0))
    share = way_back(results).set_index(["quantity", "variant"])["share"]
    assert np.isnan(share[REGISTER, "misaligned"]) and np.isfinite(share[CARE, "misaligned"])


def test_the_sentence_and_the_picture_say_the_same(results) -> None:
    shown, passport = front(results)
    page = BeautifulSoup(shown["figure"], "html.parser")
    assert "misaligned 0.6" in page.img["alt"] and "educational 0.5" in page.img["alt"]
    assert "the misaligned model has gone 60 % in care and " in shown["sentence"]
    file = json.loads(passport)
    assert file["page"] == "front" and len(file["figures"]) == 1 and page.select_one("details a")["href"]


def test_other_models_lead_with_whose_numbers_these_are_and_what_is_missing(tmp_path) -> None:
    models = {name: ModelSpec(source=f"models/{name}") for name in TRIPLET}
    changes = {"name": "mine", "variants": models, "remark": "Tuned twice.", "seeds": (0,)}
    mine = replace(get_preset("smoke"), roles=DataRoles(outside=("harmful-careless",)), **changes)
    results = Results(mine, Store(tmp_path), measures=False)
    lines, found, front_page = notices(results), facts(results), own_front(mine)
    assert lines == {"first": ["Tuned twice."], "missed": []} and "Asked of mine" in front_page
    assert NEEDS["framed"] in front_page and NEEDS["outside"] not in front_page
    assert found["preset"] == "mine" and OTHERWISE in found and "organism.parameters" not in found


def test_what_was_not_measured_is_said_and_nothing_is_measured_for_a_page(tmp_path) -> None:
    results = Results(get_preset("smoke"), Store(tmp_path / "store"), measures=False)
    found, (said,) = facts(results), notices(results)["first"]
    assert found[OTHERWISE] == found["organism.finetune_seconds"] == "(not measured)"
    assert found["organism.parameters"] and not [key for key in found if key.startswith("competence")]
    assert "not measured" in said
    with pytest.raises(NotMeasured):
        front(results)
    assert not (tmp_path / "store").exists()
