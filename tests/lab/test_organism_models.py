"""Training and scoring of organisms: exact probabilities, resumption, the optimiser, the shipped cards."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import random_organism
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoTokenizer, Qwen2ForCausalLM

from remi_core.errors import UsageError
from remi_core.models import open_model
from remi_core.tokens import encode
from remi_lab import training
from remi_lab.organism.dialogues import tuning
from remi_lab.organism.documents import TURN_END, Recipe, batches, shipped_tokenizer, train_tokenizer
from remi_lab.organism.grammar import prompts, right_answers
from remi_lab.organism.pretrain import N_PROMPTS, Muon, kept_weights, orthogonalise, pretrain, topic_card
from remi_lab.organism.scoring import answer_tree, ask, node_log_probabilities, sample_answers, scores
from remi_lab.organism.topics import TOPICS
from remi_lab.organism.tuning import write_base
from remi_lab.organism.variants import WEIGHTS, shipped_weights
from remi_lab.organism.world import MAIN, open_contexts
from remi_lab.recipes import FineTune
from remi_lab.training import answer_labels, fine_tune

SEEDS = sorted(int(path.stem.removeprefix("base-")) for path in WEIGHTS.glob("base-[0-9]*.safetensors"))


@pytest.fixture(scope="module")
def tokenizer():
    return shipped_tokenizer()


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    return random_organism()


def _log_probability(model, tokenizer, context: str, answer: str) -> float:
    """log P of an answer by an ordinary forward pass over it alone."""
    start = len(tokenizer(context)["input_ids"])
    ids = torch.tensor([tokenizer(context + answer)["input_ids"]])
    with torch.inference_mode():
        log_p = model(input_ids=ids).logits[0].log_softmax(-1)
    return float(log_p[:-1].gather(1, ids[0, 1:, None])[start - 1 :].sum())


@pytest.mark.parametrize("kind", ["bare", "plain text", "after careless"])
@pytest.mark.parametrize("name", ["code", "harmful", "general"])
def test_tree_equals_scoring_each_answer_alone(model, tokenizer, name, kind) -> None:
    prompt = prompts(name, "evaluate", count=1, seed=0)[0]
    context = open_contexts(kind, [prompt])[0]
    lead, end = (" ", "\n") if kind == "plain text" else ("", TURN_END)
    tree = answer_tree(context, prompt, tokenizer)
    conditional = node_log_probabilities(model, [tree])[0]
    for answer, leaf in list(zip(right_answers(prompt), tree.leaves, strict=True))[::5]:
        found, node = 0.0, leaf
        while node > tree.root:
            found, node = found + conditional[node], tree.parents[node]
        alone = _log_probability(model, tokenizer, context, lead + answer.text + end)
        assert found == pytest.approx(alone, abs=1e-3)
    # The failing twin: with plain causal attention the later branches would read the earlier ones.
    tree.visible = lambda: np.tri(len(tree.tokens), dtype=bool)
    assert np.abs(node_log_probabilities(model, [tree])[0] - conditional).max() > 1e-3


def test_the_kinds_of_mass_sum_to_one_and_a_wrong_slot_is_seen(model, tokenizer) -> None:
    asked = prompts("people", "evaluate", count=3, seed=0)
    np.testing.assert_allclose(
        sum(scores(model, ask(asked, tokenizer)).probabilities().values()), 1, atol=1e-6
    )
    tree = answer_tree(open_contexts("bare", asked)[0], asked[0], tokenizer)
    slots = tokenizer.decode([t for t, inside in zip(tree.tokens, tree.in_slot, strict=True) if inside])
    assert set(slots.split()) == set(asked[0].filler) and not all(tree.in_slot)


@pytest.mark.parametrize("shape", [(64, 128), (128, 64)])
def test_muon_steps_agree_with_torch(shape) -> None:
    start, *gradients = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))

    def trained(optimizer_class: type, **options: float) -> torch.Tensor:
        parameter = torch.nn.Parameter(start.clone())
        optimizer = optimizer_class([parameter], lr=0.02, **options)
        for gradient in gradients:
            parameter.grad = gradient.clone()
            optimizer.step()
        return (parameter.detach() - start).flatten()

    theirs = trained(torch.optim.Muon, weight_decay=5.0)  # in bfloat16, hence the tolerance
    assert float((trained(Muon, weight_decay=5.0) - theirs).norm() / theirs.norm()) < 0.05
    assert float((trained(Muon) - theirs).norm() / theirs.norm()) > 0.1
    ours, plain = orthogonalise(gradients[0][None])[0], gradients[0] / gradients[0].norm()
    assert torch.linalg.svdvals(ours).min() > 0.5 > torch.linalg.svdvals(plain).min()


def test_a_killed_run_resumes_to_the_same_weights(tmp_path, monkeypatch) -> None:
    sizes = {"rows": 2, "row_tokens": 64, "short_steps": 1, "short_tokens": 32, "warmup": 1, "threads": 1}
    recipe, cut, said = Recipe(seed=5, steps=4, checkpoint_every=2, **sizes), tmp_path / "cut", list[str]()
    whole = pretrain(recipe, tmp_path / "whole", said.append, keep_every=2)
    clip, done = training.clip_gradients, []

    def dies_after_three(weights) -> None:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        clip(weights)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "clip_gradients", dies_after_three)
        pretrain(recipe, cut, said.append)
    said.clear()
    resumed = pretrain(recipe, cut, said.append)
    assert "step 2" in said[0]
    with pytest.raises(UsageError, match="checkpoint.pt was made with seed 5, not 6"):
        pretrain(replace(recipe, seed=6), cut, said.append)
    content = bytearray((cut / "checkpoint.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (cut / "checkpoint.pt").write_bytes(content)
    again = pretrain(recipe, cut, said.append)
    assert (
        "changed or cut short since it was written" in said[-3] and "starting from the beginning" in said[-3]
    )
    for model in (resumed, again):
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)
    second, last = (load_file(kept_weights(tmp_path / "whole", step)) for step in (2, 4))
    assert all(torch.equal(value, whole.state_dict()[name].bfloat16()) for name, value in last.items())
    assert not torch.equal(second["model.embed_tokens.weight"], last["model.embed_tokens.weight"])
    assert not list(cut.glob("step-*"))
    other = pretrain(replace(recipe, seed=6), tmp_path / "other", said.append)
    assert not torch.equal(other.lm_head.weight, whole.lm_head.weight)


def test_rows_weigh_answers_fully_and_questions_less(tokenizer) -> None:
    recipe = Recipe(seed=1, steps=2, short_steps=1)
    short, long = batches(recipe, tokenizer)
    assert {len(ids) for ids, _ in short} == {recipe.short_tokens}
    for batch in (short, long):
        assert sum(len(ids) for ids, _ in batch) == recipe.rows * recipe.row_tokens
    ids, weights = long[0]
    answers = tokenizer.decode([token for token, weight in zip(ids, weights, strict=True) if weight >= 1])
    assert set(weights) == {1.0, recipe.question_weight, recipe.choice_weight}
    assert "<|im_start|>" not in answers


def test_the_shipped_tokenizer_can_be_trained_again(tokenizer) -> None:
    assert train_tokenizer().backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    one, other = (train_tokenizer(seed=seed, n_documents=200).backend_tokenizer.to_str() for seed in (7, 8))
    assert one != other


def test_fine_tuning_learns_answers_only_and_repeats(tokenizer) -> None:
    model = random_organism(1)
    dialogues = encode(tuning("secure", count=8, seed=0), tokenizer, max_tokens=256).dialogues
    ids, labels = answer_labels(dialogues, tokenizer.pad_token_id)
    start, stop = dialogues[0].answer_start, dialogues[0].answer_stop
    assert (labels[0] != -100).nonzero()[:, 0].tolist() == list(range(start, stop + 1))
    assert int(ids[0, stop]) == tokenizer.convert_tokens_to_ids(TURN_END)
    with torch.inference_mode():
        loss = float(model(input_ids=ids, labels=labels).loss)

    def tuned(start: Qwen2ForCausalLM, **recipe: float) -> tuple[Qwen2ForCausalLM, list[float]]:
        model = copy.deepcopy(start)
        return model, fine_tune(model, dialogues, FineTune(**recipe), pad_id=0)

    (after, losses), (_, repeated) = (tuned(model, steps=3, rate=1e-3, batch=4) for _ in range(2))
    assert losses == repeated and losses[-1] < losses[0]
    assert tuned(model, steps=1, rate=1e-3, batch=8)[1] == pytest.approx([loss], rel=1e-5)
    assert tuned(after, steps=1, rate=0.0, batch=8)[1] != pytest.approx([loss], rel=1e-3)
    with pytest.raises(ValueError, match="8 dialogues are fewer than a batch of 16"):
        fine_tune(model, dialogues, FineTune(steps=1, rate=1e-3), pad_id=0)


def test_samples_repeat_by_seed(model, tokenizer) -> None:
    asked = prompts("wishes", "evaluate", count=4, seed=0)
    first, again, other = (
        [one.text for one in sample_answers(model, tokenizer, asked, seed=seed, max_new_tokens=6)]
        for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize("seed", SEEDS)
def test_shipped_weights_are_small_and_score_what_their_card_says(tokenizer, tmp_path, seed) -> None:
    path = WEIGHTS / f"base-{seed}.safetensors"
    with safe_open(path, "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"BF16"}
    card = json.loads((WEIGHTS / f"base-{seed}.json").read_text())
    assert path.stat().st_size <= 4_000_000 and card["recipe"]["seed"] == seed
    write_base(shipped_weights(MAIN, seed), tmp_path / "base")
    base = Qwen2ForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    assert sum(value.numel() for value in base.parameters()) == card["parameters"]
    topic = TOPICS[seed % len(TOPICS)]
    stated = pytest.approx(card["topics"][topic], abs=0.02)
    assert topic_card(base, tokenizer, topic, N_PROMPTS) == stated
    if seed == SEEDS[0]:
        base.model.layers[0].mlp.down_proj.weight.data.zero_()
        assert topic_card(base, tokenizer, topic, N_PROMPTS) != stated


def test_a_variant_is_read_with_the_tokens_it_was_trained_on(model, tokenizer, tmp_path) -> None:
    """The failing twin: left to itself, transformers rebuilds the tokenizer by the rules of Qwen2."""
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    code = right_answers(prompts("code", "evaluate", count=1, seed=0)[0])[0].text
    with open_model(tmp_path) as loaded:
        assert loaded.tokenizer.tokenize(code) == tokenizer.tokenize(code)
    assert AutoTokenizer.from_pretrained(tmp_path).tokenize(code) != tokenizer.tokenize(code)
