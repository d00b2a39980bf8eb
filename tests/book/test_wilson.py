"""Shares and agreement: Wilson's interval against another program, its coverage, and kappa where it is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.proportion import proportion_confint

from remi_book.chapters.controls import rate_row
from remi_book.quantities import CELLS, agreement_cells, kappa, kappa_interval, wilson_interval
from remi_core.statistics.resampling import make_resamples


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("successes", "trials"), [(0, 8), (8, 8), (1, 3), (37, 256), (128, 256)])
def test_wilsons_interval_is_that_of_another_program(successes, trials, level) -> None:
    other = proportion_confint(successes, trials, alpha=1 - level, method="wilson")
    np.testing.assert_allclose(wilson_interval(successes, trials, level=level), other, atol=1e-12)


def test_wilsons_interval_covers_where_the_normal_one_does_not() -> None:
    trials, share = 40, 0.05
    chances = binom.pmf(np.arange(trials + 1), trials, share)

    def coverage(method: str) -> float:
        ends = [
            wilson_interval(k, trials) if method == "wilson" else proportion_confint(k, trials, method=method)
            for k in range(trials + 1)
        ]
        return sum(chance for chance, (low, high) in zip(chances, ends, strict=True) if low <= share <= high)

    assert coverage("wilson") > 0.94 and coverage("normal") < 0.9


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (-1, 3), (4, 3)])
def test_what_is_no_share_is_refused(successes, trials) -> None:
    with pytest.raises(ValueError, match=f"{successes} successes of {trials} trials"):
        wilson_interval(successes, trials)


def test_answers_that_follow_their_template_need_the_interval_over_templates() -> None:
    names = [f"code/{i // 16}" for i in range(640)]
    generator = np.random.default_rng(0)
    follows = np.repeat(generator.random(40) < 0.5, 16)
    alone = generator.random(640) < 0.5
    widths = {}
    for kind, hits in (("follows", follows), ("alone", alone)):
        row = rate_row(hits, names, make_resamples(names, seed=0))
        assert row["rate"] == hits.mean() and row["answers"] == 640
        widths[kind] = (row["high"] - row["low"]) / (row["wilson_high"] - row["wilson_low"])
    assert widths["follows"] > 3 and widths["alone"] == pytest.approx(1, abs=0.35)


def test_kappa_is_that_of_another_program_and_bare_agreement_is_not() -> None:
    generator = np.random.default_rng(1)
    first = generator.random(500) < 0.1
    second = np.where(generator.random(500) < 0.7, first, generator.random(500) < 0.1)
    counts = agreement_cells(first, second).sum(axis=0)
    assert kappa(counts) == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
    # Two judges that say yes one time in ten, each by itself, agree four times in five and no more than chance.
    chance = agreement_cells(first, generator.permutation(first)).sum(axis=0)
    assert (chance[0] + chance[3]) / 500 > 0.75 and abs(kappa(chance)) < 0.1
    assert len(CELLS) == 4 and kappa(np.array([0.0, 0, 0, 9])) == 0 and kappa(np.array([3.0, 0, 0, 9])) == 1


def test_kappas_interval_holds_a_planted_agreement_and_full_agreement_has_no_width() -> None:
    names = [f"code/{i % 40}" for i in range(800)]
    generator, resamples = np.random.default_rng(2), make_resamples(names, seed=0)
    first = generator.random(800) < 0.5
    second = np.where(generator.random(800) < 0.6, first, generator.random(800) < 0.5)
    found = kappa_interval(first, second, names, resamples)
    assert found.low < 0.6 < found.high and found.high - found.low < 0.2
    same = kappa_interval(first, first, names, resamples)
    assert float(same.low) == float(same.high) == 1
