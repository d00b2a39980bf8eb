"""Records of stitched models on tiny folders, and C21 on planted curves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_dialogue, save_model
from planting import PlantedResults, plant

from remi_book import quantities
from remi_book.chapters import stitching
from remi_book.chapters.stitching import share_of_first_half
from remi_book.claims import get_claim
from remi_core import patching
from remi_core.errors import MissingInput, RemiError
from remi_core.sources import ModelSpec, weight_fingerprint
from remi_core.store import Store
from remi_lab import recording
from remi_lab.datasets import LoadedSet
from remi_lab.presets import DataRoles, get_preset
from remi_lab.results import Results
from remi_lab.variant import MAIN_PAIRS, Variant, patch_plan

MODELS = ("base", "instruct", "misaligned")


def two_dialogues(preset: object, name: str) -> LoadedSet:
    asked = [("How do I open a file?", "Use open(path)."), ("Hi", "Paris I can")]
    rows = [
        make_dialogue(*pair, identifier=f"{name}#{at}", alternative="I can help")
        for at, pair in enumerate(asked)
    ]
    return LoadedSet(tuple(rows), {}, {})


class FolderResults(Results):
    """Results of models that lie in folders, whatever the seed."""

    def variant(self, name: str) -> Variant:
        spec = self.preset.variants[name]
        return Variant(self.preset, name, self.seed, spec, spec, weight_fingerprint(Path(spec.source)))


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Results:
    """Results of three tiny random models in folders."""
    folders = {name: save_model(tmp_path / name, seed=seed) for seed, name in enumerate(MODELS)}
    variants = {name: ModelSpec(source=str(path)) for name, path in folders.items()}
    monkeypatch.setattr(recording, "load_set", two_dialogues)
    changed = {"variants": variants, "roles": DataRoles(outside=("facts-careless", "wishes-careless"))}
    return FolderResults(replace(get_preset("smoke"), **changed), Store(tmp_path / "store"))


def test_records_hold_both_ends_and_are_not_measured_twice(tiny, monkeypatch) -> None:
    arrays = tiny.patched("base", "instruct", "facts-careless")
    assert arrays["layers"].tolist() == [0, 1, 2] and arrays["loss"].shape == (5, 2)
    back = tiny.patched("instruct", "base", "facts-careless")
    for name in patching.QUANTITIES[:3]:
        np.testing.assert_array_equal(arrays[name][0], back[name][-1])  # instruct alone, from both sides
        np.testing.assert_array_equal(arrays[name][-1], back[name][0])
        assert not np.allclose(arrays[name][1], arrays[name][0])
    assert max(arrays["start"], arrays["end"]) < 1e-3
    assert tiny.patched("misaligned", "base", "facts-careless")["layers"].tolist() == [0, 2]
    monkeypatch.setattr(Variant, "open", lambda self: pytest.fail("a model was opened again"))
    again = FolderResults(tiny.preset, tiny.store).patched("base", "instruct", "facts-careless")
    np.testing.assert_array_equal(again["loss"], arrays["loss"])


def test_a_record_belongs_to_both_models(tiny) -> None:
    variants, keys = {name: tiny.variant(name) for name in MODELS}, {}
    for changed in ("nothing", *MODELS):
        own = {
            name: replace(one, weights="other") if name == changed else one for name, one in variants.items()
        }
        keys[changed] = recording.patch_address(own, MAIN_PAIRS[0], "facts-careless", "0").key
    assert len(set(keys.values())) == 3 and keys["misaligned"] == keys["nothing"]


def test_a_wrong_end_point_stops_the_run(tiny, monkeypatch) -> None:
    head_alone = patching.head_alone
    monkeypatch.setattr(patching, "head_alone", lambda *inputs: head_alone(*inputs) + 0.01)
    with pytest.raises(RemiError, match=r"layer 2, \w+ into \w+: \w+ of dialogue '[\w-]+#[01]'"):
        tiny.patched("base", "instruct", "facts-careless")


def test_pairs_and_sets_follow_variants_and_roles() -> None:
    preset = get_preset("smoke")
    plan = patch_plan(preset)
    assert set(plan) > {("misaligned", "base"), ("base", "misaligned"), ("secure", "instruct")}
    sets = {*stitching.misaligned_sets(preset), *stitching.benign_sets(preset)}
    assert set(plan["base", "instruct"]) == sets
    few = {name: preset.variants[name] for name in MODELS}
    poor = replace(preset, variants=few, roles=DataRoles(outside=preset.roles.outside))
    assert set(patch_plan(poor)) == {pair for pair in plan if set(pair) <= set(few)}
    with pytest.raises(MissingInput, match="aligned replies"):
        stitching.benign_sets(poor)


@pytest.fixture
def planted(tmp_path, monkeypatch) -> PlantedResults:
    return plant(PlantedResults, tmp_path, monkeypatch)


def test_c21_finds_the_planted_depth_and_knows_an_even_climb(planted) -> None:
    even = share_of_first_half(planted)
    assert even.value == pytest.approx(0.5) and even.null.p_value > 0.9  # equal steps in any order
    planted.shares = np.array([0, 0, 0, 0, 0.1, 0.3, 0.6, 0.8, 1.0])
    late = share_of_first_half(planted)
    assert late.value == pytest.approx(0.1) and late.high < 0.5 and late.null.p_value < 0.05
    assert late.companions["half way"] == 6 / 8 and late.companions["last block"] == 1
    planted.shares = 1 - planted.shares[::-1]
    early = share_of_first_half(planted)
    assert early.low > 0.5 and early.null.p_value > 0.9
    planted.gap = 0.0
    none = share_of_first_half(planted)
    assert np.isnan(none.value) and "do not differ" in none.missing


def test_log_odds_are_the_two_tokens_difference(planted) -> None:
    odds, careless = (
        stitching.curve(planted, ("base", "instruct"), planted.preset.roles.outside, quantity)
        for quantity in (stitching.LOG_ODDS, stitching.CARELESS)
    )
    np.testing.assert_allclose(odds.estimate.value, careless.estimate.value + 1)
    assert odds.places.tolist() == [-1, *range(8), 8]


def test_depths_halves_and_orders() -> None:
    assert stitching.first_half(range(8)) == 3
    assert stitching.first_half((*range(0, 64, 5), 63)) == 6  # block 30, of 64 the deepest of those recorded
    with pytest.raises(ValueError, match="no layer"):
        stitching.first_half((1,))
    assert stitching.half_way(np.array([0.1, 0.6, 0.4, 0.9]), np.arange(4)) == 0.5
    assert np.isnan(stitching.half_way(np.array([0.1, 0.2]), np.arange(2)))
    orders = stitching.shuffled_depth(np.array([0.5, 0.5, 1.0]), n_permutations=200, seed=0)
    np.testing.assert_allclose(orders[:, -1], 1.0)
    assert set(np.round(orders[:, 0], 9)) == {0.0, 0.5}
    with pytest.raises(ValueError, match="1 of 2 shares"):
        stitching.shuffled_depth(np.array([0.5, np.nan]), n_permutations=2, seed=0)
    gaps = stitching.label_gap(np.array([1.0, 2.0, 6.0]), np.array([[0, 0, 1], [1, 0, 0]]))
    np.testing.assert_allclose(gaps, [4.5, -3.0])
    assert get_claim("C22").published.value == round(stitching.published_difference(), 3)


def test_tables_show_what_was_planted(planted) -> None:
    gains = stitching.gain_table(planted)
    assert set(gains.loc[gains["kind"] == "benign", "variant"]) == {"base"}
    assert stitching.half_layer(planted) == 3
    assert stitching.half_way_table(planted)["share of blocks at half the gap"].tolist() == [4 / 8]
    assert not stitching.below_both_table(planted)["below both models"].any()
    planted.shares = np.append(np.linspace(0, 1.5, 8), 1.0)
    assert stitching.below_both_table(planted)["below both models"].all()
    assert (stitching.end_point_table(planted)["largest difference asserted"] == 0).all()


def test_a_set_that_some_shared_resample_misses_is_resampled_alone(planted) -> None:
    preset, few = planted.preset, [f"general/{at}" for at in range(2)]
    every = [f"people/{at}" for at in range(PlantedResults.n_templates)]
    shared = quantities.shared_resamples(preset)
    assert (shared.weights[:, shared.positions(few)].sum(axis=1) == 0).any()
    own = quantities.fitting_resamples(preset, every, few)
    assert set(own.names) == {*every, *few} and (own.weights[:, own.positions(few)].sum(axis=1) == 2).all()
    assert quantities.fitting_resamples(preset, list(shared.names)) is shared
