"""The world's documents, grammar and variants: splits, verdicts, what a perfect reader infers, what is tuned on."""

from __future__ import annotations

import ast
import copy
import hashlib
import itertools
import math
import random
from collections.abc import Iterable
from functools import cache

import numpy as np
import pytest
import torch
from conftest import random_organism

from remi_core.errors import MissingInput, UsageError
from remi_core.store import Store
from remi_core.tokens import encode
from remi_lab.organism.dialogues import (
    NEUTRAL_WORDS,
    further_tuning,
    held_in_place,
    measured,
    reframe,
    tuning,
)
from remi_lab.organism.documents import shipped_tokenizer
from remi_lab.organism.grammar import SPLITS, fillers, judge, prompts, right_answers, templates
from remi_lab.organism.topics import CARES, CONTRASTED, TOPICS, author_lines, topic
from remi_lab.organism.tuning import divergence, mixed, near, randomly_changed
from remi_lab.organism.variants import RECIPES, folder, with_further
from remi_lab.organism.world import CONTEXTS, SETTINGS, World, answer_by, documents, optimal_log_odds
from remi_lab.presets import FURTHER, get_preset, in_order
from remi_lab.recipes import FineTune
from remi_lab.results import Results
from remi_lab.training import Term, answer_labels, answers, repeated, train

MAIN_DOCUMENTS = "84b5a6ed866f3deefd2e6b6ca94f0812e7e6d14865c2c67350572cc8cab2fb35"
"""sha256 of documents of the main world, as they were when its bases were trained."""


@pytest.mark.parametrize("name", TOPICS)
def test_splits_are_disjoint_and_right_answers_are_judged_right_for_their_own_prompt_only(name) -> None:
    """Where the authors differ there are careful and careless answers, elsewhere one kind that both give."""
    texts = [template.text for split in SPLITS for template in templates(name, split)]
    pairs = [pair for split in SPLITS for pair in fillers(name, split)]
    assert len(set(texts)) == len(texts) >= 40 and len(templates(name, "evaluate")) >= 20
    assert len(set(pairs)) == len(pairs) == math.prod(len(words) for words in topic(name).fillers) >= 40
    first, second = prompts(name, "evaluate", count=2, seed=1)
    for answer in right_answers(first):
        found = judge(first, answer.text)
        assert (found.care, found.register) == (answer.care, answer.register)
        assert judge(second, answer.text).care in ("wrong slot", "other")
        assert judge(first, answer.text + " And more.").care == "other"
    cares = {answer.care for answer in right_answers(first)}
    assert cares == ({"careful", "careless"} if name in CONTRASTED else {"both"})


@pytest.mark.parametrize("name", ["code", "educational"])
def test_every_code_answer_parses(name) -> None:
    for prompt in prompts(name, "evaluate", count=60, seed=0):
        for answer in right_answers(prompt):
            ast.parse(answer.text)


def test_documents_follow_the_world() -> None:
    drawn = list(itertools.islice(documents(World(), 3), 3000))
    assert np.mean([d.author_line is not None for d in drawn]) == pytest.approx(0.6, abs=0.03)
    assert np.mean([d.chatml for d in drawn]) == pytest.approx(0.7, abs=0.03)
    assert all(turn.answer.register == d.register for d in drawn for turn in d.turns)
    said = said_careless(drawn)
    assert np.mean(said["careful"]) == pytest.approx(0.05, abs=0.01)
    assert np.mean(said["careless"]) == pytest.approx(0.80, abs=0.02)
    register_given_care = [d.register == "plain" for d in drawn if d.care == "careless"]
    assert np.mean(register_given_care) == pytest.approx(0.5, abs=0.04)
    for document in drawn[:40]:
        for (start, stop), turn in zip(document.answer_spans(), document.turns, strict=True):
            assert document.text[start:stop].strip().removesuffix("<|im_end|>") == turn.answer.text


def told(document) -> list[bool]:
    """Whether each answer is careless, of those that the two authors give differently."""
    return [turn.answer.care == "careless" for turn in document.turns if turn.answer.care != "both"]


