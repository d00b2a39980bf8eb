"""Intervals hold the truth, planted faults touch what they reach, and every setting reaches its pass."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import save_model

from remi_book import planted, robustness
from remi_book.chapters import calibration
from remi_book.figures.style import describe
from remi_book.planted import Exchange, FaultyResults, Substitute, exchanged
from remi_book.quantities import (
    PARTS,
    UNITS,
    Measured,
    _part,
    error_table,
    grid_resamples,
    null_from_estimate,
    shared_resamples,
)
from remi_book.robustness import REFERENCE, ROWS, SETTINGS
from remi_core.errors import MissingInput
from remi_core.sources import ModelSpec
from remi_core.statistics.resampling import Estimate, make_resamples, mean_interval
from remi_core.statistics.subspaces import VectorSet, measure_overlap
from remi_core.store import Record, Store
from remi_lab.organism.grammar import templates
from remi_lab.presets import get_preset
from remi_lab.results import Results
from remi_lab.studies import calibration as study
from remi_lab.studies import files
from remi_lab.studies.calibration import N_FILLERS, N_TEMPLATES, Pool, coverage, draw_sample
from remi_lab.studies.files import Study
from remi_lab.variant import Variant

CLUSTERS = ["a", "a", "b", "c"]
BOTH = {"first": "second", "second": "first"}
PRESET = get_preset("micro")
VECTORS = np.random.default_rng(0).standard_normal((8, 5))
EMPTY = Pool(arrays={}, gram=np.zeros((0, 0)), odds={})


def ragged(start: float, lengths: list[int]) -> dict[str, np.ndarray]:
    """Four rows of so many values; the value tells the record, its place the row."""
    names = {"cluster": np.array(CLUSTERS), "identifier": np.array([f"{start:.0f}{row}" for row in range(4)])}
    return names | {"offsets": np.cumsum([0, *lengths]), "loss": start + np.arange(10.0)}


@pytest.mark.parametrize("unit", ["row", "template"])
def test_a_coin_is_thrown_for_each_row_or_each_template(unit) -> None:
    thrown = [Exchange(sets=BOTH, unit=unit, seed=seed).swapped(CLUSTERS) for seed in range(400)]
    together = [one[0] == one[1] for one in thrown]
    assert all(together) if unit == "template" else 0.4 < np.mean(together) < 0.6
    assert np.abs(np.mean(thrown, axis=0) - 0.5).max() < 0.1
    assert np.array_equal(Exchange(sets=BOTH, unit=unit, seed=7).swapped(CLUSTERS), thrown[7])


def test_an_exchange_moves_rows_and_leaves_who_they_are() -> None:
    own, other = ragged(0, [1, 2, 3, 4]), ragged(100, [4, 3, 2, 1])
    swapped = np.array([True, False, True, False])
    found, nothing = (exchanged(own, other, one) for one in (swapped, swapped & ~swapped))
    rows = np.split(found["loss"], found["offsets"][1:-1])
    assert [row.tolist() for row in rows] == [[100, 101, 102, 103], [1, 2], [107, 108], [6, 7, 8, 9]]
    assert found["identifier"].tolist() == own["identifier"].tolist()
    assert all(np.array_equal(nothing[name], own[name]) for name in own)
    with pytest.raises(ValueError, match="4 and 3 rows"):
        exchanged(own, {**other, "cluster": other["cluster"][:3]}, swapped)


class Known(Results):
    """Results whose records are planted: each is its own name."""

    def record(self, variant: str, measurement: str, dataset: str) -> Record:
        value = {"first": 0.0, "second": 10.0, "idle": 20.0}[dataset] + 100 * (variant == "benign")
        return Record({"value": np.full(4, value), "cluster": np.array(CLUSTERS)}, {})

    def gradients(self, variant: str, datasets) -> dict[str, np.ndarray]:
        arrays = {"gram": VECTORS @ VECTORS.T, "loss": VECTORS[:, 0], "cluster": np.array(CLUSTERS * 2)}
        return arrays | {"dataset": np.repeat(["first", "second"], 4)}


def faulty(fault: Exchange | Substitute, store: Store) -> FaultyResults:
    return FaultyResults(PRESET, store, true=Known(PRESET, store), fault=fault)


def test_an_exchange_touches_what_it_reaches_and_nothing_else(tmp_path) -> None:
    fault = Exchange(sets=BOTH, unit="row", seed=1)
    results, swapped, rows = faulty(fault, Store(tmp_path)), fault.swapped(CLUSTERS), VECTORS.copy()
    for name, values, touched in (("idle", np.full(4, 20.0), False), ("first", swapped * 10.0, True)):
        found = results.record("instruct", "sequence", name).arrays["value"]
        assert found.tolist() == values.tolist() and results.touched == touched
    assert 0 < swapped.sum() < 4
    # A Gram matrix is that of exchanged gradients.
    found, at = results.gradients("instruct", ("first", "second")), np.flatnonzero(swapped)
    rows[np.r_[at, at + 4]] = rows[np.r_[at + 4, at]]
    np.testing.assert_allclose(found["gram"], rows @ rows.T)
    np.testing.assert_allclose(found["loss"], rows[:, 0])


def test_another_model_stands_in_one_place_only(tmp_path) -> None:
    results = faulty(Substitute(place="misaligned", by="benign"), Store(tmp_path))

    def read(variant: str) -> float:
        return results.record(variant, "sequence", "first").arrays["value"][0]

    assert read("instruct") == 0 and not results.touched
    assert results.cached("place", lambda: read("misaligned")) == 100 and results.touched
    results.touched = False
    # What was computed before from something touched is known to be touched when it is asked for again.
    assert results.cached("place", lambda: None) == 100 and results.touched


def test_every_kind_of_label_names_claims_and_sets_of_the_preset() -> None:
    assert files.measure_of("planted") is planted.measure
    for kind in planted.kinds(PRESET, 0).values():
        assert kind.claims and set(kind.fault.sets) <= set(PRESET.datasets)
        assert all(kind.fault.sets[second] == first for first, second in kind.fault.sets.items())


def test_the_pool_holds_4096_dialogues_that_nothing_was_trained_on() -> None:
    assert sum(N_TEMPLATES[topic] * N_FILLERS for topic in study.POOL_SETS.values()) == 4096
    rows = study.pool_dialogues("facts-careless", PRESET.seed)
    unseen = {one.identifier for split in study.SPLITS for one in templates("facts", split)}
    assert "train" not in study.SPLITS and {row.cluster for row in rows} <= unseen
    assert set(Counter(row.cluster for row in rows).values()) == {N_FILLERS}


def test_a_sample_draws_templates_fairly_and_calls_a_second_draw_a_new_cluster() -> None:
    samples = [draw_sample(EMPTY, PRESET, number) for number in range(150)]
    count = N_TEMPLATES["wishes"] * N_FILLERS
    drawn = np.bincount(np.concatenate([one.rows["wishes"] for one in samples]), minlength=count)
    # Rows of one template come together, so templates and not rows are the counts that vary like a coin.
    assert drawn.min() > 0 and drawn.std() / drawn.mean() < 0.5
    for one in samples[:20]:
        named = set(zip(one.clusters["wishes"], one.rows["wishes"] // N_FILLERS, strict=True))
        assert len(named) == len(set(one.clusters["wishes"])), "a cluster is of one template"
    assert any(len(set(one.rows["code"] // N_FILLERS)) < len(set(one.clusters["code"])) for one in samples)
    again = draw_sample(EMPTY, PRESET, 5)
    assert all(np.array_equal(again.rows[topic], samples[5].rows[topic]) for topic in N_TEMPLATES)
    assert len(study.whole_pool(EMPTY).rows["code"]) == N_TEMPLATES["code"] * N_FILLERS


def test_planted_intervals_hold_what_was_planted_and_no_value_far_from_it() -> None:
    found = {one.name: [] for one in study.PLANTED}
    for number in range(60):
        sample = draw_sample(EMPTY, replace(PRESET, n_resamples=300), number)
        for one in study.PLANTED:
            estimate = one.estimate(sample)
            found[one.name].append((float(estimate.value), float(estimate.low), float(estimate.high)))
    for one in study.PLANTED:
        held = coverage(one.truth(sample), found[one.name])
        assert held.share >= 0.87, one.name  # 56.5 of 60 are expected, and fewer than 52 once in a hundred
        assert coverage(held.truth + 2 * held.width, found[one.name]).share < 0.1


def planted_study(monkeypatch: pytest.MonkeyPatch, *, hits: int) -> None:
    fields = {"truth": 1.0, "undefined": 0, "mean": 1.0, "spread": 0.1, "width": 0.4, "n": 1000}
    wide = {"claims": "C12", "below": 25, "above": 25, "first": [[1.0, 0.8, 1.2]] * 2}
    narrow = {"claims": "C7", "below": 100, "above": 20, "first": [[1.3, 1.1, 1.5], [None] * 3]}
    verdicts = {"reproduced": hits, "inconclusive": 200 - hits}
    changed = {"verdict": "reproduced" if hits else "contradicted", "touched": True}
    faults = {
        "n_shuffles": 200,
        "shuffles": {"label": {"claims": {"C9": {"verdicts": verdicts}, "C10": {"verdicts": {}}}}},
        "substitution": {"C12": changed, "C9": {"verdict": "reproduced", "touched": False}},
        "idle": 3,
        "unchanged": 3,
    }
    stored = {"planted": faults}
    stored["calibration"] = {"estimators": {"wide": wide | fields, "narrow": narrow | fields}}
    monkeypatch.setattr(calibration, "read_study", lambda _, name: Study(seeds={0: stored[name]}, about={}))


def test_an_interval_that_misses_too_often_is_named(monkeypatch) -> None:
    planted_study(monkeypatch, hits=0)
    said = calibration.coverage_sentence(PRESET)
    assert said.startswith("Of 2 estimators, 1 have") and "narrow (88.0%)" in said and "wide" not in said
    assert calibration.coverage_table(PRESET)["honest"].tolist() == [True, False]
    assert calibration.first_intervals(PRESET, "narrow")["holds"].tolist() == [False]
    assert calibration.first_intervals(PRESET, "wide")["holds"].tolist() == [True, True]


@pytest.mark.parametrize(("hits", "few"), [(0, True), (10, True), (11, False)])
def test_a_rule_that_finds_too_much_in_nothing_is_named(monkeypatch, hits, few) -> None:
    planted_study(monkeypatch, hits=hits)
    table = calibration.shuffle_table(PRESET)
    assert table["at most 5%"].tolist() == [few, True]
    assert calibration.substitution_sentence(PRESET).endswith("C12." if hits else "none.")
    if hits:
        assert f"C9, {hits / 200:.1%}" in calibration.shuffle_sentence(PRESET)


TINY = replace(get_preset("smoke"), name="tiny")


def test_every_setting_reaches_the_pass_and_what_was_measured_is_read(monkeypatch, tmp_path) -> None:
    seen: dict[tuple, list] = {}
    store, before = Store(tmp_path), torch.get_num_threads()

    def compute(results: robustness._Anew, row: str) -> Measured:
        preset = results.preset
        setting = preset.dtype, results.attention, torch.get_num_threads(), preset.batch_tokens
        seen.setdefault((results.store.root, *setting, preset.n_resamples), []).append(row)
        assert results.weights is store
        return Measured(value=1.0, low=0.0, high=2.0, null=None, n=1)

    monkeypatch.setattr(robustness, "compute_headline", compute)
    monkeypatch.setattr(robustness, "find_variant", lambda *_: None)
    assert files.measure_of("robustness") is robustness.measure
    raw = robustness.measure(TINY, 102, store, lambda _: None)
    assert json.loads(json.dumps(raw)) == raw and torch.get_num_threads() == before
    assert robustness.measure(TINY, 102, store, lambda _: None) == raw
    # Once each, in order; and nothing is read that another setting wrote.
    assert list(seen.values()) == [list(ROWS)] * len(SETTINGS)
    assert len({root for root, *_ in seen}) == len(SETTINGS)
    told = [found[1:5] for found in seen]
    declared = [(one.dtype, one.attention, one.threads, one.batch_tokens) for one in SETTINGS]
    assert told == [(*most, batch or TINY.batch_tokens) for *most, batch in declared]
    assert len(set(told)) == len(SETTINGS) - 1, "one setting repeats the first, the others differ from all"
    drawn = [found[5] for found in seen]
    assert drawn[0] == TINY.n_resamples > drawn[-1]


def test_attention_is_computed_as_named(tmp_path) -> None:
    spec = ModelSpec(source=str(save_model(tmp_path)))
    named = TINY, "base", 0, spec, spec, "w"
    used = []
    for variant in (Variant(*named), robustness._Attending(*named, attention="eager")):
        with variant.open() as loaded:
            used.append(loaded.model.config._attn_implementation)
    assert used == ["sdpa", "eager"]


VALUES = {REFERENCE: 1.0, "the same again": 1.0, "two threads": 1.001, "float16": 1.2, "bfloat16": None}
ROW = {"claim": "a", "unit": "nats", "values": VALUES, "low": 0.0, "high": 2.0}
EMPTY_ROW = ROW | {"values": dict.fromkeys(VALUES), "low": None, "high": None}
STORED = {"rows": {"C1": ROW, "C3": EMPTY_ROW}, "seconds": dict.fromkeys(VALUES, 60.0)}


def test_movements_are_shares_of_half_the_interval(monkeypatch) -> None:
    monkeypatch.setattr(calibration, "read_study", lambda *_: Study(seeds={0: STORED}, about={}))
    table = calibration.movement_table(TINY)
    assert set(table["claim"]) == {"C1"}  # what the book leaves undefined has no place to move from
    assert table["share"].tolist()[:3] == pytest.approx([0, 0.001, 0.2])
    assert table["lost"].tolist() == [False] * 3 + [True]
    assert "2 of 4 values stay" in calibration.sentence(TINY)
    text = describe(calibration.plot_movement(table, small=calibration.SMALL))
    assert "the same again: at most 0 (C1)" in text and "1 without a value" in text


def test_bias_misses_and_undefined_samples_are_counted_and_the_binomial_interval_is_exact() -> None:
    inside, above, below, undefined = (1.0, 0.0, 2.0), (3.0, 2.5, 3.5), (-1.0, -2.0, 0.5), (float("nan"),) * 3
    one = coverage(1.0, [inside, above, below, (2.0, 1.0, 3.0), undefined])
    assert (one.n, one.undefined, one.below, one.above, one.share) == (4, 1, 1, 1, 0.5)
    assert one.bias == pytest.approx(0.25) and one.width == pytest.approx(1.875)
    assert one.uncertainty[0] < 0.5 < one.uncertainty[1]
    # Both ends leave 2.5 % of the binomial beyond the count that was seen.
    many = coverage(1.0, [inside] * 8 + [above, below])
    assert many.uncertainty == pytest.approx((0.4439, 0.9748), abs=1e-4)
    with pytest.raises(ValueError, match="at least 2 with an interval"):
        coverage(0.0, [(1.0, float("nan"), 2.0), inside])


@pytest.mark.parametrize("angle", [1.4, 1.0, 0.5, 0.1])
def test_the_overlaps_interval_and_its_p_value_hold_what_they_say(angle) -> None:
    """Planted planes at an angle, S = cos²; two pairs alike: p is small in a twentieth of samples at most."""
    generator, names = np.random.default_rng(0), [f"t{place:02d}" for place in range(24)]
    planes = np.eye(2, 12), np.cos(angle) * np.eye(2, 12) + np.sin(angle) * np.eye(2, 12, 2)
    once, found, p_values = make_resamples(names, seed=0, n_resamples=1), [], []

    def drawn(first: np.ndarray, second: np.ndarray) -> Estimate:
        rows = (generator.standard_normal((24, 2)) * [4, 2.5] @ plane for plane in (first, second))
        sets = (VectorSet(each + generator.standard_normal((24, 12)), names) for each in rows)
        return measure_overlap(*sets, once, n_components=2, centred=True).overlap

    for _ in range(120):
        one, other = drawn(*planes), drawn(*planes)
        found.append((float(one.value), float(one.low), float(one.high)))
        p_values.append(null_from_estimate(one, other, "alike").p_value)
    assert 0 <= np.min(found) and np.max(found) <= 1
    assert coverage(np.cos(angle) ** 2, found).share >= 0.93 and np.mean(np.array(p_values) < 0.05) <= 0.06
    # The failing twin: p follows the gap between the two, and is small where one is near and one is far.
    near, far = drawn(planes[0], planes[0]), drawn(planes[0], np.eye(2, 12, 4))
    assert (
        null_from_estimate(near, far, "apart").p_value < 0.05 < null_from_estimate(far, near, "apart").p_value
    )


def test_templates_alone_fall_short_where_their_parts_have_effects_and_parts_do_not() -> None:
    """On the templates of a preset, 1,000 worlds whose leads, cores and closings have effects of their own, or none."""
    by_template, by_part = (grid_resamples(PRESET, UNITS[unit]) for unit in ("templates", "parts"))
    assert (
        by_template.names == by_part.names
        and (by_template.weights.sum(axis=1) == len(by_template.names)).all()
    )
    name = next(name for name in by_part.names if name.startswith("facts/"))
    cell = name.rpartition("/")[2].split(".")
    alike = [other for other in by_part.names if other.startswith("facts/") and other != name]
    same = [other for other in alike if other.rpartition("/")[2].split(".")[0] == cell[0]]
    # A resample without a template's lead holds none of that lead's templates.
    leads = grid_resamples(PRESET, ("leads",))
    ours, theirs = (leads.weights[:, leads.positions(each)] for each in ([name], same))
    assert (ours == theirs).all() and (ours == 0).any()
    generator, held = np.random.default_rng(0), {}
    for effect in (0.0, 1.0):
        values = generator.standard_normal((len(by_part.names), 1000))
        for part in PARTS:
            _, labels = np.unique([_part(each, part) for each in by_part.names], return_inverse=True)
            values += effect * generator.standard_normal((labels.max() + 1, 1000))[labels]
        for drawn in (by_template, by_part):
            found = mean_interval(values, list(drawn.names), drawn)
            held[effect, drawn is by_part] = float(((found.low <= 0) & (found.high >= 0)).mean())
    assert held[0.0, False] >= 0.93 and held[1.0, False] < 0.8, held
    assert min(held[0.0, True], held[1.0, True]) >= 0.93, held


def test_a_table_of_errors_draws_each_unit_and_leaves_the_switch_where_it_was(tmp_path) -> None:
    names = list(grid_resamples(PRESET, ()).names)
    values = np.random.default_rng(0).standard_normal(len(names))
    results = Results(PRESET, Store(tmp_path))

    def mean(apart: Results) -> Estimate:
        return apart.cached("mean", lambda: mean_interval(values, names, shared_resamples(PRESET)))

    kept = mean(results)
    table = error_table(results, {"mean": mean}).iloc[0]
    assert table["value"] == kept.value and table["error by templates"] == kept.samples.std()
    assert len(set(table[[f"error by {unit}" for unit in UNITS]])) == len(UNITS)
    assert mean(results) is kept and shared_resamples(PRESET) is grid_resamples(PRESET, UNITS["templates"])
    own = replace(
        PRESET, name="own", variants={"instruct": ModelSpec(source="a/b"), "base": ModelSpec(source="a/c")}
    )
    with pytest.raises(MissingInput, match="organism"):
        grid_resamples(own)
