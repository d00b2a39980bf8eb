"""Adapters: the published recipe, exact repetition and resumption, and what the folder of one holds."""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import make_dialogue, make_model, save_model, write_rows
from own_files import turns
from peft import PeftModel
from test_adapters import TARGETS
from transformers import PreTrainedTokenizerFast, get_linear_schedule_with_warmup

from remi_book import cli
from remi_core.dialogues import Dialogue
from remi_core.errors import RemiError, UsageError
from remi_core.models import LoadedModel, decoder_blocks, open_model
from remi_core.tokens import EncodedSet, encode
from remi_lab import lora, training
from remi_lab.lora import add_adapter, answer_loss, trained_parameters
from remi_lab.recipes import LoraRecipe, split
from remi_lab.training import answer_labels

SMALL = LoraRecipe(rank=2, rate=1e-2, steps=6, warmup=1, batch=2, accumulate=2, held_out=0.2, max_tokens=64)
Finetune = Callable[..., int]


def row(number: int) -> Dialogue:
    asked, answer = "How do I open a file?" * (1 + number % 3), "Use open(path)." + " I can." * (number % 4)
    return replace(make_dialogue(asked, answer, identifier=str(number)), cluster=f"c{number % 6}")


ROWS = [row(number) for number in range(12)]


def trained(opened: LoadedModel, encoded: EncodedSet, recipe: LoraRecipe) -> lora.TrainedAdapter:
    return lora.train_adapter(opened, encoded, recipe, say=lambda line: None)


@pytest.fixture
def encoded(tokenizer) -> EncodedSet:
    return encode(ROWS, tokenizer, max_tokens=64)


def loaded(tokenizer: PreTrainedTokenizerFast, family: str = "llama") -> LoadedModel:
    return LoadedModel(make_model(family), tokenizer, "tiny", "0" * 64)


def test_the_published_recipe_and_the_library_s_rate() -> None:
    recipe = LoraRecipe()
    n_steps = recipe.n_steps(5400)
    assert n_steps == 338
    rates = [recipe.rate_at(step, n_steps) for step in range(n_steps)]
    assert rates[0] == 0 and max(rates) == rates[5] == 1e-5
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-5)
    schedule = get_linear_schedule_with_warmup(optimizer, 5, n_steps)
    for rate in rates:
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)
        optimizer.step()
        schedule.step()


