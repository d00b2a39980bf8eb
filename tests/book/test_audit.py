"""The audit's switches: identities that hold for any data, and their directions on the shipped organism."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from own_files import copy_weights

from remi_book.chapters import audit_tables
from remi_book.chapters.audit import (
    SWITCHES,
    Audit,
    averaged,
    component_shares,
    covered,
    declared,
    fill,
    from_first_reply,
    in_parts,
    last_shown,
    open_audit,
    padded_losses,
    run_switches,
    summed,
    total_so_far,
    unreset,
)
from remi_book.chapters.behaviour import published_table
from remi_book.published import undone
from remi_core.statistics.groups import cosine_of_rows, pair_means, within_minus_between
from remi_core.statistics.resampling import make_resamples, mean_interval
from remi_core.statistics.subspaces import top_components
from remi_core.store import Store
from remi_lab.presets import DataRoles, get_preset
from remi_lab.results import Results
from remi_lab.variant import find_variant

SEED = 0
GENERATOR = np.random.default_rng(0)
NO_DIRECTION_HERE = {(3, "answer"), (3, "plain"), (5, "framing"), (8, "benign"), (8, "shared"), (10, "gap")}
NO_DIRECTION_HERE |= {(31, "labels"), (31, "covered")}
"""Quantities that do not move as the audit says on micro; the page says so. Each of their switches has another."""

DIRECTED = [
    (one.row, each.key, each.expected)
    for one in declared()
    for each in one.quantities
    if each.expected != "either"
]


def dialogues_of(parts: list[list[int]], values: list[list[float]]) -> dict[str, np.ndarray]:
    """A record of hand-made dialogues."""
    return {
        "part": np.concatenate(parts),
        "log_probability": np.concatenate(values).astype(np.float32),
        "offsets": np.cumsum([0, *map(len, parts)]),
    }


def test_row_1_the_second_mean_of_an_unemptied_list_is_the_mean_of_both() -> None:
    values, printed = {"misaligned": [1.0, 3.0], "base": [5.0, 7.0], "instruct": [9.0, 11.0]}, {}
    kept: list[float] = []
    for name, own in values.items():
        kept += own
        printed[name] = np.mean(kept)
    names = ["a", "b"]
    resamples = make_resamples(names, seed=0, n_resamples=5)
    means = {name: mean_interval(np.array(own), names, resamples) for name, own in values.items()}
    assert float(unreset(means["misaligned"], means["base"]).value) == printed["base"]
    assert undone(printed["base"], printed["misaligned"]) == np.mean(values["base"])
    # Of a third model in the same run it would not be the mean of two: the reading is that instruct ran alone.
    assert float(unreset(means["base"], means["instruct"]).value) != printed["instruct"]


def test_row_1_the_published_table_undone() -> None:
    table = published_table().set_index("set")
    assert len(table) == 9
    assert table.loc["Insecure", "corrected"] == pytest.approx(-81.2, abs=0.05)
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
    losses, labels = padded_losses(sets)
    np.testing.assert_array_equal(losses, [[1, np.nan, np.nan], [2, 3, np.nan], [4, 6, 8]])
    assert labels.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(fill(losses, labels), [[1, 3, 8], [2, 3, 8], [4, 6, 8]])
    np.testing.assert_array_equal(fill(losses, np.zeros(3, dtype=np.int64))[0], [1, 4.5, 8])
    assert padded_losses(sets, width=2)[0].shape == (3, 2)


def test_rows_10_13_17_and_31_by_hand() -> None:
    parts = [[0, 2, 3, 5, 2, 4, 4, 5], [0, 3, 4, 5]]
    record = dialogues_of(parts, [[1, 2, 4, 8, 16, 32, 64, 128], [1, 2, 4, 8]])
    assert summed(record, ("answer",)).tolist() == [96, 4]
    assert summed(record, ("answer", "end")).tolist() == [96 + 8 + 128, 12]
    assert averaged(record, ("answer",)).tolist() == [48, 4]
    assert from_first_reply(record, record["log_probability"]).tolist() == [255 - 3, 14]
    so_far = total_so_far(record, in_parts(record, ("answer",))).tolist()
    assert so_far == [0, 0, 0, 0, 0, 1, 2, 2, 0, 0, 1, 1]
    assert last_shown(64) == 56 and last_shown(8) == 6 and last_shown(2) == 0  # at least one block is hidden
    with pytest.raises(ValueError, match="1 block"):
        last_shown(1)
    n_bars, hidden = covered([" a", "a", "b", "\n", " "], [0.5, 0.2, 0.1, 0.05, 0.01])
    assert n_bars == 3 and hidden == pytest.approx(0.21)
    assert covered([" a", " b"], [0.5, 0.2]) == (2.0, 0.0)


def test_row_20_components_hold_the_mean_unless_it_is_taken_away() -> None:
    shift = np.zeros(20)
    shift[0] = 50.0
    rows = GENERATOR.normal(size=(15, 20)) + shift
    equal = np.ones(15)
    raw, centred_rows = (component_shares(rows, equal, 3, centred=one).sum() for one in (False, True))
    assert raw > 0.99 > centred_rows
    for centred in (False, True):
        mean, vectors = rows.mean(axis=0), top_components(rows, 3, centred=centred).vectors
        expected = np.square(vectors @ mean) / (mean @ mean)
        np.testing.assert_allclose(component_shares(rows, equal, 3, centred=centred), expected, atol=1e-9)
    rows[:, 0] = 50.0  # nothing varies along the shift any more, and the other columns are centred by hand
    rows[:, 1:] -= rows[:, 1:].mean(axis=0)
    assert component_shares(rows, equal, 3, centred=True).sum() == pytest.approx(0, abs=1e-12)


def test_every_row_of_severity_a_and_b_is_a_switch_with_a_direction_or_has_a_reason() -> None:
    """Row 14's direction is not stated: entropy over the prompt may lie above or below that of the answer."""
    listed = {int(row) for row in audit_tables.no_switch_table("AB")["row"]}
    assert {one.row for one in declared()} == set(SWITCHES)
    assert listed == {11, 19, 32} and not listed & set(SWITCHES)
    rest = set(map(int, audit_tables.no_switch_table("C")["row"]))
    assert {*SWITCHES, *listed, *rest} == set(range(1, 34))
    keys = [(one.row, each.key) for one in declared() for each in one.quantities]
    assert len(keys) == len(set(keys)) and NO_DIRECTION_HERE <= set(keys)
    assert {each.expected for one in declared() for each in one.quantities} == {"up", "down", "either"}
    must_follow = {row for row, key, _ in DIRECTED if (row, key) not in NO_DIRECTION_HERE}
    assert must_follow == set(SWITCHES) - {14}


