"""The audit's switches: identities that hold for any data, and their directions on the shipped organism."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from own_files import copy_weights

from remi_book.chapters import audit, audit_tables
from remi_book.chapters.audit import SWITCHES, Audited, declared, fill, in_parts
from remi_book.chapters.behaviour import published_table
from remi_book.published import undone
from remi_core.statistics.groups import pair_means, within_minus_between
from remi_core.statistics.resampling import make_resamples, mean_interval
from remi_core.statistics.subspaces import top_components
from remi_core.store import Store
from remi_lab.presets import DataRoles, get_preset
from remi_lab.results import Results
from remi_lab.statistics import cosine_of_rows
from remi_lab.variant import find_variant

SEED = 0
GENERATOR = np.random.default_rng(0)
NO_DIRECTION_HERE = {(3, "answer"), (3, "plain"), (5, "framing"), (8, "benign"), (8, "shared"), (10, "gap")}
NO_DIRECTION_HERE |= {(31, "labels"), (31, "covered")}
"""Quantities that do not move as the audit says on micro; the page says so. Each of their switches has another."""

DECLARED = {(one.row, each.key): each.expected for one in declared() for each in one.quantities}
DIRECTED = {key: expected for key, expected in DECLARED.items() if expected != "either"}


def test_row_1_the_second_mean_of_an_unemptied_list_is_the_mean_of_both() -> None:
    values = {"misaligned": [1.0, 3.0], "base": [5.0, 7.0], "instruct": [9.0, 11.0]}
    kept = np.concatenate(list(values.values()))
    printed = {name: kept[: 2 * at].mean() for at, name in enumerate(values, start=1)}
    resamples = make_resamples(["a", "b"], seed=0, n_resamples=5)
    means = {name: mean_interval(np.array(own), ["a", "b"], resamples) for name, own in values.items()}
    assert float(audit.unreset(means["misaligned"], means["base"]).value) == printed["base"]
    assert undone(printed["base"], printed["misaligned"]) == np.mean(values["base"])
    # Of a third model in the same run it would not be the mean of two: the reading is that instruct ran alone.
    assert float(audit.unreset(means["base"], means["instruct"]).value) != printed["instruct"]
    table = published_table().set_index("set")
    assert len(table) == 9 and table.loc["Insecure", "corrected"] == pytest.approx(-81.2, abs=0.05)
    assert table.loc["Toxic QA", "index, corrected"] == pytest.approx(0.81, abs=0.005)


def test_row_9_filling_by_group_parts_groups_that_do_not_differ() -> None:
    """The groups are noise of one distribution; only the filling knows their labels."""
    losses = GENERATOR.exponential(size=(60, 40))
    losses[:, 6:][GENERATOR.random((60, 34)) < 0.9] = np.nan
    labels = np.tile([0, 1], 30)
    one, own = (fill(losses, groups) for groups in (np.zeros(60, dtype=np.int64), labels))
    assert np.isfinite(own).all() and (own[np.isfinite(losses)] == losses[np.isfinite(losses)]).all()
    means = [pair_means(cosine_of_rows(each, each), labels[None]) for each in (one, own)]
    contrasts = [float(within_minus_between(each)[0]) for each in means]
    assert abs(contrasts[0]) < 0.01 < contrasts[1]


def test_row_9_gaps_and_empty_positions_by_hand() -> None:
    sets = [(-np.array([1.0, 2.0, 3.0]), np.array([0, 1, 3])), (-np.array([4.0, 6.0, 8.0]), np.array([0, 3]))]
    losses, labels = audit.padded_losses(sets)
    np.testing.assert_array_equal(losses, [[1, np.nan, np.nan], [2, 3, np.nan], [4, 6, 8]])
    assert labels.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(fill(losses, labels), [[1, 3, 8], [2, 3, 8], [4, 6, 8]])
    np.testing.assert_array_equal(fill(losses, np.zeros(3, dtype=np.int64))[0], [1, 4.5, 8])
    assert audit.padded_losses(sets, width=2)[0].shape == (3, 2)


def test_rows_10_13_17_and_31_by_hand() -> None:
    values, offsets = np.float32(2.0) ** np.r_[0:8, 0:4], np.array([0, 8, 12])
    part = np.array([0, 2, 3, 5, 2, 4, 4, 5, 0, 3, 4, 5])
    record = {"part": part, "log_probability": values, "offsets": offsets}
    assert audit.summed(record, ("answer",)).tolist() == [96, 4]
    assert audit.summed(record, ("answer", "end")).tolist() == [96 + 8 + 128, 12]
    assert audit.averaged(record, ("answer",)).tolist() == [48, 4]
    assert audit.from_first_reply(record, values).tolist() == [255 - 3, 14]
    so_far = audit.total_so_far(record, in_parts(record, ("answer",))).tolist()
    assert so_far == [0, 0, 0, 0, 0, 1, 2, 2, 0, 0, 1, 1]
    assert [audit.last_shown(n) for n in (64, 8, 2)] == [56, 6, 0]  # at least one block is hidden
    with pytest.raises(ValueError, match="1 block"):
        audit.last_shown(1)
    assert audit.covered([" a", "a", "b", "\n", " "], [0.5, 0.2, 0.1, 0.05, 0.01]) == pytest.approx((3, 0.21))
    assert audit.covered([" a", " b"], [0.5, 0.2]) == (2.0, 0.0)


def test_row_20_components_hold_the_mean_unless_it_is_taken_away() -> None:
    rows, equal = GENERATOR.normal(size=(15, 20)), np.ones(15)
    rows[:, 0] += 50.0
    mean = rows.mean(axis=0)
    raw, centred_rows = (audit.component_shares(rows, equal, 3, centred=one) for one in (False, True))
    assert raw.sum() > 0.99 > centred_rows.sum()
    for centred, found in ((False, raw), (True, centred_rows)):
        vectors = top_components(rows, 3, centred=centred).vectors
        np.testing.assert_allclose(found, np.square(vectors @ mean) / (mean @ mean), atol=1e-9)
    rows[:, 0] = 50.0  # nothing varies along the shift any more, and the other columns are centred by hand
    rows[:, 1:] -= rows[:, 1:].mean(axis=0)
    assert audit.component_shares(rows, equal, 3, centred=True).sum() == pytest.approx(0, abs=1e-12)


def test_every_row_of_severity_a_and_b_is_a_switch_with_a_direction_or_has_a_reason() -> None:
    """Row 14's direction is not stated: entropy over the prompt may lie above or below that of the answer."""
    whole = audit_tables.audit_table(audit_tables.finding_table(Audited(findings={})))
    listed = set(whole["row"][whole["here"].str.startswith("No switch")])
    assert whole["row"].tolist() == list(range(1, 34))
    assert {one.row for one in declared()} == set(SWITCHES)
    assert listed == {11, 19, 32} and not listed & set(SWITCHES)
    assert not set(whole["row"][whole["severity"] != "C"]) - listed - set(SWITCHES)
    assert len(DECLARED) == sum(len(one.quantities) for one in declared())
    assert DECLARED.keys() >= NO_DIRECTION_HERE and set(DECLARED.values()) == {"up", "down", "either"}
    assert {row for row, _ in DIRECTED.keys() - NO_DIRECTION_HERE} == set(SWITCHES) - {14}


