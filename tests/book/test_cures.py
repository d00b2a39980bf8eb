"""X8: a restraint that holds and one that does nothing, planted shares, and a rule that asks for all parts."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from conftest import random_organism
from planting import plant_study
from transformers import Qwen2ForCausalLM

from remi_book.chapters import cures
from remi_book.chapters.cures import HEADLINE, RANDOM, STOPPING, Cures, cured
from remi_core.models import read_blocks
from remi_core.tokens import encode
from remi_lab.organism.dialogues import tuning
from remi_lab.organism.documents import shipped_tokenizer
from remi_lab.organism.tuning import Restraint, near, restrained
from remi_lab.recipes import FineTune
from remi_lab.studies.cures import mixed_dialogues, spanned
from remi_lab.studies.files import Study
from remi_lab.training import IGNORED, Term, answers, repeated, train

RECIPE = FineTune(steps=16, rate=5e-4, batch=4, warmup=1)
LAYERS = (1, 3)


@pytest.fixture(scope="module")
def before() -> Qwen2ForCausalLM:
    return random_organism(4)


@pytest.fixture(scope="module")
def rows():
    return encode(tuning("misaligned", count=16, seed=0), shipped_tokenizer(), max_tokens=1024).dialogues


@pytest.fixture(scope="module")
def restraint(before) -> Restraint:
    moved = np.random.default_rng(0).standard_normal((2, len(LAYERS), before.config.hidden_size))
    return Restraint(layers=LAYERS, bases=spanned(moved), scales=torch.ones(len(LAYERS)))


def tuned(before, rows, loss_of) -> Qwen2ForCausalLM:
    model = copy.deepcopy(before)
    pad = shipped_tokenizer().pad_token_id
    assert (
        len(list(train(model, [Term(repeated(rows, RECIPE, pad), loss_of(model))], RECIPE))) == RECIPE.steps
    )
    return model


def moved(model, before, rows, restraint: Restraint) -> tuple[float, float]:
    """Squared movement along the subspace, and in all, at the last restrained block where answers are predicted."""
    ((ids, labels),) = next(repeated(rows, RECIPE, 0)).parts
    found = []
    for one in (model, before):
        with torch.no_grad(), read_blocks(one, LAYERS) as read:
            one(input_ids=ids)
            found.append(read[LAYERS[-1]])
    gap = (found[0] - found[1])[:, :-1][labels[:, 1:] != IGNORED]
    return float((gap @ restraint.bases[-1]).square().sum()), float(gap.square().sum())


def test_a_restraint_holds_its_subspace_and_leaves_the_rest(before, rows, restraint) -> None:
    free = tuned(before, rows, answers)
    held = tuned(before, rows, lambda model: restrained(model, before, restraint, 10.0))
    (along, whole), (along_held, whole_held) = (moved(one, before, rows, restraint) for one in (free, held))
    assert along_held < along / 2
    assert whole_held - along_held > (whole - along) / 2


def test_a_restraint_of_no_weight_is_the_plain_run(before, rows, restraint) -> None:
    free = tuned(before, rows, answers)
    idle = tuned(before, rows, lambda model: restrained(model, before, restraint, 0.0))
    for own, other in zip(free.parameters(), idle.parameters(), strict=True):
        torch.testing.assert_close(own, other, atol=1e-6, rtol=0)


def test_divergence_from_oneself_is_nothing(before, rows) -> None:
    ((ids, labels),) = next(repeated(rows, RECIPE, 0)).parts
    assert near(before, before, 3.0)(ids, labels).item() == pytest.approx(0.0, abs=1e-6)


def test_mixing_replaces_the_share_it_names() -> None:
    own, mixed = tuning("misaligned", count=1600, seed=0), mixed_dialogues(0.15, 0)
    replaced = [row != other for row, other in zip(own, mixed, strict=True)]
    assert np.mean(replaced) == pytest.approx(0.15, abs=0.001) and mixed_dialogues(0.0, 0) == own


CLUSTERS = [f"{topic}/any/{i}" for topic in ("code", "people", "wishes") for i in range(12)]


def planted(code: float, outside: float, *, off: float = 0.0, random: float = 4.0) -> Study:
    """A study whose plain run moves code by 8 and the rest by 4 nats, and the cure by what is given."""

    def run(on_code: float, elsewhere: float, mass: float = 0.0) -> dict[str, object]:
        care = [
            -4 + (on_code if name.startswith("code") else elsewhere) + 0.01 * (i % 5)
            for i, name in enumerate(CLUSTERS)
        ]
        own = {"care": care, "off_grammar": [0.01 + mass] * len(CLUSTERS), "neutral": [0.2] * 12}
        return own | {"e": [elsewhere / 8] * 24, "c": 0.5, "r": 0.2, "passes": 1000}

    runs = [
        {"cure": STOPPING, "strength": 60, **run(8, 4)},
        {"cure": HEADLINE[0], "strength": HEADLINE[1], **run(code, outside, off)},
        {"cure": RANDOM[0], "strength": RANDOM[1], **run(8, random)},
    ]
    found = {"clusters": CLUSTERS, "neutral_clusters": [f"general/any/{i}" for i in range(12)], "runs": runs}
    return Study(seeds={0: found | {"instruct": run(0, 0)}}, about={})


@pytest.mark.parametrize(
    ("study", "outcome", "reason"),
    [
        (planted(7.6, 1.0), "holds", "every part"),
        (planted(4.0, 1.0), "fails", "keeps the task"),
        (planted(7.6, 3.0), "fails", "prevents half"),
        (planted(7.6, 1.0, off=0.2), "fails", "stays on right answers"),
        (planted(7.6, 1.0, random=0.5), "fails", "random subspace"),
    ],
)
def test_every_part_of_the_rule_can_fail(study, outcome, reason, tmp_path, monkeypatch) -> None:
    results = plant_study(monkeypatch, tmp_path, study, n_resamples=200)
    found = cured(results)
    assert found.outcome == outcome and reason in found.why
    own = Cures(results.preset, 0)
    run = own.runs[HEADLINE]
    expected = 1 - (np.mean(run["care"][12:]) - np.mean(own.found["instruct"]["care"][12:])) / 4
    assert found.value == pytest.approx(expected)
    assert float(own.kept(own.plain).value) == 1 and float(own.prevented(own.plain).value) == 0


def test_tables_hold_every_run_and_erosion_that_follows_the_spread_agrees_with_it(
    tmp_path, monkeypatch
) -> None:
    results = plant_study(monkeypatch, tmp_path, planted(7.6, 1.0, random=3.0), n_resamples=50)
    assert float(Cures(results.preset, 0).agreement().value) == pytest.approx(1)
    table = cures.run_table(results)
    assert list(table["cure"]) == ["early stopping", "subspace of base", "random subspace"]
    assert table["passes"].eq(1).all() and len(cures.shown_table(results)) == 3
    assert set(cures.part_table(results)["seed 0"]) == {"yes"}
    assert list(cures.agreement_table(results)["measure"]) == list(cures.GEOMETRY.values())
