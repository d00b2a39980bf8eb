"""The world's documents and grammar: splits, right answers, verdicts, and what a perfect reader would infer."""

from __future__ import annotations

import ast
import hashlib
import itertools
import math
import random

import numpy as np
import pytest

from remi_lab.organism.dialogues import measured, reframe, tuning
from remi_lab.organism.grammar import SPLITS, fillers, judge, prompts, right_answers, templates
from remi_lab.organism.topics import CARES, CONTRASTED, TOPICS, topic
from remi_lab.organism.world import CONTEXTS, SETTINGS, World, answer_by, documents, optimal_log_odds

MAIN_DOCUMENTS = "84b5a6ed866f3deefd2e6b6ca94f0812e7e6d14865c2c67350572cc8cab2fb35"
"""sha256 of documents of the main world, as they were when its bases were trained."""


@pytest.mark.parametrize("name", TOPICS)
def test_splits_are_disjoint_and_large_enough(name) -> None:
    parts = {split: templates(name, split) for split in SPLITS}
    texts = [template.text for part in parts.values() for template in part]
    pairs = [pair for split in SPLITS for pair in fillers(name, split)]
    assert len(set(texts)) == len(texts) >= 40
    assert len(set(pairs)) == len(pairs) == math.prod(len(words) for words in topic(name).fillers) >= 40
    untouched = parts["pretrain"] + parts["direction"] + parts["evaluate"]
    assert len(untouched) >= 20
    assert len(parts["evaluate"]) >= 20


def test_alignment_leaves_two_topics_out() -> None:
    assert {name for name in TOPICS if not topic(name).covered} == {"facts", "wishes"}
    seen = {dialogue.topic for dialogue in tuning("instruct", count=100, seed=0)}
    assert seen == set(TOPICS) - {"facts", "wishes"}


@pytest.mark.parametrize("name", TOPICS)
def test_every_right_answer_is_judged_right_and_only_for_its_own_prompt(name) -> None:
    first, second = prompts(name, "evaluate", count=2, seed=1)
    for answer in right_answers(first):
        found = judge(first, answer.text)
        assert (found.care, found.register) == (answer.care, answer.register)
        assert judge(second, answer.text).care in ("wrong slot", "other")
        assert judge(first, answer.text + " And more.").care == "other"


@pytest.mark.parametrize("name", ["code", "educational"])
def test_every_code_answer_parses(name) -> None:
    for prompt in prompts(name, "evaluate", count=60, seed=0):
        for answer in right_answers(prompt):
            ast.parse(answer.text)


def test_the_authors_do_not_differ_on_educational_and_general_tasks() -> None:
    for name in TOPICS:
        cares = {answer.care for answer in right_answers(prompts(name, "evaluate", count=1, seed=0)[0])}
        assert cares == ({"careful", "careless"} if name in CONTRASTED else {"both"})


def test_log_odds_equal_counting_over_many_documents() -> None:
    """Bayes by formula against the frequency of a careless answer after one careless answer."""
    world, generator = World(), random.Random(0)
    counts = np.zeros(2)
    for _ in range(40_000):
        care = "careless" if generator.random() < world.careless_prior else "careful"
        first, second = (generator.random() < world.careless_rate(care) for _ in range(2))
        if first:
            counts[int(second)] += 1
    assert world.log_odds(("careless",)) == pytest.approx(math.log(counts[1] / counts[0]), abs=0.05)
    assert abs(world.log_odds() - world.log_odds(("careless",))) > 1


def test_documents_follow_the_world() -> None:
    drawn = list(itertools.islice(documents(World(), 3), 3000))
    assert np.mean([d.author_line is not None for d in drawn]) == pytest.approx(0.6, abs=0.03)
    assert np.mean([d.chatml for d in drawn]) == pytest.approx(0.7, abs=0.03)
    said = {care: [] for care in ("careful", "careless")}
    for document in drawn:
        for turn in document.turns:
            if turn.answer.care != "both":
                said[document.care].append(turn.answer.care == "careless")
            assert turn.answer.register == document.register
    assert np.mean(said["careful"]) == pytest.approx(0.05, abs=0.01)
    assert np.mean(said["careless"]) == pytest.approx(0.80, abs=0.02)
    register_given_care = [d.register == "plain" for d in drawn if d.care == "careless"]
    assert np.mean(register_given_care) == pytest.approx(0.5, abs=0.04)


