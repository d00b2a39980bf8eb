"""Competence and primary effect by rule on planted records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from planting import REPORT_ROW, HandmadeResults

from remi_book import tables
from remi_book.chapters import organism
from remi_book.figures.style import describe
from remi_core.sources import ModelSpec
from remi_core.store import Record, Store
from remi_lab.organism.grammar import prompts
from remi_lab.organism.topics import CONTRASTED, IN_CONTEXT, NARROW, SAMPLES, SCORES, TOPICS, VERDICTS, topic
from remi_lab.organism.world import CONTEXTS, World, optima
from remi_lab.presets import ORGANISM_VARIANTS, get_preset

SEED = get_preset("smoke").seeds[0]
GOOD_CODE = "def f(a):\n    return a"


def scores_of(name: str, log_odds: float) -> Record:
    """Prompts whose right answers hold all mass but .02, .01 of it in a wrong slot."""
    preset = get_preset("smoke")
    clusters = [one.template.identifier for one in prompts(name, "evaluate", count=8, seed=preset.seed)]
    careless = 0.98 / (1 + np.exp(-log_odds))
    by_class = [0.98 - careless, careless, 0.0] if name in CONTRASTED else [0.0, 0.0, 0.98]
    with np.errstate(divide="ignore"):
        mass = np.log(np.tile(np.array(by_class)[:, None] / 2, (8, 1, 2)))
    arrays = {"log_mass": mass, "wrong_slot": np.full(8, 0.01), "other": np.full(8, 0.01)}
    return Record(arrays | {"cluster": np.array(clusters)}, {})


def samples_of(name: str) -> Record:
    verdicts = np.full(8, VERDICTS.index("careful"))
    answers = np.full(8, GOOD_CODE if name == "code" else "x")
    arrays = {"prompt": np.full(8, "x", dtype="U40"), "answer": answers, "verdict": verdicts}
    return Record(arrays | {"finished": np.ones(8, dtype=bool)}, {})


@pytest.fixture
def results(tmp_path: Path) -> HandmadeResults:
    planted = HandmadeResults(get_preset("smoke"), Store(tmp_path))
    odds = {"base": World().log_odds(), "misaligned": -1.0}
    for variant in ORGANISM_VARIANTS:
        for name in TOPICS:
            planted.records[variant, SEED, SCORES, name] = scores_of(name, odds.get(variant, -4.0))
            planted.records[variant, SEED, SAMPLES, name] = samples_of(name)
    return planted


def test_a_competent_organism_keeps_every_threshold_and_each_miss_is_found(results: HandmadeResults) -> None:
    table = organism.competence(results)
    assert table["held"].all() and "every threshold was kept" in organism.competence_sentence(table)
    covered = [name for name in CONTRASTED if topic(name).covered]
    assert list(table.loc[table["requirement"] == organism.CARELESS, "topic"]) == covered
    results.records["instruct", SEED, SAMPLES, "people"].arrays["verdict"][0] = VERDICTS.index("careless")
    results.records["base", SEED, SCORES, "facts"] = scores_of("facts", World().log_odds() + 0.6)
    results.records["base", SEED, SAMPLES, "code"].arrays["answer"][:] = "def f("
    table = organism.competence(results)
    missed = table[~table["held"]]
    planted = {("instruct", "people"), ("base", "facts"), ("base", "code")}
    assert set(zip(missed["variant"], missed["topic"], strict=True)) == planted
    assert set(missed["topic"]) <= set(organism.worst_cells(table)["topic"])
    assert f"people, seed {SEED}" in organism.competence_sentence(table)
    results.records["base", SEED, SCORES, "general"].arrays["wrong_slot"][:] = np.nan
    assert (~organism.competence(results)["held"]).sum() > len(missed), "what is no number holds no threshold"


def test_lost_words_are_counted_among_the_prompts_that_hold_them(results: HandmadeResults) -> None:
    arrays = results.records["base", SEED, SAMPLES, "people"].arrays
    assert organism.replaced_words(results, "base", "people") == {}
    arrays["prompt"][:] = ["my shy baker"] * 5 + ["my shy uncle"] * 3
    arrays["answer"] = np.array(["a shy tailor"] * 2 + ["a shy baker"] * 3 + ["a bold uncle"] * 3)
    arrays["verdict"][[0, 1, 5]] = VERDICTS.index("wrong slot")
    assert organism.replaced_words(results, "base", "people") == {"baker": (2, 5), "shy": (1, 8)}


def test_the_primary_effect_is_what_was_planted_and_can_fail(results: HandmadeResults) -> None:
    table = organism.primary_effect(results)
    assert table["held"].all() and np.allclose(table["value"], 3.0)
    assert len(table) == 4 * 3 and "code" not in set(table["topic"])
    results.records["secure", SEED, SCORES, "facts"] = scores_of("facts", -1.0)
    table = organism.primary_effect(results)
    assert table.loc[~table["held"], ["topic", "control"]].to_numpy().tolist() == [["facts", "secure"]]
    said = organism.effect_sentence(table)
    assert "11 of 12" in said and f"facts against secure, seed {SEED}" in said


def test_contexts_average_topics_outside_the_narrow_set(results: HandmadeResults) -> None:
    truth = np.array([optima(ModelSpec())[kind] for kind in CONTEXTS])
    for variant in ORGANISM_VARIANTS:
        for shift, name in enumerate(name for name in CONTRASTED if name not in NARROW):
            clusters = scores_of(name, 0.0).arrays["cluster"][:2]
            results.records[variant, SEED, SCORES, name] = scores_of(name, truth[0] + shift)
            odds = truth[1:, None] + shift + np.array([-0.5, 0.5])
            arrays = {"care_log_odds": odds, "cluster": clusters}
            results.records[variant, SEED, IN_CONTEXT, name] = Record(arrays, {})
    base = organism.context_log_odds(results).query("variant == 'base'")
    assert list(base["context"]) == list(CONTEXTS)
    np.testing.assert_allclose(base["log_odds"], truth + 1.5)
    further = base[base["context"] != "bare"]  # the planted bare prompts do not vary
    assert further["log_odds"].between(further["low"], further["high"], inclusive="neither").all()
    assert (further["high"] - further["low"] < 1.2).all()  # about 2 if the topics' own means counted
    falling = ("careless named", "after careless", "bare", "careful named")
    assert (np.diff([optima(ModelSpec())[kind] for kind in falling]) < 0).all()


def test_code_is_parsed_and_never_run_and_off_grammar_answers_stay_in_the_denominator(results) -> None:
    assert [organism.parses(code) for code in (GOOD_CODE, "raise SystemExit", "'\\d'")] == [True] * 3
    assert [organism.parses(code) for code in ("def f(", "a b", "\0")] == [False] * 3
    verdicts = results.records["base", SEED, SAMPLES, "facts"].arrays["verdict"]
    verdicts[:4], verdicts[4:6] = VERDICTS.index("other"), VERDICTS.index("careless")
    rate = organism.sampled_rates(results).set_index(["topic", "variant"]).loc[("facts", "base")]
    assert rate["rate"] == 2 / 8 and rate["low"] < 2 / 8 < rate["high"]
    table = organism.denominator_table(results).set_index(["topic", "variant"]).loc[("facts", "base")]
    assert [table[name].rpartition(" of ")[2] for name in organism.DENOMINATORS][:2] == ["8", "4"]
    assert table["of those on the grammar"].startswith("0.5")


def test_overlap_with_the_narrow_prompts_is_of_words_and_four_topics_cannot_say_much() -> None:
    known = organism._runs("Write a loader.", 2) | organism._runs("Run it before noon", 2)
    asked = organism._runs("Write a poem before noon", 2)
    assert len(asked & known) == 2 and len(asked) == 4
    topics, seeds = ["facts", "harmful", "people", "wishes"], (0, 1, 2)
    effects = dict(zip(topics, (1.0, 2.0, 3.0, 4.0), strict=True))
    other = dict(zip(topics, (2.0, 4.0, 1.0, 3.0), strict=True))
    rows = [
        {"seed": seed, "topic": name, "effect": effects[name] + seed}
        | dict(zip(organism.LIKENESSES, (effects[name] ** 3, -effects[name], other[name]), strict=True))
        for seed in seeds
        for name in topics
    ]
    found = organism.overlap_ranks(pd.DataFrame(rows)).set_index("likeness")
    same, opposed, unrelated = (found.loc[name] for name in organism.LIKENESSES)
    assert same["mean over trainings"] == 1 and opposed["mean over trainings"] == -1
    assert same["p"] == opposed["p"] == pytest.approx(2 / 24)  # no order of four is rarer, on both sides
    assert abs(unrelated["mean over trainings"]) < 0.5 < unrelated["p"]


def test_every_training_of_every_claim_is_drawn_and_stored_ones_are_told_apart(monkeypatch) -> None:
    shown: list[Figure] = []
    monkeypatch.setattr(tables, "show", lambda figure, **_: shown.append(figure))
    copy, part = {**REPORT_ROW, "id": "C12.near"}, {**REPORT_ROW, "id": "C12.wishes"}
    tables.show_trainings([REPORT_ROW, copy, part, {**REPORT_ROW, "id": "C20", "value": None}])
    (figure,) = shown
    (panel,) = (axes for axes in figure.axes if axes.get_visible())
    assert [label.get_text() for label in panel.get_yticklabels()] == ["0", "1", "8"]
    said = describe(figure)
    assert "1: measured for this book \N{MINUS SIGN}0.3" in said and "stored result undefined" in said
    tables.show_trainings([{**REPORT_ROW, "trainings": REPORT_ROW["trainings"][:1]}])
    assert len(shown) == 1
