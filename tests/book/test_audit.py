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
from remi_book.figures import style
from remi_book.figures.output import svg_bytes
from remi_book.published import undone
from remi_book.statistics import centring_identity
from remi_book.tables import tidy
from remi_core.statistics.groups import centred_gram, cosine_of_rows, pair_means, within_minus_between
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


def test_row_4_centring_forces_the_sign_and_the_total() -> None:
    rows = GENERATOR.normal(size=(30, 12)) + 5
    labels = np.repeat([0, 1], [12, 18])
    gram = rows @ rows.T
    between, forced = centring_identity(gram, labels)
    assert between == pytest.approx(forced) and between < 0 < gram.min()
    assert centred_gram(gram).sum() == pytest.approx(0, abs=1e-8)
    difference = rows[labels == 1].mean(axis=0) - rows[labels == 0].mean(axis=0)
    assert forced == pytest.approx(-0.4 * 0.6 * difference @ difference)


def test_row_9_filling_by_group_parts_groups_that_do_not_differ() -> None:
    """The groups are noise of one distribution; only the filling knows their labels."""
    losses = GENERATOR.exponential(size=(60, 40))
    losses[:, 6:][GENERATOR.random((60, 34)) < 0.9] = np.nan
    labels = np.tile([0, 1], 30)
    one, own = (fill(losses, groups) for groups in (np.zeros(60, dtype=np.int64), labels))
    assert np.isfinite(own).all() and (own[np.isfinite(losses)] == losses[np.isfinite(losses)]).all()
    contrasts = [
        float(within_minus_between(pair_means(cosine_of_rows(each, each), labels[None]))[0])
        for each in (one, own)
    ]
    assert abs(contrasts[0]) < 0.01 < contrasts[1]


def test_row_9_gaps_and_empty_positions_by_hand() -> None:
    sets = [(-np.array([1.0, 2.0, 3.0]), np.array([0, 1, 3])), (-np.array([4.0, 6.0, 8.0]), np.array([0, 3]))]
    losses, labels = padded_losses(sets)
    np.testing.assert_array_equal(losses, [[1, np.nan, np.nan], [2, 3, np.nan], [4, 6, 8]])
    assert labels.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(fill(losses, labels), [[1, 3, 8], [2, 3, 8], [4, 6, 8]])
    np.testing.assert_array_equal(fill(losses, np.zeros(3, dtype=np.int64))[0], [1, 4.5, 8])
    assert padded_losses(sets, width=2)[0].shape == (3, 2)


def test_rows_10_and_13_sums_over_parts_by_hand() -> None:
    record = dialogues_of(
        [[0, 2, 3, 5, 2, 4, 4, 5], [0, 3, 4, 5]], [[1, 2, 4, 8, 16, 32, 64, 128], [1, 2, 4, 8]]
    )
    assert summed(record, ("answer",)).tolist() == [96, 4]
    assert summed(record, ("answer", "end")).tolist() == [96 + 8 + 128, 12]
    assert averaged(record, ("answer",)).tolist() == [48, 4]
    assert from_first_reply(record, record["log_probability"]).tolist() == [255 - 3, 14]
    assert total_so_far(record, in_parts(record, ("answer",))).tolist() == [
        0,
        0,
        0,
        0,
        0,
        1,
        2,
        2,
        0,
        0,
        1,
        1,
    ]


def test_row_17_a_cut_in_the_published_proportion_hides_at_least_one_block() -> None:
    assert last_shown(64) == 56 and last_shown(8) == 6 and last_shown(2) == 0
    with pytest.raises(ValueError, match="1 block"):
        last_shown(1)


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


def test_row_31_stripped_labels_fall_together_by_hand() -> None:
    n_bars, hidden = covered([" a", "a", "b", "\n", " "], [0.5, 0.2, 0.1, 0.05, 0.01])
    assert n_bars == 3 and hidden == pytest.approx(0.21)
    assert covered([" a", " b"], [0.5, 0.2]) == (2.0, 0.0)