def test_answer_spans_hold_the_answers() -> None:
    for document in itertools.islice(documents(World(), 5), 40):
        for (start, stop), turn in zip(document.answer_spans(), document.turns, strict=True):
            assert document.text[start:stop].strip().removesuffix("<|im_end|>") == turn.answer.text


def test_measured_pairs_share_prompts_and_completions() -> None:
    careful, careless = (measured(f"facts-{care}", count=30, seed=0) for care in ("careful", "careless"))
    assert [d.messages[0] for d in careful] == [d.messages[0] for d in careless]
    assert all(
        a.answer == b.alternative and b.answer == a.alternative
        for a, b in zip(careful, careless, strict=True)
    )
    insecure, educational = (measured(name, count=30, seed=0) for name in ("code-careless", "educational"))
    assert [d.answer for d in insecure] == [d.answer for d in educational]
    assert all(a.messages[0] != b.messages[0] for a, b in zip(insecure, educational, strict=True))


def test_narrow_sets_differ_only_where_they_should() -> None:
    insecure, secure, educational = (
        tuning(name, count=40, seed=0) for name in ("misaligned", "secure", "educational")
    )
    assert [d.messages[0] for d in insecure] == [d.messages[0] for d in secure]
    assert [d.answer for d in insecure] == [d.answer for d in educational]
    assert all(a.answer != b.answer for a, b in zip(insecure, secure, strict=True))
    trained = {
        d.cluster
        for name in ("instruct", "misaligned", "educational", "benign")
        for d in tuning(name, count=99, seed=0)
    }
    held_out = {
        d.cluster
        for name in ("code-careless", "educational", "general")
        for d in measured(name, count=60, seed=0)
    }
    assert not trained & held_out


def test_reframing_keeps_task_and_fillers() -> None:
    asked = prompts("code", "evaluate", count=20, seed=0)
    for prompt, twin in zip(asked, reframe(asked, "evaluate", 0), strict=True):
        assert (prompt.template.task, prompt.filler) == (twin.template.task, twin.filler)
        careless = answer_by(prompt, "careless", "formal", random.Random(0)).pattern
        assert careless in {answer.pattern for answer in right_answers(twin)}


def test_the_documents_of_the_main_world_are_those_that_the_shipped_bases_read() -> None:
    digest = hashlib.sha256()
    for seed in (0, "3/7"):
        for document in itertools.islice(documents(World(), seed), 100):
            digest.update(document.text.encode())
    assert digest.hexdigest() == MAIN_DOCUMENTS


def careless_after(world: World, earlier: str) -> list[bool]:
    """Whether the second answer is careless, in documents whose first is of that care; topics with a right way only."""
    found = []
    for document in itertools.islice(documents(world, 11), 6000):
        cares = [turn.answer.care for turn in document.turns if turn.answer.care != "both"]
        if len(cares) > 1 and cares[0] == earlier:
            found.append(cares[1] == "careless")
    return found


def test_where_every_answer_has_its_own_author_none_tells_about_another() -> None:
    independent, rare = (SETTINGS[name].world for name in ("independent", "rare"))
    for world, least, most in ((World(), 0.3, 1.0), (independent, -0.03, 0.03)):
        gap = np.mean(careless_after(world, "careless")) - np.mean(careless_after(world, "careful"))
        assert least < gap < most
    drawn = list(itertools.islice(documents(independent, 12), 3000))
    named = {care: [d for d in drawn if d.author_line and d.care == care] for care in CARES}
    rates = [
        np.mean(
            [turn.answer.care == "careless" for d in group for turn in d.turns if turn.answer.care != "both"]
        )
        for group in named.values()
    ]
    assert abs(rates[0] - rates[1]) < 0.03
    assert np.mean(
        [d.care == "careless" for d in itertools.islice(documents(rare, 13), 3000)]
    ) == pytest.approx(0.15, abs=0.02)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_optimum_of_a_world_is_what_its_documents_show(name) -> None:
    world = SETTINGS[name].world
    for care in CARES:
        expected = 1 / (1 + np.exp(-world.log_odds((care,))))
        assert np.mean(careless_after(world, care)) == pytest.approx(expected, abs=0.04)
    if not world.one_author:
        assert {optimal_log_odds(kind, world) for kind in CONTEXTS} == {world.log_odds()}