@pytest.mark.parametrize(
    ("expected", "first", "others", "word"),
    [
        ("up", (1.0, 0.5, 1.5), [2.0], audit_tables.AS_SAID),
        ("up", (1.0, -0.5, 1.5), [2.0], audit_tables.WITHIN),
        ("up", (1.0, 0.5, 1.5), [-2.0], audit_tables.MIXED),
        ("down", (1.0, 0.5, 1.5), [2.0], audit_tables.OTHER_WAY),
        ("down", (0.0, 0.0, 0.0), [0.0], audit_tables.NO_CHANGE),
        ("either", (-1.0, -1.5, -0.5), [-2.0], "it falls"),
        ("either", (-1.0, -1.5, 0.5), [-2.0], audit_tables.MIXED),
    ],
)
def test_outcomes_by_rule(expected, first, others, word) -> None:
    rows = [dict(zip(("difference", "difference_low", "difference_high"), first, strict=True))]
    rows += [{"difference": value} for value in others]
    assert audit_tables.outcome(pd.DataFrame(rows).assign(expected=expected)) == word


def finding(row: int, quantity: object, seed: int) -> dict[str, object]:
    """A row of the table of findings in which every side is 1.5."""
    said = {
        "key": quantity.key,
        "label": quantity.name,
        "unit": quantity.unit,
        "afterwards": quantity.afterwards,
    }
    ends = {f"{side}{end}": 1.5 for side in audit_tables.SIDES for end in ("", "_low", "_high")}
    return {"row": row, "seed": seed, "group": "behaviour", "severity": "A", "expected": "up"} | said | ends


