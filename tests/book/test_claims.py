"""The rule engine on planted values, the ledger's declarations, and the headline estimates on planted records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planting import PlantedResults, plant

from remi_book import cards
from remi_book import claims as claims_module
from remi_book.chapters import behaviour, triangle
from remi_book.chapters.behaviour import LOG_PROBABILITY, relative_shift, shift, shift_table
from remi_book.chapters.direction import mean_erosion
from remi_book.chapters.losses import data_share, loss_cosine
from remi_book.chapters.subspace import shared_subspace
from remi_book.claims import (
    CLAIMS,
    CONFOUNDED,
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_TESTABLE,
    REPRODUCED,
    SHOWN,
    adjusted_p_values,
    get_claim,
    headline,
    headlines,
    ledger_rows,
    report_rows,
    rule_text,
    verdict,
)
from remi_book.quantities import Measured
from remi_core.errors import UsageError
from remi_core.statistics.nulls import NullResult
from remi_lab.presets import DataRoles, get_preset

CLAIM = get_claim("C12")


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
        ([NO_EFFECT] * 3, [0.9] * 3, INCONCLUSIVE),
        ([EFFECT, None, EFFECT], [0.01] * 3, NOT_TESTABLE),
        ([replace(EFFECT, contrasts={})] * 3, [0.01] * 3, NOT_TESTABLE),
    ],
)
def test_verdicts_on_planted_values(seeds, p_values, expected) -> None:
    assert verdict(CLAIM, seeds, p_values)[0] == expected


def test_a_claim_below_its_boundary_is_the_mirror_image_and_ours_are_supported() -> None:
    mirrored = [measured(-0.5, gaps=(-0.3, -0.3, -0.3))] * 3
    assert verdict(replace(CLAIM, side=-1), mirrored, [0.01] * 3)[0] == REPRODUCED
    assert verdict(CLAIM, mirrored, [0.01] * 3)[0] == CONTRADICTED
    own = replace(CLAIM, id="X1")
    assert verdict(own, [EFFECT] * 3, [0.01] * 3)[0] == "supported"
    assert verdict(own, [SMALL_GAP] * 3, [0.01] * 3)[0] == "supported with a confound"
    assert verdict(get_claim("C5"), [EFFECT], [0.01])[0] == SHOWN
    with pytest.raises(UsageError, match="C12"):
        get_claim("C112")


def test_every_row_is_declared_whole_and_measured_or_says_why_not() -> None:
    notebooks = {path.stem for path in (Path(__file__).parents[2] / "notebooks").glob("*.ipynb")}
    measured = {get_claim(row).id for row in headlines(get_preset("smoke"))}
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        texts = (claim.claim, claim.estimand, claim.null, claim.wording, claim.unit)
        assert all(texts) and claim.published.source and claim.published.text, claim.id
        assert claim.side in (1, -1) and claim.smallest_effect > 0, claim.id
        assert claim.notebook in notebooks or (claim.untestable and not claim.notebook), claim.id
        assert bool(claim.untestable) != (claim.id in measured), claim.id
        assert bool(claim.cap) == bool(claim.cap_reason), claim.id
        assert claim.cap in ("", INCONCLUSIVE, CONFOUNDED), claim.id
    assert measured <= {claim.id for claim in CLAIMS}


def test_the_ledger_holds_the_papers_rows_in_order_with_parts_after_their_claim() -> None:
    rows = ledger_rows(get_preset("smoke"))
    claims = [row for row in rows if "." not in row]
    assert claims == [claim.id for claim in CLAIMS if "." not in claim.id]
    assert rows.count("H1.words") == 1 and rows.index("H1.words") == rows.index("H1") + 1
    assert [claim for claim in claims if claim[0] == "H"] == ["H1", "H2", "H3"]
    assert [claim[0] for claim in claims] == sorted(claim[0] for claim in claims)
    assert {f"C{number}" for number in range(1, 27)} <= set(claims)
    assert rows[rows.index("C3") + 1].startswith("C3.") and len(rows) == len(set(rows))


@pytest.mark.parametrize("value", [0.5, -0.5, 0.0])
def test_a_capped_verdict_never_says_more_and_tells_what_is_missing(value) -> None:
    open_rule = replace(CLAIM, cap=INCONCLUSIVE, cap_reason="half of the rule is not measured")
    plain = verdict(CLAIM, [measured(value, half=0.05)] * 3, [0.01] * 3)
    word, reason = verdict(open_rule, [measured(value, half=0.05)] * 3, [0.01] * 3)
    assert word == INCONCLUSIVE and "half of the rule" in reason and plain[0] in reason
    confounded = replace(CLAIM, cap=CONFOUNDED, cap_reason="a model for each set")
    word, _ = verdict(confounded, [measured(value, half=0.05)] * 3, [0.01] * 3)
    assert word == (CONFOUNDED if plain[0] == REPRODUCED else plain[0])
    assert verdict(open_rule, [None] * 3, [1.0] * 3)[0] == NOT_TESTABLE


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (("holds",) * 3, REPRODUCED),
        (("fails",) * 3, CONTRADICTED),
        (("holds", "holds", "fails"), INCONCLUSIVE),
        (("open",) * 3, INCONCLUSIVE),
    ],
)
def test_a_claim_with_a_whole_rule_is_judged_by_its_outcome_in_every_seed(outcomes, expected) -> None:
    claim = replace(CLAIM, by_outcome=True, full_rule="both parts")
    # The value alone says the opposite: it must not matter.
    seeds = [replace(measured(-0.5), outcome=one, why=f"part one {one}") for one in outcomes]
    word, reason = verdict(claim, seeds, [1.0] * 3)
    assert word == expected and f"part one {outcomes[0]}" in reason
    assert "both parts" in rule_text(claim)


def test_a_row_that_nothing_can_measure_says_so_in_every_seed(planted) -> None:
    found = headline(planted, "C20", "ab12cd34")
    row = claims_module._row("C20", [found] * 3, [1.0] * 3)
    assert row["verdict"] == NOT_TESTABLE and row["value"] is None and row["seeds"] == [None] * 3
    assert row["reason"] == get_claim("C20").untestable and row["published"]["value"] == 0.47


def test_holm_families_are_the_claims_of_a_notebook_and_the_parts_of_a_claim() -> None:
    high = replace(EFFECT, null=NullResult(kind="x", low=0.0, high=1.0, p_value=0.03))
    adjusted = adjusted_p_values({"C1": EFFECT, "C3": high, "C6": high, "C3.general": high, "C5": EFFECT})
    assert adjusted["C1"] == pytest.approx(0.002)  # two claims of one notebook
    assert adjusted["C6"] == adjusted["C3.general"] == pytest.approx(0.03)  # alone in their families
    assert "C5" not in adjusted


@pytest.fixture
def planted(tmp_path, monkeypatch) -> PlantedResults:
    return plant(PlantedResults, tmp_path, monkeypatch)


def test_relative_shift_recovers_what_wasmeasured(planted) -> None:
    found = relative_shift(planted, "misaligned", ("harmful-careless", "facts-careless"), LOG_PROBABILITY)
    assert found.value == pytest.approx(0.4, abs=1e-9)
    headline = shift(planted, ("facts-careless",), LOG_PROBABILITY)
    assert headline.contrasts["benign"][0] > 0 > headline.low - 0.5
    planted.amount = -0.2
    assert relative_shift(planted, "misaligned", ("facts-careless",), LOG_PROBABILITY).value < 0


def test_erosion_recovers_what_wasmeasured(planted) -> None:
    found = mean_erosion(planted, ("harmful-careless", "facts-careless"), "prompt_end")
    assert found.value == pytest.approx(0.4, abs=0.02)
    assert found.companions["c"] > 0.99 and found.companions["r"] < 0.1
    assert found.null.high < 0.4 and found.null.p_value < 0.05
    planted.amount = 0.0
    still = mean_erosion(planted, ("harmful-careless", "facts-careless"), "prompt_end")
    assert abs(still.value) < 0.02


def test_loss_cosine_and_data_share_see_only_real_differences(planted) -> None:
    same = loss_cosine(planted, "educational", "code-careless")
    assert same.null.low <= same.value <= same.null.high or same.null.p_value > 0.01
    share = data_share(planted, "code-careful", "code-careless")
    assert share.companions["model"] > 0.9 > share.value


def test_shared_subspace_of_planted_noise_stays_at_the_floor(planted) -> None:
    found = shared_subspace(
        planted, ("code-careless", "people-careless"), ("general", "facts-careful"), window="answer_all"
    )
    assert 0 <= found.value <= 1
    assert found.companions["floor"] < found.companions["ceiling"] + 1e-9


def test_headlines_are_computed_once_and_rows_are_the_same_bytes(planted, monkeypatch) -> None:
    monkeypatch.setattr(PlantedResults, "variant", lambda self, variant: type("S", (), {"weights": "w"}))
    kept = {row: headlines(planted.preset)[row] for row in ("C3", "C12")}
    calls = []
    counted = {row: lambda results, f=f: calls.append(1) or f(results) for row, f in kept.items()}
    monkeypatch.setattr(claims_module, "headlines", lambda preset: counted)
    monkeypatch.setattr(claims_module, "ledger_rows", lambda preset: list(counted))
    first, second = (report_rows(planted) for _ in range(2))
    assert json.dumps(first) == json.dumps(second)
    assert len(calls) == 2
    keys = "id section claim published value unit ci_low ci_high null n seeds rule verdict reason notebook"
    assert list(first[0]) == keys.split()
    assert first[0]["seeds"] == [first[0]["value"]]


def test_what_a_preset_lacks_is_a_row_that_says_so(planted) -> None:
    planted.preset = replace(
        planted.preset, roles=DataRoles(outside=("harmful-careless",)), has_choices=False
    )
    word = {}
    for row in ("C3", "C6", "C17"):
        word[row] = verdict(get_claim(row), [headline(planted, row, "ab12cd34")], [1.0])
    assert word["C3"][0] != NOT_TESTABLE == word["C6"][0] == word["C17"][0]
    assert "completions of the misaligned set in an aligned framing" in word["C6"][1]


def test_without_a_benign_control_the_value_is_shown_and_not_judged(planted) -> None:
    kept = {name: spec for name, spec in planted.preset.variants.items() if name != "benign"}
    planted.preset = replace(planted.preset, variants=kept)
    found = shift(planted, ("facts-careless",), LOG_PROBABILITY)
    assert found.null is None and found.value == pytest.approx(0.4, abs=1e-9)
    row = claims_module._row("C3", [found], [1.0])
    assert row["verdict"] == NOT_TESTABLE and row["value"] == pytest.approx(0.4, abs=1e-6)
    assert row["null"] is None and "benign" in row["reason"]


OUTSIDE = get_preset("smoke").roles.outside
ALIGNED = get_preset("smoke").roles.outside_aligned


class CarelessResults(PlantedResults):
    """Planted records in which misaligned moves further where the reply is careless."""

    extra = 0.0

    def planted_arrays(self, variant: str, measurement: str, dataset: str, n: int) -> dict[str, np.ndarray]:
        before = self.amount
        self.amount = before + self.extra * dataset.endswith("-careless")
        arrays = super().planted_arrays(variant, measurement, dataset, n)
        self.amount = before
        return arrays


@pytest.fixture
def careless(tmp_path, monkeypatch) -> CarelessResults:
    return plant(CarelessResults, tmp_path, monkeypatch)


def test_matched_replies_cancel_what_both_share(careless) -> None:
    still = behaviour.reply_contrast(careless)
    assert still.value == pytest.approx(0, abs=1e-9)  # every reply became likelier, careful ones as much
    careless.extra = 0.1
    moved = behaviour.reply_contrast(careless)
    assert moved.value == pytest.approx(0.1 * careless.n_tokens)
    assert moved.low > 0 and moved.null.high < moved.value and moved.contrasts["benign"][0] > 0


def test_the_table_of_matched_replies_takes_the_narrow_set_where_its_prompts_are_shared(careless) -> None:
    careless.extra = 0.1
    table = shift_table(careless)
    assert list(dict.fromkeys(table["dataset"])) == [careless.preset.roles.narrow, *OUTSIDE]
    found = table.groupby("variant")["shift"].mean()
    assert found["misaligned"] - found["benign"] == pytest.approx(0.1 * careless.n_tokens)
    careless.preset = replace(careless.preset, roles=replace(careless.preset.roles, narrow_aligned="general"))
    assert set(shift_table(careless)["dataset"]) == set(OUTSIDE)


def test_erosion_is_specific_only_where_it_differs_between_replies(careless) -> None:
    still = triangle.specific_erosion(careless, ALIGNED, OUTSIDE)
    assert abs(still.value) < 1e-6 and still.null.p_value > 0.05
    careless.extra = 0.2
    found = triangle.specific_erosion(careless, ALIGNED, OUTSIDE)
    assert found.value == pytest.approx(0.2, abs=0.02) and found.null.p_value < 0.05
    assert found.companions["misaligned"] == pytest.approx(0.6, abs=0.02)


def test_the_triangle_of_a_model_on_the_way_is_flat(careless) -> None:
    found = triangle.instruct_between(careless, OUTSIDE, "prompt_end")
    assert found.value == pytest.approx(
        -0.4 / 0.6, abs=0.02
    )  # instruct lies beyond misaligned, seen from base
    assert found.null.low + found.null.high > 0 and found.null.p_value > 0.95


def test_distance_of_data_changes_only_with_the_model(careless) -> None:
    pair = ("general", "code-careless")
    careless.amount = 0.0
    still = triangle.separation_of_data(careless, pair[:1], pair[1], window="answer_all")
    assert still.value == pytest.approx(0, abs=1e-12)
    careless.amount = 1.0  # a large shift that both sets share brings them together
    moved = triangle.separation_of_data(careless, pair[:1], pair[1], window="answer_all")
    assert moved.value == pytest.approx(moved.companions["base"]) and moved.value < -0.9


def test_replies_of_one_length_differ_by_nothing(careless) -> None:
    found = cards.length_difference(careless)
    assert found.value == 0 and found.null.low == found.null.high == 0
