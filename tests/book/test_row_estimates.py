"""Headlines of the further rows on planted records: what was planted comes back, and nothing where nothing was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planting import PlantedResults, plant

from remi_book import cards
from remi_book.chapters import behaviour, triangle
from remi_book.chapters.behaviour import shift_table
from remi_lab.presets import get_preset

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
def planted(tmp_path, monkeypatch) -> CarelessResults:
    return plant(CarelessResults, tmp_path, monkeypatch)


def test_matched_replies_cancel_what_both_share(planted) -> None:
    still = behaviour.reply_contrast(planted)
    assert still.value == pytest.approx(0, abs=1e-9)  # every reply became likelier, careful ones as much
    planted.extra = 0.1
    moved = behaviour.reply_contrast(planted)
    assert moved.value == pytest.approx(0.1 * planted.n_tokens)
    assert moved.low > 0 and moved.null.high < moved.value and moved.contrasts["benign"][0] > 0


def test_the_table_of_matched_replies_takes_the_narrow_set_where_its_prompts_are_shared(planted) -> None:
    planted.extra = 0.1
    table = shift_table(planted)
    assert list(dict.fromkeys(table["dataset"])) == [planted.preset.roles.narrow, *OUTSIDE]
    found = table.groupby("variant")["shift"].mean()
    assert found["misaligned"] - found["benign"] == pytest.approx(0.1 * planted.n_tokens)
    planted.preset = replace(planted.preset, roles=replace(planted.preset.roles, narrow_aligned="general"))
    assert set(shift_table(planted)["dataset"]) == set(OUTSIDE)


def test_erosion_is_specific_only_where_it_differs_between_replies(planted) -> None:
    still = triangle.specific_erosion(planted, (ALIGNED, OUTSIDE))
    assert abs(still.value) < 1e-6 and still.null.p_value > 0.05
    planted.extra = 0.2
    found = triangle.specific_erosion(planted, (ALIGNED, OUTSIDE))
    assert found.value == pytest.approx(0.2, abs=0.02) and found.null.p_value < 0.05
    assert found.companions["misaligned"] == pytest.approx(0.6, abs=0.02)


def test_the_triangle_of_a_model_on_the_way_is_flat(planted) -> None:
    found = triangle.instruct_between(planted, OUTSIDE, "prompt_end")
    assert found.value == pytest.approx(
        -0.4 / 0.6, abs=0.02
    )  # instruct lies beyond misaligned, seen from base
    assert found.null.low + found.null.high > 0 and found.null.p_value > 0.95


def test_distance_of_data_changes_only_with_the_model(planted) -> None:
    pair = ("general", "code-careless")
    planted.amount = 0.0
    still = triangle.separation_of_data(planted, pair, "answer_all")
    assert still.value == pytest.approx(0, abs=1e-12)
    planted.amount = 1.0  # a large shift that both sets share brings them together
    moved = triangle.separation_of_data(planted, pair, "answer_all")
    assert moved.value == pytest.approx(moved.companions["base"]) and moved.value < -0.9


def test_replies_of_one_length_differ_by_nothing(planted) -> None:
    found = cards.length_difference(planted)
    assert found.value == 0 and found.null.low == found.null.high == 0