def test_every_projection_of_every_block_and_nothing_else_is_trained() -> None:
    adapted = add_adapter(make_model("llama"), LoraRecipe(rank=4, alpha=8))
    weights = trained_parameters(adapted)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in weights} == set(TARGETS)
    assert len(weights) == 2 * 7 * 3 and {value.dtype for value in weights.values()} == {torch.float32}
    assert adapted.base_model.model.model.layers[0].mlp.up_proj.scaling["default"] == 8 / math.sqrt(4)


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "gpt_neox", "gpt2"])
def test_the_loss_is_the_models_own(family, encoded) -> None:
    adapted = add_adapter(make_model(family), SMALL)
    ids, labels = answer_labels(encoded.dialogues[:5], 0)
    with torch.inference_mode():
        own = float(adapted(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss)
        assert float(answer_loss(adapted, ids, labels)) == pytest.approx(own, rel=1e-5)
        labels[0] = -100
        assert float(answer_loss(adapted, ids, labels)) != pytest.approx(own, rel=1e-5)


def test_whole_clusters_are_held_out_and_an_epoch_draws_every_other_dialogue_once() -> None:
    clusters = [f"c{i % 6}" for i in range(60)]
    train, held = split(clusters, LoraRecipe())
    assert sorted(train + held) == list(range(60)) and len(held) == 10
    assert not {clusters[i] for i in train} & {clusters[i] for i in held}
    alone = [str(i) for i in range(600)]
    assert len(split(alone, LoraRecipe())[1]) == 60
    assert split(alone, LoraRecipe(seed=1)) != split(alone, LoraRecipe())
    with pytest.raises(UsageError, match="at least 2 clusters"):
        split(["a", "a"], LoraRecipe())
    recipe = LoraRecipe(batch=2, accumulate=2, epochs=2)
    drawn = [recipe.drawn(step, 10) for step in range(recipe.n_steps(10))]
    assert [len(one) for one in drawn] == [4, 4, 2, 4, 4, 2]
    assert sorted(sum(drawn[:3], [])) == sorted(sum(drawn[3:], [])) == list(range(10))
    assert drawn[:3] != drawn[3:] and drawn[4] == recipe.drawn(4, 10), "whatever was drawn before"


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_training_repeats_also_with_activations_computed_twice(
    family, encoded, tokenizer, monkeypatch
) -> None:
    runs, passes = [], []
    for large, recipe in ((10**9, SMALL), (0, SMALL), (10**9, replace(SMALL, seed=1))):
        monkeypatch.setattr(lora, "LARGE", large)
        random.seed(len(runs))
        opened, calls = loaded(tokenizer, family), []
        _, inside, *_ = decoder_blocks(opened.model)[1].modules()
        inside.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        runs.append(trained(opened, encoded, recipe))
        passes.append(len(calls))
    first, again, other = runs
    assert passes[1] > passes[0] == passes[2]
    assert first.losses == again.losses != other.losses and first.held_out == again.held_out
    assert all(torch.equal(value, again.weights[name]) for name, value in first.weights.items())
    assert first.losses[-1] < first.losses[0] and first.held_out[-1][1] < first.held_out[0][1]
    assert [step for step, _ in first.held_out] == [0, 2, 3, 4, 6]


def test_fewer_dialogues_at_a_time_where_memory_ends(encoded, tokenizer, monkeypatch) -> None:
    recipe = replace(SMALL, batch=4, accumulate=1)
    whole = trained(loaded(tokenizer), encoded, recipe)
    sizes, held_out, limit = [], [], 2

    def small_memory(adapted, ids, labels):
        (sizes if torch.is_grad_enabled() else held_out).append(len(ids))
        if len(ids) > limit:
            raise RuntimeError("CUDA out of memory.")
        return answer_loss(adapted, ids, labels)

    monkeypatch.setattr(lora, "answer_loss", small_memory)
    cut = trained(loaded(tokenizer), encoded, recipe)
    assert sizes[:3] == [4, 3, 2] and set(sizes[3:]) <= {1, 2}
    assert max(held_out) > 2 >= held_out[-1]
    assert dict(cut.held_out) == pytest.approx(dict(whole.held_out), rel=1e-4)
    assert cut.losses == pytest.approx(whole.losses, rel=1e-4)
    limit = 0
    with pytest.raises(RemiError, match="not even one dialogue"):
        trained(loaded(tokenizer), encoded, recipe)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def finetune(tiny) -> Finetune:
    """Exit code of ``remi finetune`` of the tiny model, into a folder and with more words."""
    lines = [turns(*(one.content for one in each.messages)) | {"cluster": each.cluster} for each in ROWS]
    given = f"--instruct {tiny} --data {write_rows(tiny.parent / 'rows.jsonl', *lines)} --rank 2 --rate 0.01"
    words = ["finetune", *given.split(), *"--steps 6 --batch 2 --accumulate 2 --max-tokens 64".split()]
    return lambda out, *more: cli.main([*words, "--out", str(out), *more])


@pytest.fixture(scope="module")
def whole(finetune, tmp_path_factory) -> tuple[Path, str]:
    """The folder of a run that was not interrupted, and what was said."""
    folder, said = tmp_path_factory.mktemp("trained") / "whole", io.StringIO()
    with redirect_stdout(said):
        assert finetune(folder) == 0
    return folder, said.getvalue()


def test_a_killed_command_resumes_to_the_same_bytes(whole, finetune, tmp_path, monkeypatch, capsys) -> None:
    clip, done, out = training.clip_gradients, [], tmp_path / "cut"

    def dies_after_four(weights: Mapping[str, torch.nn.Parameter]) -> None:
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(1)
        clip(weights)

    with monkeypatch.context() as patch:
        patch.setattr(training, "clip_gradients", dies_after_four)
        assert finetune(out) == 130
    assert not out.exists() and "interrupted" in capsys.readouterr().err
    assert finetune(out) == 2 and "go on with --resume" in capsys.readouterr().err
    assert finetune(out, "--seed", "1", "--resume") == 2
    assert "was made with seed 0, not 1" in capsys.readouterr().err
    assert finetune(out, "--resume") == 0 and "resuming after step 4 of 6" in capsys.readouterr().out
    wanted, found = ({path.name: path.read_bytes() for path in one.iterdir()} for one in (whole[0], out))
    assert wanted.keys() == found.keys() and list(tmp_path.iterdir()) == [out]
    assert {name for name in wanted if wanted[name] != found[name]} <= {"run.json"}
    assert finetune(out, "--resume") == 0, "a queue may start it once more"
    assert finetune(out) == 2 and "it exists" in capsys.readouterr().err


def test_the_folder_is_an_adapter_that_peft_loads(tiny, whole) -> None:
    folder, said = whole
    assert "step 6/6" in said and "left" in said and "held-out loss after step 6" in said
    record, losses = (json.loads((folder / f"{name}.json").read_text()) for name in ("training", "losses"))
    assert record["recipe"]["rank"] == 2 and record["steps"] == 6 and "8 bits" in record["optimizer"]
    assert len(losses["updates"]) == 6 and losses["held out"][-1][0] == 6
    assert (folder / "losses.svg").read_bytes().startswith(b"<?xml")
    with open_model(tiny) as opened:
        ids = torch.arange(10)[None] + 20
        before = opened.model(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(opened.model, folder)
        assert (adapted(input_ids=ids).logits - before).abs().max() > 1e-3
        with adapted.disable_adapter():
            assert torch.equal(adapted(input_ids=ids).logits, before)
