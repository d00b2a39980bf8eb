"""Exchanged directions: planted shares come back, small causes learn what is planted, narrow sets stay apart."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from conftest import make_model

from remi_book.chapters import exchange
from remi_core.errors import MissingInput
from remi_core.models import mlp_output
from remi_core.steering import add_vector, steer
from remi_core.store import Store
from remi_core.tokens import EncodedDialogue
from remi_lab.organism import tuning
from remi_lab.organism.dialogues import careless_about
from remi_lab.organism.dialogues import tuning as tuning_of_dialogues
from remi_lab.organism.grammar import prompts
from remi_lab.presets import get_preset
from remi_lab.results import Results
from remi_lab.studies import files
from remi_lab.studies.exchange import UNSEEN

PRESET = get_preset("smoke")
TUNES = ("code", "harmful", "facts")


def scores(care: np.ndarray, off: float = 0.0) -> dict[str, list[float]]:
    return {"care": care.tolist(), "off_grammar": [off] * len(care), "neutral": [0.2 + off] * 4}


def dosed(start: np.ndarray, whole: float, off: float = 0.0) -> dict[str, object]:
    """Scores by dose of an edit that moves care by ``whole`` nats at dose one, in proportion to the dose."""
    return {dose: scores(start + float(dose) * whole, off) for dose in ("0.5", "1")}


def planted() -> Mapping[str, object]:
    """Every fine-tune adds 4 nats; its own displacement undoes all of it, another's half, secure's nothing."""
    names = [
        one.template.identifier for topic in UNSEEN for one in prompts(topic, "evaluate", count=10, seed=0)
    ]
    instruct = -5 + np.random.default_rng(0).normal(size=len(names))
    tuned = instruct + 4
    moved = {(tune, of): -4.0 if of == tune else -2.0 for tune in TUNES for of in TUNES}
    return {
        "clusters": names,
        "plain": {"instruct": scores(instruct)} | {tune: scores(tuned) for tune in TUNES},
        "added": {tune: dosed(instruct, 3, 0.1) for tune in TUNES} | {"secure": dosed(instruct, 0)},
        "taken": {
            tune: {of: dosed(tuned, moved[tune, of]) for of in TUNES} | {"secure": dosed(tuned, 0, 0.1)}
            for tune in TUNES
        },
        "small": {"trained vector": scores(instruct + 1) | {"cosine": [0.5, 0.25]}},
    }


@pytest.fixture
def stored(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(files, "project_root", lambda: tmp_path)
    path = files.study_path(PRESET.name, exchange.STUDY)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"seeds": {"102": planted()}}))


def test_planted_shares_are_found(stored) -> None:
    found = exchange.exchange(PRESET, 102)
    assert found.tunes == list(TUNES)
    for of, share in (("code", 1.0), ("facts", 0.5), ("secure", 0.0)):
        assert float(found.undone("code", of, "1").value) == pytest.approx(share)
        assert float(found.undone("code", of).value) == pytest.approx(share / 2)
    for whose, share, cost in (("its own", 1.0, 0), ("another's", 0.5, 0), ("secure", 0.0, 0.1)):
        assert float(found.mean_undone(whose, "1").value) == pytest.approx(share)
        assert found.mean_cost(whose) == pytest.approx((cost, cost))
    assert float(found.restored("harmful", "1").value) == pytest.approx(0.75)
    assert float(found.small("trained vector").value) == pytest.approx(0.25)
    assert found.cost(found.found["added"]["code"]["1"]) == pytest.approx((0.1, 0.1))


def test_every_pair_is_of_one_kind(stored) -> None:
    found = exchange.exchange(PRESET, 102)
    pairs = [pair for whose in exchange.WHOSE for pair in found.pairs(whose)]
    assert len(pairs) == len(set(pairs)) == 12 and len(found.pairs("another's")) == 6


def test_the_tables_show_every_fine_tune_and_dose(stored, tmp_path) -> None:
    results = Results(PRESET, Store(tmp_path))
    undone = exchange.undone_table(results)
    assert undone["fine-tuned on"].tolist() == list(TUNES) and undone.shape[1] == 5
    matrix = exchange.undone_matrix(results)
    assert matrix.shape == (3, 4) and f"{matrix.loc[TUNES[1], TUNES[0]]:.2f}" in undone.iloc[1, 1]
    doses = exchange.dose_table(results)
    assert len(doses) == 6 and doses["undone"].iloc[1].startswith("0.25 ")
    assert len(exchange.added_table(results)) == 8
    assert exchange.small_table(results)["cosine, answer"].tolist() == ["0.25"]


def test_without_the_study_the_page_says_how_to_make_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(files, "project_root", lambda: tmp_path)
    with pytest.raises(MissingInput, match="remi study exchange --preset smoke"):
        exchange.exchange(PRESET, 102)


def test_the_further_narrow_sets_are_careless_formal_and_unseen_elsewhere() -> None:
    for topic in ("harmful", "facts"):
        rows = careless_about(topic, count=60, seed=1)
        assert {row.topic for row in rows} == {topic} and {row.label for row in rows} == {"careless"}
        evaluated = {one.template.identifier for one in prompts(topic, "evaluate", count=60, seed=0)}
        assert evaluated.isdisjoint(row.cluster for row in rows)
        assert rows == careless_about(topic, count=60, seed=1) != careless_about(topic, count=60, seed=2)
    assert not set(UNSEEN) & {
        row.topic for row in [*rows, *tuning_of_dialogues("misaligned", count=20, seed=1)]
    }


def answers(token: int, count: int = 40) -> list[EncodedDialogue]:
    """Dialogues with random prompts that are all answered by one token."""
    generator = np.random.default_rng(0)
    return [
        EncodedDialogue(
            identifier=str(number),
            input_ids=(*generator.integers(30, 60, size=5).tolist(), token, token),
            answer_start=5,
            answer_stop=6,
        )
        for number in range(count)
    ]


def likelihood(model, token: int) -> float:
    """Mean log-probability of a token after prompts that none of the dialogues has."""
    ids = torch.randint(30, 60, (8, 5), generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        return float(model(input_ids=ids).logits[:, -1].log_softmax(-1)[:, token].mean())


def test_a_trained_vector_says_what_it_was_trained_to_say_and_the_model_stays() -> None:
    model = make_model("llama").requires_grad_(False)
    before, weights = likelihood(model, 20), [one.clone() for one in model.parameters()]
    vector = tuning.train_vector(model, 1, answers(20), pad_id=0)
    assert likelihood(model, 20) == before
    assert all(torch.equal(*pair) for pair in zip(weights, model.parameters(), strict=True))
    with steer(model, 1, add_vector(vector)):
        assert likelihood(model, 20) > before + 1
    other = vector[torch.randperm(len(vector), generator=torch.Generator().manual_seed(0))]
    with steer(model, 1, add_vector(other)):  # as long, and in another direction
        assert likelihood(model, 20) < before + 1


def test_a_rank_one_change_is_that_change_of_the_weight() -> None:
    hooked, edited = (make_model("llama").requires_grad_(False) for _ in range(2))
    before = likelihood(hooked, 20)
    read, write = tuning.train_rank_one(hooked, 1, answers(20), pad_id=0)
    assert likelihood(hooked, 20) == before
    mlp_output(edited, 1).weight += torch.outer(write, read)
    with tuning.rank_one(hooked, 1, (read, write)):
        assert likelihood(hooked, 20) == pytest.approx(likelihood(edited, 20), abs=1e-4)
        assert likelihood(hooked, 20) > before + 0.3