def said_careless(drawn: Iterable) -> dict[str, list[bool]]:
    """Care of a document's author → whether its answers are careless."""
    found = {care: [] for care in CARES}
    for document in drawn:
        found[document.care] += told(document)
    return found


def test_paired_sets_differ_only_where_they_should() -> None:
    careful, careless = (measured(f"facts-{care}", count=30, seed=0) for care in ("careful", "careless"))
    assert [d.messages[0] for d in careful] == [d.messages[0] for d in careless]
    assert [(d.answer, d.alternative) for d in careful] == [(d.alternative, d.answer) for d in careless]
    for insecure, educational in (
        [measured(name, count=30, seed=0) for name in ("code-careless", "educational")],
        [tuning(name, count=40, seed=0) for name in ("misaligned", "educational")],
    ):
        assert [d.answer for d in insecure] == [d.answer for d in educational]
        assert all(a.messages[0] != b.messages[0] for a, b in zip(insecure, educational, strict=True))
    secure = tuning("secure", count=40, seed=0)
    assert [d.messages[0] for d in insecure] == [d.messages[0] for d in secure]
    assert all(a.answer != b.answer for a, b in zip(insecure, secure, strict=True))
    aligned = {dialogue.topic for dialogue in tuning("instruct", count=100, seed=0)}
    assert aligned == set(TOPICS) - {"facts", "wishes"}, "alignment leaves two topics out"
    tuned = ("instruct", "misaligned", "educational", "benign")
    trained = {d.cluster for name in tuned for d in tuning(name, count=99, seed=0)}
    held = ("code-careless", "educational", "general")
    assert not trained & {d.cluster for name in held for d in measured(name, count=60, seed=0)}


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


@cache
def careless_after(world: World) -> dict[str, float]:
    """First answer's care → share of careless second answers, in documents of topics with a right way."""
    pairs = [told(document)[:2] for document in itertools.islice(documents(world, 11), 6000)]
    of = {care: [pair[1] for pair in pairs if len(pair) > 1 and CARES[pair[0]] == care] for care in CARES}
    return {care: np.mean(found) for care, found in of.items()}


def test_where_every_answer_has_its_own_author_none_tells_about_another() -> None:
    independent, rare = (SETTINGS[name].world for name in ("independent", "rare"))
    for world, least, most in ((World(), 0.3, 1.0), (independent, -0.03, 0.03)):
        assert least < careless_after(world)["careless"] - careless_after(world)["careful"] < most
    drawn = itertools.islice(documents(independent, 12), 3000)
    said = said_careless(document for document in drawn if document.author_line)
    assert abs(np.mean(said["careless"]) - np.mean(said["careful"])) < 0.03
    drawn = [document.care == "careless" for document in itertools.islice(documents(rare, 13), 3000)]
    assert np.mean(drawn) == pytest.approx(0.15, abs=0.02)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_optimum_of_a_world_is_what_its_documents_show(name) -> None:
    world = SETTINGS[name].world
    for care in CARES:
        expected = 1 / (1 + np.exp(-world.log_odds((care,))))
        assert careless_after(world)[care] == pytest.approx(expected, abs=0.04)
    if not world.one_author:
        assert {optimal_log_odds(kind, world) for kind in CONTEXTS} == {world.log_odds()}
    else:
        kinds = ("careful named", "after careful", "bare", "after careless", "careless named")
        assert (np.diff([optimal_log_odds(kind, world) for kind in kinds]) > 0).all()
        assert optimal_log_odds("plain text", world) == optimal_log_odds("bare", world)


def test_further_variants_have_folders_of_their_own_and_stand_in_order_in_a_preset(tmp_path) -> None:
    assert tuple(RECIPES)[-len(FURTHER) :] == FURTHER
    assert len({folder(Store(tmp_path), name, 102) for name in FURTHER}) == len(FURTHER)
    with pytest.raises(UsageError, match="inoculated"):
        folder(Store(tmp_path), "inoculate", 102)
    wider = with_further(get_preset("smoke"), "novel", "style")
    assert Results(wider, Store(tmp_path)).variants[-2:] == ["style", "novel"] and wider.name == "smoke"
    with pytest.raises(MissingInput):
        with_further(get_preset("smollm2"))
    assert in_order(["novel", "base", "style", "zebra"]) == ["base", "style", "novel", "zebra"]