@pytest.mark.parametrize(
    ("expected", "first", "other", "word"),
    [
        ("up", (1.0, 0.5, 1.5), 2.0, audit_tables.AS_SAID),
        ("up", (1.0, -0.5, 1.5), 2.0, audit_tables.WITHIN),
        ("up", (1.0, 0.5, 1.5), -2.0, audit_tables.MIXED),
        ("down", (1.0, 0.5, 1.5), 2.0, audit_tables.OTHER_WAY),
        ("down", (0.0, 0.0, 0.0), 0.0, audit_tables.NO_CHANGE),
        ("either", (-1.0, -1.5, -0.5), -2.0, "it falls"),
        ("either", (-1.0, -1.5, 0.5), -2.0, audit_tables.MIXED),
    ],
)
def test_outcomes_by_rule(expected, first, other, word) -> None:
    names = ["difference", "difference_low", "difference_high"]
    rows = pd.DataFrame([first, (other, np.nan, np.nan)], columns=names)
    assert audit_tables.outcome(rows.assign(expected=expected)) == word


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    """Seed 0 of micro, fewer dialogues. Weights are the repository's store's own: made once, and kept there."""
    few = {"n_dialogues": 16, "n_gradient_dialogues": 12, "n_resamples": 100}
    preset = replace(get_preset("micro"), seeds=(SEED,), **few)
    root, own = tmp_path_factory.mktemp("store"), Store()
    for variant in preset.variants:
        copy_weights(Path(find_variant(preset, variant, SEED, own).source), own.root, root)
    return Results(preset, Store(root))


