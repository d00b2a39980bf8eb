"""Six points by hand: plain arithmetic equals the package's functions, and the page names no other number."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from remi_book.chapters import by_hand, six_points
from remi_core.statistics.nulls import permuted_labels
from remi_core.statistics.resampling import make_resamples

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "19_six_points.ipynb"
PRIMERS = [ROOT / "book" / f"{name}.md" for name in ("linear_representations", "gradient_geometry")]


@pytest.mark.parametrize("name", six_points.compared())
def test_by_hand_is_what_the_package_returns(name) -> None:
    _, hand, package = six_points.compared()[name]
    assert np.allclose(hand, package, rtol=0, atol=six_points.CLOSE)
    assert six_points.comparison_table().set_index("estimator").loc[name, "agree"]


@pytest.mark.parametrize("place", range(3))
def test_the_comparison_sees_a_point_that_is_moved(place, monkeypatch) -> None:
    moved = six_points.SIX.copy()
    moved[3 + place] += (0.01, 0.02)
    monkeypatch.setattr(six_points, "MISALIGNED", moved[3:])
    monkeypatch.setattr(six_points, "SIX", moved)
    table = six_points.comparison_table().set_index("estimator")
    assert not table["agree"].drop("p of 20 shuffles and of 8 exchanges").any()


@pytest.mark.parametrize(
    ("drawn", "scheme", "count"), [(by_hand.shuffles(), "free", 20), (by_hand.exchanges(), "within", 8)]
)
def test_shuffles_and_exchanges_are_all_that_the_package_can_draw(drawn, scheme, count) -> None:
    labels, values = six_points.LABELS, six_points.SIX[:, 0]
    rows = permuted_labels(labels, six_points.PAIRS * 2, scheme=scheme, n_permutations=1000)
    assert len({tuple(one) for one in rows}) == count == len(drawn)
    differences = {round(float(values[one == 1].mean() - values[one == 0].mean()), 9) for one in rows}
    assert sorted(differences) == list(by_hand.tally(drawn))


def test_the_27_resamples_are_all_that_the_bootstrap_can_draw_in_their_shares() -> None:
    every = six_points.every_resample().weights
    drawn = make_resamples(six_points.PAIRS, seed=0, n_resamples=5000).weights
    assert len(every) == 27
    for kind in np.unique(every, axis=0):
        expected, found = ((rows == kind).all(axis=1).mean() for rows in (every, drawn))
        assert abs(expected - found) < 4 * np.sqrt(expected / 5000)
    assert np.allclose(np.sort(six_points.mean_first_step().samples), by_hand.resampled())


def test_three_pairs_leave_erosion_undefined_by_rule_though_the_arithmetic_gives_a_value() -> None:
    ruled = six_points.erosion_as_ruled()
    assert np.isnan(ruled.erosion.value).all() and not ruled.defined.any()
    assert ruled.denominator.low[0] <= 0 < ruled.denominator.value[0]
    assert np.isfinite(six_points.erosion_without_interval().erosion.value).all()


def test_the_page_teaches_what_it_says() -> None:
    raw, centred = (by_hand.within_and_between(centred=one, cosine=True) for one in (False, True))
    low, high = by_hand.influence()
    gram = six_points.SIX @ six_points.SIX.T
    assert gram.min() > 0 and min(raw) > 0 > centred[2]
    assert by_hand.average(low) < 0 < by_hand.average(high)
    assert by_hand.shuffles().count(max(by_hand.shuffles())) == 1
    d = by_hand.difference()
    assert by_hand.average(high) - by_hand.average(low) == -by_hand.dot(d, by_hand.mean(by_hand.WANTED))
    first, last = by_hand.percentiles()
    lower, upper, _ = by_hand.student()
    assert lower < first and last < upper


def test_every_number_of_the_prose_is_glued_from_the_arithmetic() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    primers = "".join(page.read_text(encoding="utf-8") for page in PRIMERS)
    elsewhere, texts = set(re.findall(r"19_six_points\.ipynb::(\w+):s`", primers)), set(six_points.texts())
    assert elsewhere and elsewhere <= texts == set(re.findall(r"\{glue:text\}`(\w+)`", prose))
    # Outside formulas and labels no digit is typed but the percentage of an interval.
    formulas = r"\$\$.*?\$\$|\$[^$]*\$|\{[\w:]+\}`[^`]*`|\]\([^)]*\)|^\(.*\)=$"
    plain = re.sub(formulas, "", prose, flags=re.DOTALL | re.M)
    assert set(re.findall(r"\d+", plain)) <= {"95"}