def test_every_row_of_severity_a_and_b_is_a_switch_or_has_a_reason() -> None:
    listed = {int(row) for row in audit_tables.no_switch_table("AB")["row"]}
    assert {one.row for one in declared()} == set(SWITCHES)
    assert listed == {11, 19, 32} and not listed & set(SWITCHES)
    both = {*SWITCHES, *listed, *map(int, audit_tables.no_switch_table("C")["row"])}
    assert both == set(range(1, 34))
    keys = [(one.row, each.key) for one in declared() for each in one.quantities]
    assert len(keys) == len(set(keys)) and set(NO_DIRECTION_HERE) <= set(keys)
    assert {each.expected for one in declared() for each in one.quantities} == {"up", "down", "either"}


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
def test_outcomes_by_rule(expected: str, first: tuple, others: list[float], word: str) -> None:
    rows = [dict(zip(("difference", "difference_low", "difference_high"), first, strict=True))]
    rows += [{"difference": value} for value in others]
    assert audit_tables.outcome(pd.DataFrame(rows).assign(expected=expected)) == word


def test_figures_of_the_audit_describe_themselves() -> None:
    rows = []
    for one in declared()[:3]:
        for each in one.quantities:
            for seed in (0, 1):
                values = {side: float(GENERATOR.normal()) for side in audit_tables.SIDES}
                ends = {
                    f"{side}_{end}": values[side] + (-0.1 if end == "low" else 0.1)
                    for side in values
                    for end in ("low", "high")
                }
                rows.append(
                    {
                        "row": one.row,
                        "key": each.key,
                        "label": each.name,
                        "unit": each.unit,
                        "afterwards": each.afterwards,
                        "seed": seed,
                        **values,
                        **ends,
                    }
                )
    curves = {("projection", name): GENERATOR.normal(size=8) for name in ("base", "instruct", "misaligned")}
    erosion = pd.DataFrame({"quantity": "erosion", "variant": "misaligned", "layer": range(8), "value": 0.5})
    both = pd.concat(
        [tidy(curves, ["quantity", "variant"], along="layer"), erosion.assign(low=0.4, high=0.6)]
    )
    drawn = [
        audit_tables.plot_switches(pd.DataFrame(rows)),
        audit_tables.plot_unreset_list(
            published_table(), bases={"base": "one", "corrected": "two"}, unit="nats"
        ),
        audit_tables.plot_curve_as_published(both, shown=6, seeds=erosion.assign(seed=0)),
    ]
    for figure in drawn:
        assert len(svg_bytes(figure)) < 300_000 and any(map(str.isdigit, style.describe(figure)))


