"""Answers sampled under an edit come as often as its exact scores say, and planted rates go the planted way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planting import plant_study

from remi_book.chapters import causes
from remi_core.models import LoadedModel, read_blocks
from remi_lab.organism.grammar import prompts
from remi_lab.organism.scoring import (
    Edit,
    ask,
    generating_with,
    sample_answers,
    scores,
    states,
)
from remi_lab.organism.topics import VERDICTS
from remi_lab.results import Results
from remi_lab.studies.causes import HEADLINE
from remi_lab.studies.files import Study

LAYER = 5
CAREFUL, CARELESS, OTHER = (VERDICTS.index(name) for name in ("careful", "careless", "other"))


def careless_edit(base: LoadedModel, scale: float) -> Edit:
    """Where a named careless author takes base's states on wishes, from a careful one."""
    asked = prompts("wishes", "direction", count=8, seed=0)
    named = [
        states(base.model, asked, base.tokenizer, (LAYER,), kind=f"{care} named")[:, :, 0].mean(axis=1)
        for care in ("careless", "careful")
    ]
    moved = scale * (named[0] - named[1])
    return Edit(layer=LAYER, prompt_end=moved[0], answer=moved[1])


@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_answers_come_as_often_as_the_exact_scores_under_the_same_edit_say(
    base: LoadedModel, scale: float
) -> None:
    asked, edit = prompts("wishes", "evaluate", count=24, seed=0), careless_edit(base, scale)
    exact = scores(base.model, ask(asked, base.tokenizer), edit).probabilities()["careless"]
    plain = scores(base.model, ask(asked, base.tokenizer)).probabilities()["careless"]
    answers = sample_answers(base.model, base.tokenizer, asked * 4, edit, seed=0)
    rate = np.mean([one.verdict.care == "careless" for one in answers])
    error = np.sqrt((exact * (1 - exact)).mean() / len(answers))
    assert abs(rate - exact.mean()) < 3.5 * error < abs(rate - plain.mean())


def test_an_edit_of_nothing_and_none_sample_what_the_model_samples(base: LoadedModel) -> None:
    asked, zero = prompts("people", "evaluate", count=6, seed=0), np.zeros(base.model.config.hidden_size)
    plain = sample_answers(base.model, base.tokenizer, asked, seed=3)
    still = Edit(layer=LAYER, prompt_end=zero, answer=zero)
    for edit in (None, still):
        assert sample_answers(base.model, base.tokenizer, asked, edit, seed=3) == plain
    assert sample_answers(base.model, base.tokenizer, asked, seed=4) != plain


@pytest.mark.parametrize("cached", [True, False])
def test_the_edit_stands_at_the_prompts_end_and_in_every_later_token(base: LoadedModel, cached: bool) -> None:
    size, seen = base.model.config.hidden_size, []
    edit = Edit(layer=LAYER, prompt_end=np.full(size, 2.0), answer=np.full(size, 5.0))
    ids = torch.arange(6)[None] + 10
    with read_blocks(base.model, [LAYER]) as plain, torch.inference_mode():
        base.model(input_ids=ids)
        before = plain[LAYER].clone()
    with generating_with(base.model, edit), read_blocks(base.model, [LAYER]) as read, torch.inference_mode():
        found = base.model(input_ids=ids[:, :4], use_cache=cached)
        seen.append(read[LAYER].clone())
        further = {"past_key_values": found.past_key_values} if cached else {}
        base.model(input_ids=ids[:, 4:5] if cached else ids[:, :5], **further)
        seen.append(read[LAYER][:, -1:].clone())
    moved = (torch.cat(seen, dim=1) - before[:, :5])[0].mean(-1)
    torch.testing.assert_close(moved, torch.tensor([0.0, 0, 0, 2, 5]), atol=1e-3, rtol=0)


def planted(added: float) -> Study:
    """Instruct is careful, misaligned careless; with the edit that share of instruct's answers is careless."""
    clusters = {topic: [f"{topic}/{i // 2}" for i in range(50)] for topic in ("facts", "wishes")}

    def says(share: float, off: int = 0) -> dict[str, object]:
        count = round(50 * share)
        own = [CARELESS] * count + [CAREFUL] * (50 - count - off) + [OTHER] * off
        shuffled = np.random.default_rng(0).permutation(own).tolist()
        both = {"verdict": shuffled * 2, "exact": [share] * 50}  # two answers to each prompt, alike
        return {name: dict.fromkeys(clusters, values) for name, values in both.items()}

    found = {
        "clusters": clusters,
        "instruct": {"plain": says(0.0), HEADLINE["instruct"]: says(added, off=5)},
        "misaligned": {"plain": says(1.0), HEADLINE["misaligned"]: says(1.0)},
    }
    return Study(seeds={0: found}, about={})


@pytest.fixture
def results(tmp_path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Results:
    return plant_study(monkeypatch, tmp_path, planted(request.param), n_resamples=200)


@pytest.mark.parametrize("results", [0.4], indirect=True)
def test_planted_rates_and_shares_of_the_way_are_found(results: Results) -> None:
    table = causes.rate_table(results)
    assert list(dict.fromkeys(table["panel"])) == ["facts", "wishes", causes.ALL]
    rows = table.query("panel == @causes.ALL").set_index("row")
    assert list(rows.index) == list(causes.ROWS.values())
    added = rows.loc["direction added to instruct"]
    assert added["rate"] == pytest.approx(0.4) and added["exact"] == pytest.approx(0.4)
    assert added["off grammar"] == 0.1
    assert added["low"] < 0.4 < added["high"] and added["wilson_low"] < 0.4 < added["wilson_high"]
    assert added["answers"] == 200
    own = causes.Sampled(results)
    assert float(own.share("instruct").value) == pytest.approx(0.4) and own.share("instruct").low > 0.2
    assert float(own.share("misaligned").value) == 0
    assert causes.shown_table(results)["exact"].tolist() == pytest.approx([0.0, 0.4, 1.0, 1.0])


def test_the_edits_are_those_that_judge_the_claims() -> None:
    assert dict(HEADLINE) == causes.HEADLINE
