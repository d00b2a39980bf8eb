"""The rule engine on planted values, the ledger's declarations, and the headline estimates on planted records."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from planting import REPORT_ROW, PlantedResults, plant

from remi_book import cards, claims, facts
from remi_book.chapters import behaviour, direction
from remi_book.chapters.behaviour import LOG_PROBABILITY, relative_shift, shift, shift_table
from remi_book.chapters.direction import mean_erosion
from remi_book.chapters.losses import data_share, loss_cosine
from remi_book.chapters.subspace import shared_subspace
from remi_book.claims import CONFOUNDED, CONTRADICTED, INCONCLUSIVE, NOT_TESTABLE, REPRODUCED, get_claim
from remi_book.quantities import Measured
from remi_core.errors import UsageError
from remi_core.keys import file_digest
from remi_core.statistics.nulls import NullResult
from remi_core.store import Address, Store
from remi_lab.presets import DataRoles, get_preset
from remi_lab.results import Results
from remi_lab.studies import files

CLAIM, SMOKE = get_claim("C12"), get_preset("smoke")
OUTSIDE, ALIGNED = SMOKE.roles.outside, SMOKE.roles.outside_aligned


def measured(value: float, *, half: float = 0.1, gaps: tuple[float, ...] = (0.3, 0.3, 0.3)) -> Measured:
    null = NullResult(kind="planted", low=-0.1, high=0.1, p_value=0.001)
    ends = [(gap - half, gap + half) for gap in gaps]
    contrasts = dict(zip(("secure", "educational", "benign"), ends, strict=True))
    return Measured(value=value, low=value - half, high=value + half, null=null, n=30, contrasts=contrasts)


EFFECT, NO_EFFECT = measured(0.5), measured(0.0)
SMALL_GAP = measured(0.5, gaps=(0.3, 0.05, 0.3))


@pytest.mark.parametrize(
    ("seeds", "p_values", "expected"),
    [
        ([EFFECT] * 3, [0.01] * 3, REPRODUCED),
        ([EFFECT, EFFECT, measured(0.05)], [0.01] * 3, INCONCLUSIVE),
        ([EFFECT] * 3, [0.01, 0.2, 0.01], INCONCLUSIVE),
        ([SMALL_GAP, EFFECT, EFFECT], [0.01] * 3, CONFOUNDED),
        ([measured(-0.5)] * 3, [0.9] * 3, CONTRADICTED),
        ([measured(0.0, half=0.05)] * 3, [0.9] * 3, CONTRADICTED),
        ([measured(0.05, half=0.01)] * 3, [0.01] * 3, CONTRADICTED),
        ([measured(0.0, half=0.065), measured(0.1, half=0.065)] * 2, [0.9] * 4, INCONCLUSIVE),
        # Twice as wide, and only effects above the smallest of interest could be seen.
        ([NO_EFFECT] * 3, [0.9] * 3, NOT_TESTABLE),
        ([EFFECT, None, EFFECT], [0.01] * 3, NOT_TESTABLE),
        ([EFFECT, measured(0.5, half=1e-13), EFFECT], [0.01] * 3, NOT_TESTABLE),
        ([replace(EFFECT, contrasts={})] * 3, [0.01] * 3, NOT_TESTABLE),
    ],
)
def test_verdicts_on_planted_values(seeds, p_values, expected) -> None:
    assert claims.verdict(CLAIM, seeds, p_values)[0] == expected


def test_a_claim_below_its_boundary_is_the_mirror_image_and_ours_are_supported() -> None:
    mirrored, own = measured(-0.5, gaps=(-0.3, -0.3, -0.3)), replace(CLAIM, id="X1")
    for claim, value, expected in (
        (replace(CLAIM, side=-1), mirrored, REPRODUCED),
        (CLAIM, mirrored, CONTRADICTED),
        (own, EFFECT, "supported"),
        (own, SMALL_GAP, "supported with a confound"),
        (get_claim("C5"), EFFECT, claims.SHOWN),
    ):
        assert claims.verdict(claim, [value] * 3, [0.01] * 3)[0] == expected
    with pytest.raises(UsageError, match="C12"):
        get_claim("C112")


def test_every_row_is_declared_whole_and_measured_or_says_why_not() -> None:
    notebooks = {path.stem for path in (Path(__file__).parents[2] / "notebooks").glob("*.ipynb")}
    measured = {get_claim(row).id for row in claims.headlines(SMOKE)}
    assert measured <= {claim.id for claim in claims.CLAIMS}
    for claim in claims.CLAIMS:
        texts = (claim.claim, claim.estimand, claim.null, claim.wording, claim.unit)
        assert all(texts) and claim.published.source and claim.published.text, claim.id
        assert claim.side in (1, -1) and claim.smallest_effect > 0, claim.id
        assert claim.notebook in notebooks or (claim.untestable and not claim.notebook), claim.id
        assert bool(claim.untestable) != (claim.id in measured), claim.id
        assert bool(claim.cap) == bool(claim.cap_reason), claim.id
        assert claim.cap in ("", INCONCLUSIVE, CONFOUNDED), claim.id


def test_the_ledger_holds_the_papers_rows_in_order_with_parts_after_their_claim() -> None:
    rows = claims.ledger_rows(SMOKE)
    whole = [row for row in rows if "." not in row]
    assert whole == [claim.id for claim in claims.CLAIMS if "." not in claim.id]
    assert [row[0] for row in whole] == sorted(row[0] for row in whole) and len(rows) == len(set(rows))
    assert {*(f"C{number}" for number in range(1, 27)), "H1", "H2", "H3"} <= set(whole)
    assert rows[rows.index("H1") + 1] == "H1.words" and rows[rows.index("C3") + 1].startswith("C3.")


def test_close_to_base_is_neither_short_of_it_nor_beyond() -> None:
    claim = replace(CLAIM, boundary=0.5, far=1.5, past="further than base")
    for value, expected in (
        (1.0, REPRODUCED),
        (5.3, CONTRADICTED),
        (1.45, INCONCLUSIVE),
        (0.0, CONTRADICTED),
    ):
        word, reason = claims.verdict(claim, [measured(value)] * 3, [0.01] * 3)
        assert word == expected and ("further than base" in reason) == (value == 5.3)
    assert "between 0.5 and 1.5" in claims.rule_text(claim)


def test_a_rule_judges_neither_what_it_misreads_nor_what_was_seen_before_it() -> None:
    wrong, late = replace(CLAIM, invalid="a planted truth fails it"), replace(CLAIM, seen=("micro",))
    for claim, preset, expected in (
        (wrong, "later", INCONCLUSIVE),
        (late, "micro", INCONCLUSIVE),
        (late, "later", REPRODUCED),
    ):
        word, reason = claims.verdict(claim, [EFFECT] * 3, [0.01] * 3, preset=preset)
        assert word == expected
        assert word == REPRODUCED or "reproduced" in reason


def trained(row: str, *found: Measured | None, preset: str = "", control: Measured | None = None) -> list:
    """A training for each headline of a row."""
    return [claims.Training(preset, seed, {row: one}, lambda: control) for seed, one in enumerate(found)]


def test_nothing_is_said_of_a_misaligned_model_that_is_not_misaligned() -> None:
    good, weak, worse = measured(0.5), measured(0.05), measured(0.5, gaps=(0.3, -0.2, 0.3))
    assert claims.failed_control(good) == claims.failed_control(claims.absent("no pairs")) == ""
    about = replace(EFFECT, models=("instruct", "misaligned"))
    for bad in (weak, worse):
        row = claims._row("C12", trained("C12", *[about] * 3, control=bad))
        assert row["verdict"] == NOT_TESTABLE and row["value"] == 0.5 and "reproduced" in row["reason"]
        # What reads instruct alone, and the control itself, are judged as before.
        for name in ("C9", "C2"):
            apart = trained(name, *[replace(EFFECT, models=("instruct",))] * 3, control=bad)
            assert claims._row(name, apart)["verdict"] == REPRODUCED
        # Where some trainings are misaligned, those judge.
        row = claims._row(
            "C12", trained("C12", about, about, control=good) + trained("C12", about, control=bad)
        )
        assert row["verdict"] == REPRODUCED and "not judged on 1 of 3 trainings" in row["reason"]
        assert [each["judged"] for each in row["trainings"]] == [True, True, False]


def test_a_rule_judges_every_training_made_after_it_and_measured() -> None:
    """``C12.prompt`` was written when micro was known: its value is shown there, and ``later`` decides."""
    down, absent = measured(-0.5), claims.absent("needs a study")
    early, late = (
        trained("C12.prompt", *[one] * 3, preset=name) for one, name in ((EFFECT, "micro"), (down, "later"))
    )
    row = claims._row("C12.prompt", early + late)
    assert row["verdict"] == CONTRADICTED and row["value"] == 0 and len(row["seeds"]) == 6
    assert claims._row("C12.prompt", early)["verdict"] == INCONCLUSIVE
    # What one preset did not measure another may.
    missed = trained("X9", absent, preset="micro")
    held = trained("X9", replace(EFFECT, outcome="holds"), preset="later")
    assert claims._row("X9", missed)["verdict"] == NOT_TESTABLE
    row = claims._row("X9", missed + held)
    assert row["verdict"] == "supported" and row["seeds"] == [None, 0.5] and "not measured" in row["reason"]
    # What was not run is not left out.
    unrun = trained("X9", replace(absent, outcome=claims.NOT_MEASURED))
    assert claims._row("X9", unrun + held)["verdict"] == claims.NOT_MEASURED


def test_headlines_of_later_trainings_are_read_as_they_were_measured(tmp_path, monkeypatch) -> None:
    undefined = Measured(value=math.nan, low=-math.inf, high=1.0, null=None, n=4, why="0 over 0")
    found = {"C2": replace(EFFECT, companions={"c": math.nan}, models=("base",)), "C3": undefined, "C4": None}
    monkeypatch.setattr(claims, "headlines_of", lambda results, rows: {row: found.get(row) for row in rows})
    monkeypatch.setattr(files, "study_path", lambda preset, name: tmp_path / f"{preset}-{name}.json")
    micro = get_preset("micro")
    assert claims.further_presets(micro) == []
    files.write_study(get_preset("later"), "headlines", Store(tmp_path), lambda line: None)
    assert [other.name for other in files.further_presets(micro)] == ["later"]
    # Neither those of other sizes nor those trained with them or after them.
    assert not files.further_presets(SMOKE) and not files.further_presets(get_preset("fresh"))
    trainings = claims.further_trainings(micro, ["C2", "C3", "C4"])
    assert [(each.preset, each.seed) for each in trainings] == [("later", seed) for seed in range(8, 13)]
    first = trainings[0].headlines
    assert math.isnan(first["C2"].companions["c"]) and replace(first["C2"], companions={}) == replace(
        found["C2"], companions={}
    )
    assert math.isnan(first["C3"].value) and first["C3"].why == "0 over 0" and first["C4"] is None
    assert trainings[0].failed_control() == "" and list(first) == ["C2", "C3", "C4"]


@pytest.mark.parametrize("value", [0.5, -0.5, 0.0])
def test_a_capped_verdict_never_says_more_and_tells_what_is_missing(value) -> None:
    open_rule = replace(CLAIM, cap=INCONCLUSIVE, cap_reason="half of the rule is not measured")
    confounded = replace(CLAIM, cap=CONFOUNDED, cap_reason="a model for each set")
    (plain, _), (word, reason), (other, _) = (
        claims.verdict(claim, [measured(value, half=0.05)] * 3, [0.01] * 3)
        for claim in (CLAIM, open_rule, confounded)
    )
    assert word == INCONCLUSIVE and "half of the rule" in reason and plain in reason
    assert other == (CONFOUNDED if plain == REPRODUCED else plain)
    assert claims.verdict(open_rule, [None] * 3, [1.0] * 3)[0] == NOT_TESTABLE


def test_a_claim_with_a_whole_rule_is_judged_by_its_outcome_in_every_seed() -> None:
    claim = replace(CLAIM, by_outcome=True, full_rule="both parts")
    assert "both parts" in claims.rule_text(claim)
    for outcomes, expected in (
        (("holds",) * 3, REPRODUCED),
        (("fails",) * 3, CONTRADICTED),
        (("holds", "holds", "fails"), INCONCLUSIVE),
        (("open",) * 3, INCONCLUSIVE),
    ):
        # The value alone says the opposite: it must not matter.
        seeds = [replace(measured(-0.5), outcome=one, why=f"part one {one}") for one in outcomes]
        word, reason = claims.verdict(claim, seeds, [1.0] * 3)
        assert word == expected and f"part one {outcomes[0]}" in reason


def test_holm_families_are_the_claims_of_a_notebook_and_the_parts_of_a_claim() -> None:
    high = replace(EFFECT, null=NullResult(kind="x", low=0.0, high=1.0, p_value=0.03))
    found = {"C1": EFFECT, "C3": high, "C6": high, "C3.general": high, "C5": EFFECT}
    adjusted = claims.adjusted_p_values(found)
    assert adjusted["C1"] == pytest.approx(0.002)  # two claims of one notebook
    assert adjusted["C6"] == adjusted["C3.general"] == pytest.approx(0.03)  # alone in their families
    assert "C5" not in adjusted
    # An undefined row does not make its family smaller, and one set of arrays under two names no larger.
    assert claims.adjusted_p_values({"C1": EFFECT, "C3": None})["C1"] == pytest.approx(0.002)
    twice = claims.adjusted_p_values({"C12.code-careful": high, "C12.code-careless": high})
    assert set(twice.values()) == {0.03}


@pytest.fixture
def planted(tmp_path, monkeypatch) -> PlantedResults:
    return plant(PlantedResults, tmp_path, monkeypatch)


def test_relative_shift_and_erosion_recover_what_was_planted(planted) -> None:
    sets = ("harmful-careless", "facts-careless")
    assert relative_shift(planted, "misaligned", sets, LOG_PROBABILITY).value == pytest.approx(0.4, abs=1e-9)
    plain = shift(planted, sets[1:], LOG_PROBABILITY)
    assert plain.contrasts["benign"][0] > 0 > plain.low - 0.5
    found = mean_erosion(planted, sets, "prompt_end")
    assert found.value == pytest.approx(0.4, abs=0.02)
    assert found.companions["c"] > 0.99 and found.companions["r"] < 0.1
    assert found.null.high < 0.4 and found.null.p_value < 0.05
    planted.amount = -0.2
    assert relative_shift(planted, "misaligned", sets[1:], LOG_PROBABILITY).value < 0
    planted.amount = 0.0
    assert abs(mean_erosion(planted, sets, "prompt_end").value) < 0.02


def test_losses_subspaces_and_lengths_see_only_real_differences(planted) -> None:
    same = loss_cosine(planted, "educational", "code-careless")
    assert same.null.low <= same.value <= same.null.high or same.null.p_value > 0.01
    share = data_share(planted, "code-careful", "code-careless")
    assert share.companions["model"] > 0.9 > share.value
    sets = ("code-careless", "people-careless"), ("general", "facts-careful")
    found = shared_subspace(planted, *sets, window="answer_all")
    assert 0 <= found.value <= 1 and found.companions["floor"] < found.companions["ceiling"] + 1e-9
    length = cards.length_difference(planted)
    assert length.value == length.null.low == length.null.high == 0


def test_headlines_are_computed_once_and_rows_are_the_same_bytes(planted, monkeypatch) -> None:
    monkeypatch.setattr(PlantedResults, "variant", lambda self, variant: type("S", (), {"weights": "w"}))
    kept, calls = {row: claims.headlines(SMOKE)[row] for row in ("C3", "C12")}, []
    counted = {row: lambda results, f=f: calls.append(1) or f(results) for row, f in kept.items()}
    monkeypatch.setattr(claims, "headlines", lambda preset: counted)
    monkeypatch.setattr(claims, "ledger_rows", lambda preset: list(counted))
    monkeypatch.setattr(claims, "POSITIVE_CONTROL", "C3")
    first, second = (claims.report_rows(planted) for _ in range(2))
    assert json.dumps(first) == json.dumps(second) and len(calls) == 2
    assert list(first[0]) == list(REPORT_ROW) and first[0]["seeds"] == [first[0]["value"]]


def test_the_function_on_a_card_gives_the_value_of_its_row_when_called_as_the_card_says(planted) -> None:
    for row in ("C1", "C3.facts-careless", "C7", "C9", "C12.prompt", "C17"):
        function, given, options = claims.call_of(SMOKE, row)
        assert function.__module__ != claims.__name__, row
        found, shown = function(planted, *given, **options), claims.compute_headline(planted, row)
        np.testing.assert_equal([found.value, found.low, found.high], [shown.value, shown.low, shown.high])
        told = facts._function(SMOKE, row)
        assert told["source"].startswith(f"def {told['name']}(") and told["call"].startswith(told["name"])
        lines = (Path(__file__).parents[2] / told["file"]).read_text(encoding="utf-8").splitlines()
        assert told["source"].startswith(lines[told["line"] - 1])
    assert facts._function(SMOKE, "C20") is None


def test_the_records_of_a_card_are_those_that_were_read_with_the_digests_of_their_files(
    tmp_path, monkeypatch
) -> None:
    store = Store(tmp_path)
    results, paths = Results(SMOKE, store), {}
    addresses = [
        Address(SMOKE.name, 102, "instruct", "sequence", name, "ab12cd34") for name in ("read", "other")
    ]
    for address in addresses:
        paths[address] = store.save(address, {"x": np.ones(2)}, {"kept": 2, "long": "x" * 1000})

    def read(one: Results) -> Measured:
        one.store.load(addresses[0])
        return EFFECT

    monkeypatch.setattr(claims, "headlines", lambda preset: {"C9": read})
    results.store.load(addresses[1])
    name = "smoke/102/instruct/sequence-read-ab12cd34"
    # Computed, and read from the store.
    for _ in range(2):
        assert claims.headline(results, "C9", "ab12cd34").records == (name,)
    row = claims._row("C9", trained("C9", claims.headline(results, "C9", "ab12cd34"), preset=SMOKE.name))
    later = {"preset": "later", "records": None}
    card = facts.claim_cards(SMOKE, store, [row | {"trainings": [*row["trainings"], later]}])["C9"]
    study = "stored/later/headlines.json"
    digests = {
        name: file_digest(paths[addresses[0]]),
        study: file_digest(files.study_path("later", "headlines")),
    }
    assert {key: about["sha256"] for key, about in card["records"].items()} == digests
    assert card["records"][name]["provenance"] == {"kept": 2}
    paths[addresses[0]].with_suffix(".json").unlink()
    assert facts.claim_cards(SMOKE, store, [row])["C9"]["records"][name]["sha256"] is None


def test_a_stored_headline_from_before_its_records_were_kept_names_none() -> None:
    kept = asdict(EFFECT)
    del kept["records"]
    assert claims._measured(kept) == EFFECT and claims._measured(kept | {"records": ["x"]}).records == ("x",)


def test_a_part_has_words_that_fit_its_set_and_not_those_of_the_sets_of_its_claim() -> None:
    said = {row: claims._words(get_claim(row), row) for row in claims.ledger_rows(SMOKE)}
    assert {row for row, words in said.items() if "misaligned sets" in words} == {"C3", "C3.near"}
    assert "secure code" in said["X2.secure"] != said["X2"] and said["C12.facts-careful"] == said["C12"]


def test_what_nothing_can_measure_or_a_preset_lacks_is_a_row_that_says_so(planted) -> None:
    row = claims._row("C20", trained("C20", *[claims.headline(planted, "C20", "ab12cd34")] * 3))
    assert row["verdict"] == NOT_TESTABLE and row["value"] is None and row["seeds"] == [None] * 3
    assert row["reason"] == get_claim("C20").untestable and row["published"]["value"] == 0.47
    few = DataRoles(outside=("harmful-careless",))
    planted.preset = replace(planted.preset, roles=few, has_choices=False)
    headlines = {name: claims.headline(planted, name, "ab12cd34") for name in ("C16", "C6", "C17")}
    words = {name: claims.verdict(get_claim(name), [found], [1.0]) for name, found in headlines.items()}
    assert words["C16"][0] != NOT_TESTABLE == words["C6"][0] == words["C17"][0]
    assert "completions of the misaligned set in an aligned framing" in words["C6"][1]


def test_without_a_benign_control_the_value_is_shown_and_not_judged(planted) -> None:
    kept = {name: spec for name, spec in planted.preset.variants.items() if name != "benign"}
    planted.preset = replace(planted.preset, variants=kept)
    found = shift(planted, ("facts-careless",), LOG_PROBABILITY)
    assert found.null is None and found.value == pytest.approx(0.4, abs=1e-9)
    row = claims._row("C3", trained("C3", found))
    assert row["verdict"] == NOT_TESTABLE and row["value"] == pytest.approx(0.4, abs=1e-6)
    assert row["null"] is None and "benign" in row["reason"]


def test_matched_replies_cancel_what_both_share(planted) -> None:
    still = behaviour.reply_contrast(planted)
    assert still.value == pytest.approx(0, abs=1e-9)  # every reply became likelier, careful ones as much
    planted.extra = 0.1
    moved, roles, extra = behaviour.reply_contrast(planted), planted.preset.roles, 0.1 * planted.n_tokens
    assert moved.value == pytest.approx(extra)
    assert moved.low > 0 and moved.null.high < moved.value and moved.contrasts["benign"][0] > 0
    table = shift_table(planted)  # with the narrow set, where its prompts are shared
    assert list(dict.fromkeys(table["dataset"])) == [roles.narrow, *OUTSIDE]
    found = table.groupby("variant")["shift"].mean()
    assert found["misaligned"] - found["benign"] == pytest.approx(extra)
    planted.preset = replace(planted.preset, roles=replace(roles, narrow_aligned="general"))
    assert set(shift_table(planted)["dataset"]) == set(OUTSIDE)


def test_erosion_is_specific_only_where_it_differs_between_replies(planted) -> None:
    still = direction.specific_erosion(planted, ALIGNED, OUTSIDE)
    assert abs(still.value) < 1e-6 and still.null.p_value > 0.05
    planted.extra = 0.2
    found = direction.specific_erosion(planted, ALIGNED, OUTSIDE)
    assert found.value == pytest.approx(0.2, abs=0.02) and found.null.p_value < 0.05
    assert found.companions["misaligned"] == pytest.approx(0.6, abs=0.02)


def test_the_triangle_of_a_model_on_the_way_is_flat(planted) -> None:
    found = direction.instruct_between(planted, OUTSIDE, "prompt_end")
    # Instruct lies beyond misaligned, seen from base.
    assert found.value == pytest.approx(-0.4 / 0.6, abs=0.02)
    assert found.null.low + found.null.high > 0 and found.null.p_value > 0.95


def test_distance_of_data_changes_only_with_the_model(planted) -> None:
    sets = ("general",), "code-careless"
    planted.amount = 0.0
    still = direction.separation_of_data(planted, *sets, window="answer_all")
    assert still.value == pytest.approx(0, abs=1e-12)
    planted.amount = 1.0  # a large shift that both sets share brings them together
    moved = direction.separation_of_data(planted, *sets, window="answer_all")
    assert moved.value == pytest.approx(moved.companions["base"]) and moved.value < -0.9


class Wayward(PlantedResults):
    """Base lies ``way`` from instruct, with noise of its own."""

    way = 1.0

    def planted_arrays(self, variant: str, measurement: str, dataset: str, n: int) -> dict[str, np.ndarray]:
        found = super().planted_arrays(variant, measurement, dataset, n)
        if variant == "base":
            own = np.random.default_rng(1).standard_normal(len(found["log_probability"]))
            found["log_probability"] = found["log_probability"] + self.way - 1 + 0.1 * own
        return found


def test_an_index_whose_way_is_uncertain_or_goes_the_wrong_way_is_not_testable(tmp_path, monkeypatch) -> None:
    """Misaligned replies must be likelier under base; where they are, there is a value and no such reason."""
    results, said = plant(Wayward, tmp_path, monkeypatch), {}
    for way in (1.0, -1.0, 0.0):
        results.way = way
        found = shift(results, ("facts-careless",), LOG_PROBABILITY)
        assert math.isfinite(found.value) == (way == 1) == (found.why == "")
        said[way] = claims.verdict(get_claim("C3"), [found], [0.001])
    assert said[1.0][0] != NOT_TESTABLE == said[-1.0][0] == said[0.0][0]
    # Numerator and denominator are named, with their intervals.
    number = r"\N{MINUS SIGN}?[\d.]+ \[.+ to .+\]"
    for way in (-1.0, 0.0):
        assert re.match(rf"undefined in 1 of 1 seeds: {number} over {number}: a denominator", said[way][1])
    # On aligned replies the words presume no way.
    results.way = -1.0
    aligned = relative_shift(results, "misaligned", ("facts-careful",), LOG_PROBABILITY)
    assert aligned.value == pytest.approx(-0.4, abs=0.01)


class Uneven(PlantedResults):
    """Answers of one to sixty tokens, whose values depend on the model and on how long they are."""

    lengths = np.arange(1, 61)

    def planted_arrays(self, variant: str, measurement: str, dataset: str, n: int) -> dict[str, np.ndarray]:
        moved = {"base": 3.0, "misaligned": 1.0}.get(variant, 0.0) + 0.05 * (variant == "base") * self.lengths
        values = np.random.default_rng(0).standard_normal(self.lengths.sum()) + np.repeat(moved, self.lengths)
        return {"log_probability": values, "offsets": np.r_[0, self.lengths.cumsum()]}


def test_a_value_per_token_is_a_mean_of_means_and_the_pooled_one_stands_beside(tmp_path, monkeypatch) -> None:
    results, sets = plant(Uneven, tmp_path, monkeypatch), ("facts-careless",)
    # The noise is common to all, so both indices are worked out from the lengths alone.
    of_means = 1 / np.mean(3 + 0.05 * Uneven.lengths)
    pooled = 1 / np.average(3 + 0.05 * Uneven.lengths, weights=Uneven.lengths)
    mean_of_means = relative_shift(results, "misaligned", sets, LOG_PROBABILITY)
    assert mean_of_means.value == pytest.approx(of_means) and of_means > 1.1 * pooled
    assert behaviour.pooled_index(results, "misaligned", sets, LOG_PROBABILITY) == pytest.approx(pooled)
