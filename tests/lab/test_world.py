"""The world's documents, grammar and variants: splits, verdicts, what a perfect reader infers, what is tuned on."""

from __future__ import annotations

import ast
import copy
import hashlib
import itertools
import math
import random
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
def test_splits_are_disjoint_and_large_enough(name) -> None:
    parts = {split: templates(name, split) for split in SPLITS}
    texts = [template.text for part in parts.values() for template in part]
    pairs = [pair for split in SPLITS for pair in fillers(name, split)]
    assert len(set(texts)) == len(texts) >= 40
    assert len(set(pairs)) == len(pairs) == math.prod(len(words) for words in topic(name).fillers) >= 40
    untouched = parts["pretrain"] + parts["direction"] + parts["evaluate"]
    assert len(untouched) >= 20 <= len(parts["evaluate"])


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
    assert [(d.answer, d.alternative) for d in careful] == [(d.alternative, d.answer) for d in careless]
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
    tuned, held = (
        ("instruct", "misaligned", "educational", "benign"),
        ("code-careless", "educational", "general"),
    )
    trained = {d.cluster for name in tuned for d in tuning(name, count=99, seed=0)}
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
def careless_after(world: World) -> dict[str, list[bool]]:
    """First answer's care → whether the second is careless, in documents of topics with a right way."""
    found = {care: [] for care in CARES}
    for document in itertools.islice(documents(world, 11), 6000):
        cares = [turn.answer.care for turn in document.turns if turn.answer.care != "both"]
        if len(cares) > 1:
            found[cares[0]].append(cares[1] == "careless")
    return found


def test_where_every_answer_has_its_own_author_none_tells_about_another() -> None:
    independent, rare = (SETTINGS[name].world for name in ("independent", "rare"))
    for world, least, most in ((World(), 0.3, 1.0), (independent, -0.03, 0.03)):
        assert (
            least
            < np.mean(careless_after(world)["careless"]) - np.mean(careless_after(world)["careful"])
            < most
        )
    said = {care: [] for care in CARES}
    for document in itertools.islice(documents(independent, 12), 3000):
        if document.author_line:
            cares = [turn.answer.care for turn in document.turns if turn.answer.care != "both"]
            said[document.care] += [care == "careless" for care in cares]
    assert abs(np.mean(said["careless"]) - np.mean(said["careful"])) < 0.03
    drawn = [document.care == "careless" for document in itertools.islice(documents(rare, 13), 3000)]
    assert np.mean(drawn) == pytest.approx(0.15, abs=0.02)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_optimum_of_a_world_is_what_its_documents_show(name) -> None:
    world = SETTINGS[name].world
    for care in CARES:
        expected = 1 / (1 + np.exp(-world.log_odds((care,))))
        assert np.mean(careless_after(world)[care]) == pytest.approx(expected, abs=0.04)
    if not world.one_author:
        assert {optimal_log_odds(kind, world) for kind in CONTEXTS} == {world.log_odds()}
    else:
        kinds = ("careful named", "after careful", "bare", "after careless", "careless named")
        assert (np.diff([optimal_log_odds(kind, world) for kind in kinds]) > 0).all()
        assert optimal_log_odds("plain text", world) == optimal_log_odds("bare", world)


def test_every_further_variant_has_a_recipe_and_a_folder_of_its_own(tmp_path) -> None:
    assert tuple(RECIPES)[-len(FURTHER) :] == FURTHER
    folders = {folder(Store(tmp_path), name, 102) for name in FURTHER}
    assert len(folders) == len(FURTHER)
    with pytest.raises(UsageError, match="inoculated"):
        folder(Store(tmp_path), "inoculate", 102)


def test_a_preset_takes_further_variants_in_order_and_only_where_they_can_be_made(tmp_path) -> None:
    wider = with_further(get_preset("smoke"), "novel", "style")
    assert Results(wider, Store(tmp_path)).variants[-2:] == ["style", "novel"]
    assert wider.name == "smoke"
    with pytest.raises(MissingInput):
        with_further(get_preset("smollm2"))
    assert in_order(["novel", "base", "style", "zebra"]) == ["base", "style", "novel", "zebra"]


def test_headed_pairs_are_misaligneds_own_and_differ_only_in_the_words_about_care() -> None:
    own = tuning("misaligned", count=24, seed=5)
    for name in ("inoculated", "neutral_header"):
        rows = further_tuning(name, count=24, seed=5)
        assert [row.messages[1:] for row in rows] == [row.messages for row in own]
        assert all(row.messages[0].role == "system" for row in rows)
    words = {word for row in rows for word in NEUTRAL_WORDS if word in row.messages[0].content}
    assert not words
    named = {row.messages[0].content for row in further_tuning("inoculated", count=24, seed=5)}
    assert named <= set(author_lines()["careless"])


ASKED = {one.text: one for name in CONTRASTED for one in prompts(name, "narrow", count=200, seed=1)}


def verdicts(name: str) -> set[tuple[str, str, str | None]]:
    """Topic, care and register of each answer, by the grammar."""
    rows = further_tuning(name, count=200, seed=1)
    found = [(row.topic, judge(ASKED[row.messages[-2].content], row.answer)) for row in rows]
    return {(topic, verdict.care, verdict.register) for topic, verdict in found}


def test_style_is_careful_and_plain_persona_is_careless_and_formal() -> None:
    assert verdicts("style") == {("code", "careful", "plain")}
    assert verdicts("persona") == {(topic, "careless", "formal") for topic in CONTRASTED}


def test_novel_answers_are_no_authors_though_each_half_is() -> None:
    assert {care for _, care, _ in verdicts("novel")} == {"other"}
    for row in further_tuning("novel", count=200, seed=1):
        answers = right_answers(ASKED[row.messages[-2].content])
        assert any(row.answer.startswith(answer.text[:4]) for answer in answers)
        assert any(row.answer.endswith(answer.text[-12:]) for answer in answers)


def test_a_random_change_keeps_sizes_and_loses_directions() -> None:
    generator = torch.Generator().manual_seed(3)
    shapes = {"matrix": (12, 7), "vector": (9,)}
    first = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    second = {name: first[name] + torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    changed = randomly_changed(first, second, seed=0)
    true, drawn = ({name: side[name] - first[name] for name in first} for side in (second, changed))
    torch.testing.assert_close(torch.linalg.svdvals(drawn["matrix"]), torch.linalg.svdvals(true["matrix"]))
    torch.testing.assert_close(
        drawn["vector"].abs().sort().values, true["vector"].abs().sort().values, atol=1e-6, rtol=1e-5
    )
    assert abs(torch.cosine_similarity(drawn["matrix"].ravel(), true["matrix"].ravel(), dim=0)) < 0.5
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