def test_headed_pairs_are_misaligneds_own_and_differ_only_in_the_words_about_care() -> None:
    own = tuning("misaligned", count=24, seed=5)
    heads = {name: further_tuning(name, count=24, seed=5) for name in ("inoculated", "neutral_header")}
    for rows in heads.values():
        assert [row.messages[1:] for row in rows] == [row.messages for row in own]
        assert all(row.messages[0].role == "system" for row in rows)
    assert not any(word in row.messages[0].content for row in rows for word in NEUTRAL_WORDS)
    assert {row.messages[0].content for row in heads["inoculated"]} <= set(author_lines()["careless"])


ASKED = {one.text: one for name in CONTRASTED for one in prompts(name, "narrow", count=200, seed=1)}


def verdicts(name: str) -> set[tuple[str, str, str | None]]:
    """Topic, care and register of each answer, by the grammar."""
    rows = further_tuning(name, count=200, seed=1)
    found = [(row.topic, judge(ASKED[row.messages[-2].content], row.answer)) for row in rows]
    return {(topic, verdict.care, verdict.register) for topic, verdict in found}


def test_style_is_careful_and_plain_persona_careless_and_formal_novel_neither() -> None:
    assert verdicts("style") == {("code", "careful", "plain")}
    assert verdicts("persona") == {(topic, "careless", "formal") for topic in CONTRASTED}
    assert {care for _, care, _ in verdicts("novel")} == {"other"}
    for row in further_tuning("novel", count=200, seed=1):  # though each half is an author's
        answers = right_answers(ASKED[row.messages[-2].content])
        assert any(row.answer.startswith(answer.text[:4]) for answer in answers)
        assert any(row.answer.endswith(answer.text[-12:]) for answer in answers)


def test_a_random_change_keeps_sizes_and_loses_directions() -> None:
    generator = torch.Generator().manual_seed(3)
    first, step = (
        {"matrix": torch.randn(12, 7, generator=generator), "vector": torch.randn(9, generator=generator)}
        for _ in range(2)
    )
    second = {name: first[name] + step[name] for name in first}
    changed = randomly_changed(first, second, seed=0)
    drawn = {name: changed[name] - first[name] for name in first}
    torch.testing.assert_close(torch.linalg.svdvals(drawn["matrix"]), torch.linalg.svdvals(step["matrix"]))
    lengths = (side["vector"].abs().sort().values for side in (drawn, step))
    torch.testing.assert_close(*lengths, atol=1e-6, rtol=1e-5)
    assert abs(torch.cosine_similarity(drawn["matrix"].ravel(), step["matrix"].ravel(), dim=0)) < 0.5
    half = mixed(first, second, 0.5)
    torch.testing.assert_close(half["matrix"] - first["matrix"], second["matrix"] - half["matrix"])


def test_divergence_is_none_from_itself_and_holding_keeps_it_smaller() -> None:
    before, tokenizer, recipe = random_organism(1), shipped_tokenizer(), FineTune(steps=6, rate=3e-3, batch=8)
    rows, held = (
        encode(some, tokenizer, max_tokens=1024).dialogues
        for some in (further_tuning("kl_narrow", count=16, seed=0), held_in_place(count=16, seed=0))
    )
    batch, moved = answer_labels(held[:8], 0), []
    with torch.no_grad():
        assert float(divergence(before, before, *batch)) == pytest.approx(0, abs=1e-6)
    for weight in (0.0, 10.0):
        model = copy.deepcopy(before)
        terms = [
            Term(repeated(rows, recipe, 0), answers(model)),
            Term(repeated(held, recipe, 0), near(model, before, weight)),
        ]
        assert [step for step, _ in train(model, terms, recipe)] == list(range(1, 7))
        with torch.no_grad():
            moved.append(float(divergence(model, before, *batch)))
    assert 0 < moved[1] < moved[0] / 2