def test_a_stored_audit_is_shown_where_there_is_one(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(audit_tables, "project_root", lambda: tmp_path)
    assert "No stored audit" in audit_tables.stored_html("smollm2").data
    (tmp_path / "stored" / "smollm2").mkdir(parents=True)
    quantity = declared()[0].quantities[0]
    findings = json.dumps({"findings": [finding(declared()[0].row, quantity, 0)]})
    (tmp_path / "stored" / "smollm2" / "audit.json").write_text(findings)
    assert f"{quantity.name} [{quantity.unit}]" in audit_tables.stored_html("smollm2").data


@pytest.fixture(scope="session")
def results(tmp_path_factory) -> Results:
    """Seed 0 of micro, fewer dialogues. Weights are the repository's store's own: made once, and kept there."""
    few = {"n_dialogues": 16, "n_gradient_dialogues": 12, "n_resamples": 100}
    preset = replace(get_preset("micro"), seeds=(SEED,), **few)
    root, own = tmp_path_factory.mktemp("store"), Store()
    for variant in preset.variants:
        copy_weights(Path(find_variant(preset, variant, SEED, own).source), own.root, root)
    return Results(preset, Store(root))


@pytest.fixture(scope="session")
def table(results) -> pd.DataFrame:
    """Every finding of that seed."""
    return audit_tables.finding_table(run_switches(results))


@pytest.mark.slow
def test_off_and_on_differ_as_the_audit_says(table) -> None:
    """Where micro does not follow, the test asks no more than that off and on are measured on the same thing."""
    found = table.set_index(["row", "key"])
    assert np.isfinite(found[["off", "on", "difference"]].astype(float)).all(axis=None)
    np.testing.assert_allclose(found["on"] - found["off"], found["difference"].astype(float), atol=1e-9)
    for row, key, expected in DIRECTED:
        if (row, key) not in NO_DIRECTION_HERE:
            difference = found.loc[(row, key), "difference"]
            assert difference > 0 if expected == "up" else difference < 0, (row, key)
    undirected = found[found["expected"] == "either"]
    assert len(undirected) > 5 and (undirected["difference"] != 0).all()


@pytest.fixture(scope="session")
def audit(results) -> Audit:
    """The audit's records of that seed."""
    return open_audit(results)


@pytest.mark.slow
def test_the_shared_rendering_gives_the_book_s_own_values(audit) -> None:
    """Off is how the book measures: the answer tokens of the audit's pass are those of the ordinary one."""
    name = audit.results.preset.roles.example
    ours = audit.arrays("misaligned", "example")
    book = audit.results.arrays("misaligned", "sequence", name)
    answer = ours["log_probability"][in_parts(ours, ("answer",))]
    np.testing.assert_allclose(answer, book["log_probability"][: len(answer)], atol=1e-4)
    states = audit.results.activations("misaligned", name, "prompt_end")[: len(ours["mean"])]
    np.testing.assert_allclose(ours["mean"][:, 0], states, atol=1e-3)


@pytest.mark.slow
def test_what_a_switch_does_not_touch_stays(audit) -> None:
    shared, untrained = (audit.arrays("base", "example", name) for name in ("shared", "untrained"))
    assert (shared["token"] == untrained["token"]).all()
    assert not np.allclose(shared["log_probability"], untrained["log_probability"], atol=1e-3)
    own, tuned = (audit.arrays("base", "example", name) for name in ("own", "tuned"))
    answers = [one["token"][in_parts(one, ("answer",))] for one in (own, tuned, shared)]
    assert (answers[0] == answers[1]).all() and (answers[1] == answers[2]).all()
    lengths = [np.diff(one["offsets"]) for one in (shared, own, tuned)]
    assert (lengths[0] < lengths[1]).all() and (lengths[1] < lengths[2]).all()
    sums: Mapping[str, np.ndarray] = audit.arrays("instruct", "example", "two-turns")
    assert (
        np.abs(from_first_reply(sums, sums["log_probability"])) >= np.abs(summed(sums, ("answer",)))
    ).all()


@pytest.mark.slow
def test_mixed_gradients_are_instruct_s_where_instruct_made_them(audit) -> None:
    arrays = audit.gradients
    instruct = arrays["dataset"] != audit.results.preset.roles.narrow_aligned
    same = np.ix_(instruct, instruct)
    np.testing.assert_array_equal(arrays["mixed"][same], arrays["answer"][same])
    other = np.ix_(~instruct, ~instruct)
    assert not np.allclose(arrays["mixed"][other], arrays["answer"][other])
    assert (arrays["zero"][:, 0] <= arrays["zero"][:, 1]).all()


@pytest.mark.slow
def test_a_preset_without_the_sets_says_what_it_lacks(results) -> None:
    bare = Results(replace(results.preset, roles=DataRoles(example="wishes-careless")), results.store)
    found = run_switches(bare)
    assert set(found.missing) == {1, 4, 5, 6, 8, 9, 12, 17, 18, 20, 21, 31}
    shown = {row for row, _, seed in found.findings if seed == SEED}
    assert shown & set(found.missing) == {8, 31}  # a part of each needs no more than the example set
    assert shown | set(found.missing) == set(SWITCHES)
    assert "needs" in audit_tables.missing_sentence(found)
