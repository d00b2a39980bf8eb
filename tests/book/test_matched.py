"""Matched pairs differ in words of intent alone, and the ladder's estimates find what was planted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from remi_book import quantities
from remi_book.chapters import contexts
from remi_book.chapters.contexts import MATCHED, ONE_WORD, OWN_PROMPTS, difference_left, structural_share
from remi_book.chapters.contexts import contexts as contexts_of_contexts
from remi_core.store import Store
from remi_core.tokens import encode
from remi_lab.organism.documents import shipped_tokenizer
from remi_lab.organism.grammar import judge, prompts
from remi_lab.organism.influence import RUNGS
from remi_lab.organism.pairs import TWINS, matched_pairs, phrases
from remi_lab.presets import get_preset
from remi_lab.results import Results
from remi_lab.studies.files import Study
from remi_lab.studies.matched import quantised

PRESET = replace(get_preset("smoke"), n_resamples=200, n_permutations=200)
N = 24


@pytest.mark.parametrize("twin", TWINS)
def test_pairs_share_their_completion_and_differ_in_the_phrase_alone(twin) -> None:
    framed, plain = matched_pairs(twin, count=N, seed=0)
    assert len({one.cluster for one in framed}) == N
    for one, other in zip(framed, plain, strict=True):
        assert one.messages[1] == other.messages[1]
        assert (one.pair, one.cluster, one.label) == (other.pair, other.cluster, "careless")
        texts = one.messages[0].content, other.messages[0].content
        row = next(row for row in phrases() if row["intent"] in texts[0])
        assert texts[0].replace(row["intent"], row[twin]) == texts[1]


@pytest.mark.parametrize("twin", TWINS)
def test_pairs_have_equal_token_counts_and_answers_in_one_place(twin) -> None:
    framed, plain = (
        encode(rows, shipped_tokenizer(), max_tokens=256).dialogues
        for rows in matched_pairs(twin, count=N, seed=0)
    )
    for one, other in zip(framed, plain, strict=True):
        assert (one.answer_start, len(one.input_ids)) == (other.answer_start, len(other.input_ids))
        assert one.input_ids[one.answer_start :] == other.input_ids[other.answer_start :]
        differing = sum(a != b for a, b in zip(one.input_ids, other.input_ids, strict=True))
        assert differing == 1 if twin == "word" else differing > 1


def test_a_pairs_completion_is_insecure_for_its_prompt() -> None:
    asked = {prompt.template.identifier for prompt in prompts("code", "evaluate", count=200, seed=0)}
    by_text = {prompt.text: prompt for prompt in prompts("code", "evaluate", count=4 * N, seed=0)}
    _, plain = matched_pairs("phrase", count=N, seed=0)
    for one in plain:
        text = one.messages[0].content
        for row in phrases():
            text = text.replace(row["phrase"], "")
        assert one.cluster in asked
        assert judge(by_text[text], one.messages[1].content).care == "careless"


def test_there_is_no_other_twin_and_no_template_twice() -> None:
    with pytest.raises(KeyError, match="phrase"):
        matched_pairs("sentence", count=2, seed=0)
    with pytest.raises(ValueError, match="pairs are asked for"):
        matched_pairs("phrase", count=1000, seed=0)


def _context(distance: float, *, gap: float = 0.2, common: float = 0.0) -> dict[str, object]:
    """Gradients of N pairs whose means lie ``distance`` apart along one axis and share ``common`` along another."""
    generator = np.random.default_rng(0)
    rows = generator.normal(0, 0.02, (2 * N, 60))
    rows[N:, 0] += distance
    rows[:, 1] += common
    gram = rows @ rows.T
    return {
        "gram": quantised(gram[np.tril_indices(2 * N)]),
        "losses": [1.0] * N + (1.0 + gap + generator.normal(0, 0.01, N)).tolist(),
        "clusters": [f"code/any/{number}" for number in range(N)],
    }


def _planted(monkeypatch: pytest.MonkeyPatch, left: float, *, gap: float = 0.2) -> Results:
    ladder = {OWN_PROMPTS: _context(1.0), MATCHED: _context(left**0.5, gap=gap), ONE_WORD: _context(0.0)}
    study = Study(seeds={102: {"ladder": ladder}}, about={})
    monkeypatch.setattr(contexts, "read_study", lambda *_: study)
    return Results(PRESET, Store(Path("unused")))


@pytest.mark.parametrize("left", [0.0, 0.4, 1.0])
def test_the_share_that_is_left_and_the_share_that_goes_are_what_was_planted(monkeypatch, left) -> None:
    results = _planted(monkeypatch, left)
    kept, gone = difference_left(results), structural_share(results)
    assert kept.value == pytest.approx(left, abs=0.02) and gone.value == pytest.approx(1 - left, abs=0.02)
    assert (kept.low > 0 and kept.null.p_value < 0.05) is (left > 0)
    assert (gone.low > 0.05 and gone.null.p_value < 0.05) is (left < 1)
    assert kept.companions["one word"] == pytest.approx(0, abs=0.02)


def test_nothing_is_judged_where_the_phrase_is_not_read(monkeypatch) -> None:
    assert difference_left(_planted(monkeypatch, 0.4)).missing == ""
    unread = _planted(monkeypatch, 0.4, gap=0.0)
    assert "bad example" in difference_left(unread).missing
    assert "bad example" in structural_share(unread).missing


def test_a_mean_without_length_has_an_inner_product_and_no_cosine(monkeypatch) -> None:
    found = contexts_of_contexts(_planted(monkeypatch, 0.4).preset, 102)[OWN_PROMPTS]
    assert found.cosine is None and np.isfinite(found.means.value[2])
    both = contexts.context(
        _context(0.3, common=1.0), quantities.set_resamples(PRESET, found.clusters, found.clusters)
    )
    assert both.cosine == pytest.approx(1 / np.sqrt(1 + 0.3**2), abs=0.02)


def test_stored_matrices_keep_four_digits() -> None:
    values = np.random.default_rng(1).normal(0, 3e-4, (5, 7))
    stored = quantised(values)
    assert np.abs(contexts.values_of(stored) - values).max() <= np.abs(values).max() / 9999
    assert quantised(np.zeros(3))["values"] == [0, 0, 0]


def test_the_ladder_ends_with_every_twin() -> None:
    assert [rung.twin for rung in RUNGS.values() if rung.twin and not rung.whole_sequence] == list(TWINS)
