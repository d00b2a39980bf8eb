"""Answers sampled under an edit come as often as its exact scores say, and planted rates go the planted way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planting import plant_study

from remi_book.chapters import causes
from remi_core.models import read_blocks
from remi_lab.organism.grammar import prompts
from remi_lab.organism.scoring import Edit, ask, generating_with, sample_answers, scores, states
from remi_lab.organism.topics import VERDICTS
from remi_lab.studies.causes import HEADLINE
from remi_lab.studies.files import Study

LAYER = 5
CAREFUL, CARELESS, OTHER = (VERDICTS.index(name) for name in ("careful", "careless", "other"))


@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_answers_come_as_often_as_the_exact_scores_under_the_same_edit_say(base, scale) -> None:
    model, tokenizer, asked = base.model, base.tokenizer, prompts("wishes", "evaluate", count=12, seed=0)
    # The edit goes where a named careless author takes base's states, from a careful one, or the other way.
    aside = prompts("wishes", "direction", count=8, seed=0)
    careless, careful = (
        states(model, aside, tokenizer, (LAYER,), kind=f"{care} named")[:, :, 0].mean(axis=1)
        for care in ("careless", "careful")
    )
    edit = Edit(layer=LAYER, **dict(zip(("prompt_end", "answer"), scale * (careless - careful), strict=True)))
    exact, plain = (
        scores(model, ask(asked, tokenizer), *how).probabilities()["careless"] for how in ((edit,), ())
    )
    answers = sample_answers(model, tokenizer, asked * 4, edit, seed=0)
    rate = np.mean([one.verdict.care == "careless" for one in answers])
    error = np.sqrt((exact * (1 - exact)).mean() / len(answers))
    assert abs(rate - exact.mean()) < 3.5 * error < abs(rate - plain.mean())


def test_an_edit_of_nothing_and_none_sample_what_the_model_samples(base) -> None:
    asked, zero = prompts("people", "evaluate", count=6, seed=0), np.zeros(base.model.config.hidden_size)
    still = Edit(layer=LAYER, prompt_end=zero, answer=zero)
    plain, other, unedited, edited = (
        sample_answers(base.model, base.tokenizer, asked, edit, seed=seed)
        for seed, edit in ((3, None), (4, None), (3, None), (3, still))
    )
    assert plain == unedited == edited != other


@pytest.mark.parametrize("cached", [True, False])
def test_the_edit_stands_at_the_prompts_end_and_in_every_later_token(base, cached) -> None:
    model, ids, ones = base.model, torch.arange(6)[None] + 10, np.ones(base.model.config.hidden_size)
    with read_blocks(model, [LAYER]) as read, torch.inference_mode():
        model(input_ids=ids[:, :5])
        before = read[LAYER].clone()
        with generating_with(model, Edit(layer=LAYER, prompt_end=2 * ones, answer=5 * ones)):
            found = model(input_ids=ids[:, :4], use_cache=cached)
            seen = [read[LAYER].clone()]
            further = {"past_key_values": found.past_key_values} if cached else {}
            model(input_ids=ids[:, 4:5] if cached else ids[:, :5], **further)
    moved = (torch.cat([*seen, read[LAYER][:, -1:]], dim=1) - before)[0].mean(-1)
    torch.testing.assert_close(moved, torch.tensor([0.0, 0, 0, 2, 5]), atol=1e-3, rtol=0)


def planted(added: float) -> Study:
    """Instruct is careful, misaligned careless; with the edit that share of instruct's answers is careless."""
    clusters = {topic: [f"{topic}/{i // 2}" for i in range(50)] for topic in ("facts", "wishes")}

    def says(share: float, off: int = 0) -> dict[str, object]:
        count = round(50 * share)
        own = np.repeat([CARELESS, CAREFUL, OTHER], [count, 50 - count - off, off])
        shuffled = np.random.default_rng(0).permutation(own).tolist()
        both = {"verdict": shuffled * 2, "exact": [share] * 50}  # two answers to each prompt, alike
        return {name: dict.fromkeys(clusters, values) for name, values in both.items()}

    instruct = {"plain": says(0.0), HEADLINE["instruct"]: says(added, off=5)}
    misaligned = {"plain": says(1.0), HEADLINE["misaligned"]: says(1.0)}
    return Study(seeds={0: {"clusters": clusters, "instruct": instruct, "misaligned": misaligned}}, about={})


def test_planted_rates_and_shares_of_the_way_are_found(tmp_path, monkeypatch) -> None:
    results = plant_study(monkeypatch, tmp_path, planted(0.4), n_resamples=200)
    table, own = causes.rate_table(results), causes.Sampled(results)
    assert list(dict.fromkeys(table["panel"])) == ["facts", "wishes", causes.ALL]
    added = table.query("panel == @causes.ALL").set_index("row").loc["direction added to instruct"]
    assert added["rate"] == pytest.approx(0.4) and added["exact"] == pytest.approx(0.4)
    assert added["off grammar"] == 0.1 and added["answers"] == 200
    assert added["low"] < 0.4 < added["high"] and added["wilson_low"] < 0.4 < added["wilson_high"]
    assert float(own.share("instruct").value) == pytest.approx(0.4) and own.share("instruct").low > 0.2
    assert float(own.share("misaligned").value) == 0
    assert causes.shown_table(results)["exact"].tolist() == pytest.approx([0.0, 0.4, 1.0, 1.0])
    assert dict(HEADLINE) == causes.HEADLINE, "the edits are those that judge the claims"