@pytest.mark.slow
def test_off_and_on_differ_as_the_audit_says(results) -> None:
    """Where micro does not follow, the test asks no more than that off and on are measured on the same thing."""
    found = audit_tables.finding_table(audit.run_switches(results)).set_index(["row", "key"])
    assert np.isfinite(found[["off", "on", "difference"]].astype(float)).all(axis=None)
    np.testing.assert_allclose(found["on"] - found["off"], found["difference"].astype(float), atol=1e-9)
    for key in DIRECTED.keys() - NO_DIRECTION_HERE:
        assert found.loc[key, "difference"] * (1 if DIRECTED[key] == "up" else -1) > 0, key
    undirected = found[found["expected"] == "either"]
    assert len(undirected) > 5 and (undirected["difference"] != 0).all()


@pytest.fixture(scope="module")
def records(results) -> audit.Audit:
    return audit.open_audit(results)


@pytest.mark.slow
def test_the_shared_rendering_gives_the_book_s_own_values(results, records) -> None:
    """Off is how the book measures: the answer tokens of the audit's pass are those of the ordinary one."""
    name = results.preset.roles.example
    ours, book = records.arrays("misaligned", "example"), results.arrays("misaligned", "sequence", name)
    answer = ours["log_probability"][in_parts(ours, ("answer",))]
    np.testing.assert_allclose(answer, book["log_probability"][: len(answer)], atol=1e-4)
    states = results.activations("misaligned", name, "prompt_end")[: len(ours["mean"])]
    np.testing.assert_allclose(ours["mean"][:, 0], states, atol=1e-3)


@pytest.mark.slow
def test_what_a_switch_does_not_touch_stays(records) -> None:
    kinds = ("shared", "untrained", "own", "tuned")
    shared, untrained, own, tuned = (records.arrays("base", "example", name) for name in kinds)
    assert (shared["token"] == untrained["token"]).all()
    assert not np.allclose(shared["log_probability"], untrained["log_probability"], atol=1e-3)
    answers = [one["token"][in_parts(one, ("answer",))] for one in (own, tuned, shared)]
    assert (answers[0] == answers[1]).all() and (answers[1] == answers[2]).all()
    lengths = [np.diff(one["offsets"]) for one in (shared, own, tuned)]
    assert (lengths[0] < lengths[1]).all() and (lengths[1] < lengths[2]).all()
    sums = records.arrays("instruct", "example", "two-turns")
    whole, last = audit.from_first_reply(sums, sums["log_probability"]), audit.summed(sums, ("answer",))
    assert (np.abs(whole) >= np.abs(last)).all()


@pytest.mark.slow
def test_mixed_gradients_are_instruct_s_where_instruct_made_them(results, records) -> None:
    arrays = records.gradients
    instruct = arrays["dataset"] != results.preset.roles.narrow_aligned
    same, other = (np.ix_(rows, rows) for rows in (instruct, ~instruct))
    np.testing.assert_array_equal(arrays["mixed"][same], arrays["answer"][same])
    assert not np.allclose(arrays["mixed"][other], arrays["answer"][other])
    assert (arrays["zero"][:, 0] <= arrays["zero"][:, 1]).all()


@pytest.mark.slow
def test_a_preset_without_the_sets_says_what_it_lacks(results) -> None:
    bare = Results(replace(results.preset, roles=DataRoles(example="wishes-careless")), results.store)
    found = audit.run_switches(bare)
    assert set(found.missing) == {1, 4, 5, 6, 8, 9, 12, 17, 18, 20, 21, 31}
    shown = {row for row, _, seed in found.findings if seed == SEED}
    assert shown & set(found.missing) == {8, 31}  # a part of each needs no more than the example set
    assert shown | set(found.missing) == set(SWITCHES)
    assert "needs" in audit_tables.missing_sentence(found)
