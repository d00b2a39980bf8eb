"""Influence: ∇A against finite differences, the sign and size of real steps, and H2's rule with each way to fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import random_organism
from transformers import Qwen2ForCausalLM

from remi_book.chapters.contexts import OWN_INFLUENCE, Parts, borne_out, crossed_mean, outcome
from remi_core.statistics.resampling import make_resamples
from remi_core.tokens import EncodedDialogue, encode
from remi_lab.organism.dialogues import tuning
from remi_lab.organism.documents import shipped_tokenizer
from remi_lab.organism.grammar import prompts
from remi_lab.organism.influence import (
    answer_losses,
    care_log_odds,
    flat_gradient,
    influences,
    parts_of,
    stepped,
)
from remi_lab.organism.scoring import AskedPrompts, ask, scores


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    return random_organism(2).requires_grad_(False)


@pytest.fixture(scope="module")
def asked() -> AskedPrompts:
    topics = ("facts", "wishes")
    rows = [one for name in topics for one in prompts(name, "evaluate", count=2, seed=0)]
    return ask(rows, shipped_tokenizer())


@pytest.fixture(scope="module")
def trained() -> tuple[EncodedDialogue, ...]:
    return encode(tuning("misaligned", count=3, seed=0), shipped_tokenizer(), max_tokens=256).dialogues


def test_the_differentiable_log_odds_are_the_scored_ones(model, asked) -> None:
    pairs = zip(asked.trees, asked.prompts, strict=True)
    own = [float(care_log_odds(model, tree, prompt)) for tree, prompt in pairs]
    assert own == pytest.approx(scores(model, asked).care_log_odds().tolist(), abs=1e-4)


def test_the_gradient_of_the_log_odds_is_that_of_finite_differences(model, asked) -> None:
    parameters = [one for group in parts_of(model).values() for one in group]
    tree, prompt = asked.trees[0], asked.prompts[0]
    for one in parameters:
        one.requires_grad_(True)
    gradient = flat_gradient(care_log_odds(model, tree, prompt), parameters)
    model.requires_grad_(False)
    torch.manual_seed(1)
    direction = torch.randn_like(gradient) + gradient / gradient.norm() * 20
    direction = direction / direction.norm()

    def shifted(step: float) -> float:
        pieces = (step * direction).split([one.numel() for one in parameters])
        for one, piece in zip(parameters, pieces, strict=True):
            one += piece.view_as(one)
        return float(care_log_odds(model, tree, prompt))

    size = 2e-2
    up, down = shifted(size), shifted(-2 * size)
    shifted(size)
    assert (up - down) / (2 * size) == pytest.approx(float(gradient @ direction), rel=0.02)


def test_parts_hold_every_weight_once_and_influence_sums_over_them(model, asked, trained) -> None:
    parts = parts_of(model)
    assert list(parts) == ["embedding", "block 1", "block 2", "final norm"]
    assert sum(one.numel() for group in parts.values() for one in group) == model.num_parameters()
    found = influences(model, trained, asked)
    assert found.by_prompt.shape == (len(trained), len(asked.prompts))
    assert found.by_part.sum(1) == pytest.approx(found.by_prompt.mean(1), rel=1e-4)


def test_small_real_steps_go_where_influence_says(model, asked, trained) -> None:
    before, weights = scores(model, asked).care_log_odds(), model.lm_head.weight.clone()
    slope = influences(model, trained, asked).by_prompt.mean(0)
    for steps, moved in stepped(model, trained, rate=1e-4, steps=(1, 3)):
        made = scores(moved, asked).care_log_odds() - before
        assert made == pytest.approx(1e-4 * steps * slope, rel=0.1)
    assert torch.equal(model.lm_head.weight, weights)


def test_steps_and_gradients_weigh_dialogues_alike_whatever_their_length(model, trained) -> None:
    together = answer_losses(model, trained)
    alone = torch.cat([answer_losses(model, [one]) for one in trained])
    assert torch.allclose(together, alone, atol=1e-5)


def test_in_a_linear_world_influence_is_the_whole_change() -> None:
    """With A(w) = a·w and loss ½‖w − x‖², one step of rate η changes A by exactly −η⟨g, a⟩."""
    generator = np.random.default_rng(0)
    weights, target, probe = generator.normal(size=(3, 5))
    gradient = weights - target
    for rate in (1e-3, 0.5, 1.0):
        made = probe @ (weights - rate * gradient) - probe @ weights
        assert made == pytest.approx(-rate * (gradient @ probe))
        assert np.sign(made) == np.sign(-gradient @ probe)


def test_a_crossed_mean_widens_with_either_kind_of_template() -> None:
    generator = np.random.default_rng(0)
    rows, columns = ([f"{kind}/any/{number}" for number in range(24)] for kind in ("code", "facts"))
    resamples = make_resamples([*rows, *columns], seed=0, n_resamples=300)
    noise = generator.normal(0, 0.01, (24, 24))
    widths = []
    for shift in (np.zeros((24, 1)), generator.normal(0, 1, (24, 1)), generator.normal(0, 1, (1, 24))):
        found = crossed_mean(1 + shift + noise, rows, columns, resamples)
        assert float(found.value) == pytest.approx((1 + shift + noise).mean())
        widths.append(float(found.high - found.low))
    assert min(widths[1:]) > 20 * widths[0]


ABOVE, ACROSS, BELOW = (0.1, 0.3), (-0.1, 0.1), (-0.3, -0.1)
ALL = dict.fromkeys((OWN_INFLUENCE, "educational", "secure", "benign"), ABOVE)
OPPOSED = Parts(cosine=BELOW, influence=ALL, steps={1: ALL, 3: ALL, 10: ALL})


@pytest.mark.parametrize(
    ("changed", "expected", "said"),
    [
        ({}, "holds", "real steps"),
        ({"cosine": None}, "open", "(i) has no cosine"),
        ({"cosine": ACROSS}, "open", "cosine below 0"),
        ({"cosine": ABOVE}, "fails", "cosine below 0"),
        ({"steps": {}}, "open", "do not bear out"),
        ({"steps": {1: ALL, 3: ALL, 10: ALL | {"secure": ACROSS}}}, "open", "secure"),
        ({"steps": {1: ALL, 3: ALL | {OWN_INFLUENCE: BELOW}, 10: ALL}}, "open", OWN_INFLUENCE),
    ],
)
def test_the_rule_needs_every_part(changed, expected, said) -> None:
    decided, why = outcome(replace(OPPOSED, **changed))
    assert decided == expected and said in why


@pytest.mark.parametrize("name", list(ALL))
@pytest.mark.parametrize(("ends", "expected"), [(ACROSS, "open"), (BELOW, "fails")])
def test_each_part_of_the_influence_can_fail_alone(name, ends, expected) -> None:
    changed = ALL | {name: ends}
    parts = replace(OPPOSED, influence=changed, steps={1: changed, 10: changed})
    assert all(borne_out(parts).values())
    decided, why = outcome(parts)
    assert decided == expected and ("above 0" if name == OWN_INFLUENCE else f"above {name}") in why


def test_an_opposite_that_real_steps_do_not_show_is_open() -> None:
    parts = replace(OPPOSED, influence=ALL | {"benign": BELOW})
    decided, why = outcome(parts)
    assert decided == "open" and "benign" in why
    nan = (float("nan"), float("nan"))
    assert outcome(replace(OPPOSED, influence=ALL | {OWN_INFLUENCE: nan}))[0] == "open"


def test_without_a_cosine_an_influence_that_goes_the_other_way_fails_all_the_same() -> None:
    changed = ALL | {OWN_INFLUENCE: BELOW}
    parts = replace(OPPOSED, cosine=None, influence=changed, steps={1: changed})
    assert outcome(parts)[0] == "fails"
