"""Every setting reaches the pass that it is about, and a movement is held against the interval it moves in."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from conftest import save_model

from remi_book import robustness
from remi_book.chapters import calibration
from remi_book.chapters.calibration import plot_movement
from remi_book.figures.style import describe
from remi_book.quantities import Measured
from remi_book.robustness import REFERENCE, ROWS, SETTINGS
from remi_core.sources import ModelSpec
from remi_core.store import Store
from remi_lab.presets import get_preset
from remi_lab.studies.files import STUDIES, Study, measure_of
from remi_lab.variant import Variant

PRESET = replace(get_preset("smoke"), name="tiny")


@pytest.fixture
def seen(monkeypatch) -> list[dict[str, object]]:
    """What each headline was computed from, in order; none is computed."""
    found: list[dict[str, object]] = []

    def compute(results: robustness._Anew, row: str) -> Measured:
        preset = results.preset
        about = {"row": row, "dtype": preset.dtype, "batch": preset.batch_tokens, "store": results.store.root}
        about |= {
            "threads": torch.get_num_threads(),
            "attention": results.attention,
            "weights": results.weights,
        }
        found.append(about | {"resamples": preset.n_resamples})
        return Measured(value=1.0, low=0.0, high=2.0, null=None, n=1)

    monkeypatch.setattr(robustness, "compute_headline", compute)
    monkeypatch.setattr(robustness, "find_variant", lambda *_: None)
    return found


def test_every_setting_reaches_the_pass(seen, tmp_path) -> None:
    store, before = Store(tmp_path), torch.get_num_threads()
    raw = robustness.measure(PRESET, 102, store, lambda _: None)
    assert json.loads(json.dumps(raw)) == raw and torch.get_num_threads() == before
    n_computed = len(seen)
    assert robustness.measure(PRESET, 102, store, lambda _: None) == raw
    assert len(seen) == n_computed, "what was measured is read"
    assert len(seen) == len(ROWS) * len(SETTINGS) and all(one["weights"] is store for one in seen)
    by_setting = [seen[at : at + len(ROWS)] for at in range(0, len(seen), len(ROWS))]
    assert len({one[0]["store"] for one in by_setting}) == len(SETTINGS), (
        "nothing is read that another setting wrote"
    )
    for setting, own in zip(SETTINGS, by_setting, strict=True):
        assert [one["row"] for one in own] == list(ROWS)
        assert own[0]["dtype"] == setting.dtype and own[0]["attention"] == setting.attention
        assert own[0]["threads"] == setting.threads
        assert own[0]["batch"] == (setting.batch_tokens or PRESET.batch_tokens)
    told = [tuple(one[0][name] for name in ("dtype", "attention", "threads", "batch")) for one in by_setting]
    assert len(set(told)) == len(SETTINGS) - 1, "one setting repeats the first, the others differ from all"
    assert seen[0]["resamples"] == PRESET.n_resamples > seen[-1]["resamples"]


def test_attention_is_computed_as_named(tmp_path) -> None:
    spec = ModelSpec(source=str(save_model(tmp_path)))
    plain = Variant(PRESET, "base", 0, spec, spec, "w")
    other = robustness._Attending(PRESET, "base", 0, spec, spec, "w", attention="eager")
    used = []
    for variant in (plain, other):
        with variant.open() as loaded:
            used.append(loaded.model.config._attn_implementation)
    assert used == ["sdpa", "eager"]


VALUES = {REFERENCE: 1.0, "the same again": 1.0, "two threads": 1.001, "float16": 1.2, "bfloat16": None}
STORED = {
    "rows": {
        "C1": {"claim": "a", "unit": "nats", "values": VALUES, "low": 0.0, "high": 2.0},
        "C3": {
            "claim": "b",
            "unit": "nats",
            "values": dict.fromkeys(VALUES, None),
            "low": None,
            "high": None,
        },
    },
    "seconds": dict.fromkeys(VALUES, 60.0),
}


def test_movements_are_shares_of_half_the_interval(monkeypatch) -> None:
    monkeypatch.setattr(calibration, "read_study", lambda *_: Study(seeds={0: STORED}, about={}))
    table = calibration.movement_table(PRESET)
    assert table["claim"].unique().tolist() == ["C1"], (
        "what the book leaves undefined has no place to move from"
    )
    assert table["share"].tolist()[:3] == pytest.approx([0, 0.001, 0.2]) and table["lost"].tolist() == [
        False
    ] * 3 + [True]
    said = calibration.sentence(PRESET)
    assert said.startswith("1 headlines were computed anew in 4 settings. 2 of 4 values stay")
    assert said.endswith("The others are float16: C1; bfloat16: C1.")
    assert "undefined" in calibration.value_table(PRESET).to_string()
    text = describe(plot_movement(table, small=calibration.SMALL))
    assert "the same again: at most 0 (C1)" in text and "1 without a value" in text


def test_the_study_is_one_of_the_command(seen) -> None:
    assert "robustness" in STUDIES and measure_of("robustness") is robustness.measure