def test_a_stored_audit_is_shown_where_there_is_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(audit_tables, "project_root", lambda: tmp_path)
    assert "No stored audit" in audit_tables.stored_html("smollm2").data
    (tmp_path / "stored" / "smollm2").mkdir(parents=True)
    row = {
        "row": 10,
        "key": "gap",
        "group": "behaviour",
        "severity": "A",
        "label": "a gap",
        "unit": "nats",
        "expected": "up",
        "afterwards": False,
        "seed": 0,
    }
    row |= {f"{side}{end}": 1.5 for side in audit_tables.SIDES for end in ("", "_low", "_high")}
    (tmp_path / "stored" / "smollm2" / "audit.json").write_text(json.dumps({"findings": [row]}))
    assert "a gap [nats]" in audit_tables.stored_html("smollm2").data


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Seed 0 of micro, fewer dialogues. Weights are the repository's store's own: made once, and kept there."""
    preset = replace(
        get_preset("micro"), seeds=(SEED,), n_dialogues=16, n_gradient_dialogues=12, n_resamples=100
    )
    root, own = tmp_path_factory.mktemp("store"), Store()
    for variant in preset.variants:
        copy_weights(Path(find_variant(preset, variant, SEED, own).source), own.root, root)
    return Results(preset, Store(root))


@pytest.fixture(scope="session")
def table(results: Results) -> pd.DataFrame:
    """Every finding of that seed."""
    return audit_tables.finding_table(run_switches(results))


DIRECTED = [
    (one.row, each.key, each.expected)
    for one in declared()
    for each in one.quantities
    if each.expected != "either"
]


@pytest.mark.slow
@pytest.mark.parametrize(("row", "key", "expected"), DIRECTED)
def test_off_and_on_differ_as_the_audit_says(table: pd.DataFrame, row: int, key: str, expected: str) -> None:
    """Where micro does not follow, the test asks no more than that off and on are measured on the same thing."""
    found = table[(table["row"] == row) & (table["key"] == key)].iloc[0]
    assert np.isfinite(found[["off", "on", "difference"]].astype(float)).all()
    assert found["on"] - found["off"] == pytest.approx(found["difference"], abs=1e-9)
    if (row, key) not in NO_DIRECTION_HERE:
        assert found["difference"] > 0 if expected == "up" else found["difference"] < 0


def test_every_switch_with_a_stated_direction_has_a_quantity_that_must_follow_it() -> None:
    """Row 14's direction is not stated: entropy over the prompt may lie above or below that of the answer."""
    for one in declared():
        stated = [each.key for each in one.quantities if each.expected != "either"]
        assert one.row == 14 or any((one.row, key) not in NO_DIRECTION_HERE for key in stated), one.row


@pytest.mark.slow
def test_where_no_direction_is_stated_off_and_on_differ_all_the_same(table: pd.DataFrame) -> None:
    undirected = table[table["expected"] == "either"]
    assert len(undirected) > 5 and (undirected["difference"] != 0).all()


@pytest.fixture(scope="session")
def audit(results: Results) -> Audit:
    """The audit's records of that seed."""
    return open_audit(results)


@pytest.mark.slow
def test_the_shared_rendering_gives_the_book_s_own_values(audit: Audit) -> None:
    """Off is how the book measures: the answer tokens of the audit's pass are those of the ordinary one."""
    name = audit.results.preset.roles.example
    ours = audit.arrays("misaligned", "example")
    book = audit.results.arrays("misaligned", "sequence", name)
    answer = ours["log_probability"][in_parts(ours, ("answer",))]
    np.testing.assert_allclose(answer, book["log_probability"][: len(answer)], atol=1e-4)
    states = audit.results.activations("misaligned", name, "prompt_end")[: len(ours["mean"])]
    np.testing.assert_allclose(ours["mean"][:, 0], states, atol=1e-3)


@pytest.mark.slow
def test_what_a_switch_does_not_touch_stays(audit: Audit) -> None:
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
def test_mixed_gradients_are_instruct_s_where_instruct_made_them(audit: Audit) -> None:
    arrays = audit.gradients
    instruct = arrays["dataset"] != audit.results.preset.roles.narrow_aligned
    same = np.ix_(instruct, instruct)
    np.testing.assert_array_equal(arrays["mixed"][same], arrays["answer"][same])
    other = np.ix_(~instruct, ~instruct)
    assert not np.allclose(arrays["mixed"][other], arrays["answer"][other])
    assert (arrays["zero"][:, 0] <= arrays["zero"][:, 1]).all()


@pytest.mark.slow
def test_a_preset_without_the_sets_says_what_it_lacks(results: Results) -> None:
    bare = Results(replace(results.preset, roles=DataRoles(example="wishes-careless")), results.store)
    found = run_switches(bare)
    assert set(found.missing) == {1, 4, 5, 6, 8, 9, 12, 17, 18, 20, 21, 31}
    shown = {row for row, _, seed in found.findings if seed == SEED}
    assert shown & set(found.missing) == {8, 31}  # a part of each needs no more than the example set
    assert shown | set(found.missing) == set(SWITCHES)
    assert "needs" in audit_tables.missing_sentence(found)
