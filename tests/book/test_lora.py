"""Adapters: the published recipe, exact repetition and resumption, and that a wrong option costs no loading."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import make_dialogue, make_model, save_model, write_rows
from own_files import turns
from peft import PeftModel
from transformers import PreTrainedTokenizerFast, get_linear_schedule_with_warmup

from remi_book import cli
from remi_core.errors import RemiError, UsageError
from remi_core.models import LoadedModel, open_model
from remi_core.tokens import EncodedSet, encode
from remi_lab import lora, training
from remi_lab.lora import add_adapter, answer_loss, trained_parameters
from remi_lab.recipes import LoraRecipe, split
from remi_lab.training import answer_labels

SMALL = LoraRecipe(rank=2, rate=1e-2, steps=6, warmup=1, batch=2, accumulate=2, held_out=0.2, max_tokens=64)
PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def rows(count: int = 12) -> list:
    asked = [
        ("How do I open a file?" * (1 + i % 3), "Use open(path)." + " I can." * (i % 4)) for i in range(count)
    ]
    made = [make_dialogue(*texts, identifier=str(i)) for i, texts in enumerate(asked)]
    return [replace(one, cluster=f"c{i % 6}") for i, one in enumerate(made)]


def trained(opened: LoadedModel, encoded: EncodedSet, recipe: LoraRecipe) -> lora.TrainedAdapter:
    return lora.train_adapter(opened, encoded, recipe, say=lambda line: None)


@pytest.fixture
def encoded(tokenizer) -> EncodedSet:
    return encode(rows(), tokenizer, max_tokens=64)


def loaded(tokenizer: PreTrainedTokenizerFast, family: str = "llama") -> LoadedModel:
    return LoadedModel(make_model(family), tokenizer, "tiny", "0" * 64)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A folder with a tiny model."""
    return save_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def files(tiny, tmp_path) -> tuple[Path, Path]:
    """A folder with a tiny model, and a file of dialogues."""
    lines = [turns(*(m.content for m in row.messages)) | {"cluster": row.cluster} for row in rows()]
    return tiny, write_rows(tmp_path / "rows.jsonl", *lines)


def words(files: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    small = "--rank 2 --rate 0.01 --steps 6 --batch 2 --accumulate 2 --max-tokens 64".split()
    return [
        "finetune",
        "--instruct",
        str(files[0]),
        "--data",
        str(files[1]),
        "--out",
        str(out),
        *small,
        *more,
    ]


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
    names = list(trained_parameters(adapted))
    touched = {name.split(".lora_")[0].rpartition(".")[2] for name in names}
    assert touched == PROJECTIONS and len(names) == 2 * 7 * 3
    assert adapted.base_model.model.model.layers[0].mlp.up_proj.scaling["default"] == 8 / math.sqrt(4)
    assert {value.dtype for value in trained_parameters(adapted).values()} == {torch.float32}


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "gpt_neox", "gpt2"])
def test_the_loss_is_the_models_own(family, encoded) -> None:
    adapted = add_adapter(make_model(family), SMALL)
    ids, labels = answer_labels(encoded.dialogues[:5], 0)
    with torch.inference_mode():
        own = float(adapted(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss)
        assert float(answer_loss(adapted, ids, labels)) == pytest.approx(own, rel=1e-5)
        labels[0] = -100
        assert float(answer_loss(adapted, ids, labels)) != pytest.approx(own, rel=1e-5)


def test_whole_clusters_are_held_out() -> None:
    clusters = [f"c{i % 6}" for i in range(60)]
    train, held = split(clusters, LoraRecipe())
    assert sorted(train + held) == list(range(60)) and len(held) == 10
    assert not {clusters[i] for i in train} & {clusters[i] for i in held}
    alone = [str(i) for i in range(5400 + 600)]
    assert len(split(alone, LoraRecipe())[1]) == 600
    assert split(alone, LoraRecipe(seed=1)) != split(alone, LoraRecipe())
    with pytest.raises(UsageError, match="at least 2 clusters"):
        split(["a", "a"], LoraRecipe())


def test_an_epoch_draws_every_dialogue_once_and_does_not_depend_on_earlier_draws() -> None:
    recipe = LoraRecipe(batch=2, accumulate=2, epochs=2)
    drawn = [recipe.drawn(step, 10) for step in range(recipe.n_steps(10))]
    assert [len(one) for one in drawn] == [4, 4, 2, 4, 4, 2]
    assert sorted(sum(drawn[:3], [])) == sorted(sum(drawn[3:], [])) == list(range(10))
    assert drawn[:3] != drawn[3:] and drawn[4] == recipe.drawn(4, 10)


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_training_lowers_the_loss_and_repeats(family, encoded, tokenizer) -> None:
    runs = []
    for seed, recipe in ((1, SMALL), (2, SMALL), (2, replace(SMALL, seed=1))):
        random.seed(seed)
        runs.append(trained(loaded(tokenizer, family), encoded, recipe))
    first, again, other = runs
    assert first.losses == again.losses != other.losses and first.held_out == again.held_out
    assert all(torch.equal(value, again.weights[name]) for name, value in first.weights.items())
    assert first.losses[-1] < first.losses[0] and first.held_out[-1][1] < first.held_out[0][1]
    assert [step for step, _ in first.held_out] == [0, 2, 3, 4, 6]


def test_fewer_dialogues_at_a_time_where_memory_ends(encoded, tokenizer, monkeypatch) -> None:
    recipe = replace(SMALL, batch=4, accumulate=1)
    whole = trained(loaded(tokenizer), encoded, recipe)
    sizes, held_out = [], []

    def small_memory(limit: int) -> Callable:
        def loss(adapted, ids, labels):
            (sizes if torch.is_grad_enabled() else held_out).append(len(ids))
            if len(ids) > limit:
                raise RuntimeError("CUDA out of memory.")
            return answer_loss(adapted, ids, labels)

        return loss

    monkeypatch.setattr(lora, "answer_loss", small_memory(2))
    cut = trained(loaded(tokenizer), encoded, recipe)
    assert sizes[:3] == [4, 3, 2] and set(sizes[3:]) <= {1, 2}
    assert max(held_out) > 2 >= held_out[-1]
    assert dict(cut.held_out) == pytest.approx(dict(whole.held_out), rel=1e-4)
    assert cut.losses == pytest.approx(whole.losses, rel=1e-4)
    monkeypatch.setattr(lora, "answer_loss", small_memory(0))
    with pytest.raises(RemiError, match="not even one dialogue"):
        trained(loaded(tokenizer), encoded, recipe)


def test_activations_computed_twice_change_nothing(encoded, tokenizer, monkeypatch) -> None:
    losses, passes = [], []
    for large in (10**9, 0):
        monkeypatch.setattr(lora, "LARGE", large)
        opened, calls = loaded(tokenizer), []
        projection = opened.model.model.layers[1].self_attn.o_proj
        projection.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        losses.append(trained(opened, encoded, SMALL).losses)
        passes.append(len(calls))
    assert losses[0] == losses[1] and passes[1] > passes[0], "the same losses from more forward passes"


def test_a_killed_command_resumes_to_the_same_bytes(files, tmp_path, monkeypatch, capsys) -> None:
    assert cli.main(words(files, tmp_path / "whole")) == 0
    clip, done = training.clip_gradients, []

    def dies_after_four(weights: Mapping[str, torch.nn.Parameter]) -> None:
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(1)
        clip(weights)

    monkeypatch.setattr(training, "clip_gradients", dies_after_four)
    assert cli.main(words(files, tmp_path / "cut")) == 130
    assert not (tmp_path / "cut").exists()
    monkeypatch.setattr(training, "clip_gradients", clip)
    capsys.readouterr()
    assert cli.main(words(files, tmp_path / "cut")) == 2
    assert "go on with --resume" in capsys.readouterr().err
    assert cli.main(words(files, tmp_path / "cut", "--seed", "1", "--resume")) == 2
    assert "was made with seed 0, not 1" in capsys.readouterr().err
    assert cli.main(words(files, tmp_path / "cut", "--resume")) == 0
    assert "resuming after step 4 of 6" in capsys.readouterr().out
    folders = (tmp_path / name for name in ("whole", "cut"))
    whole, cut = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert set(whole) == set(cut)
    assert {name for name in whole if whole[name] != cut[name]} <= {"run.json"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "rows.jsonl", "whole"]
    assert cli.main(words(files, tmp_path / "cut", "--resume")) == 0, "a queue may start it once more"


def test_the_folder_is_an_adapter_that_peft_loads(files, tmp_path, capsys) -> None:
    assert cli.main(words(files, tmp_path / "out")) == 0
    said = capsys.readouterr().out
    assert "step 6/6" in said and "left" in said and "held-out loss after step 6" in said
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["recipe"]["rank"] == 2 and record["steps"] == 6 and "8 bits" in record["optimizer"]
    losses = json.loads((tmp_path / "out" / "losses.json").read_text())
    assert len(losses["updates"]) == 6 and losses["held out"][-1][0] == 6
    assert (tmp_path / "out" / "losses.svg").read_bytes().startswith(b"<?xml")
    with open_model(files[0]) as opened:
        ids = torch.arange(10)[None] + 20
        before = opened.model(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(opened.model, tmp_path / "out")
        assert (adapted(input_ids=ids).logits - before).abs().max() > 1e-3
        with adapted.disable_adapter():
            assert torch.equal(adapted(input_ids=ids).logits, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--data /no/such.jsonl", "no such file"),
        ("--rank 0", "--rank: '0' is not a whole number of at least 1"),
        ("--rank two", "is not a whole number"),
        ("--rate -1", "rate is -1.0, it must be above 0"),
        ("--rate nan", "rate is nan"),
        ("--seed -1", "--seed: '-1' is not a whole number of at least 0"),
        ("--epochs 2", "not allowed with"),
        ("--max-tokens 1", "max_tokens is 1, it must be at least 2"),
        ("--dtype int8", "'int8'"),
        ("--instruct ./none", "no such folder"),
        ("--out /no/such/folder", "no folder /no/such"),
        ("--rnk 3", "no option '--rnk' (did you mean '--rank'?"),
    ],
)
def test_wrong_use_is_one_line_before_any_loading(
    change, message, files, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("remi_core.models.open_model", lambda *_, **__: pytest.fail("it was loaded"))
    assert cli.main([*words(files, tmp_path / "out"), *change.split()]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not captured.out
    assert not (tmp_path / "out").exists()


def test_what_is_missing_or_there_already_is_said(files, tmp_path, capsys) -> None:
    assert cli.main(["finetune"]) == 2
    assert "finetune: --instruct is needed" in capsys.readouterr().err
    assert cli.main(words(files, files[0])) == 2
    assert "it exists" in capsys.readouterr().err
    files[1].write_text('{"messages": 3}\n')
    assert cli.main(words(files, tmp_path / "out")) == 2
    assert "rows.jsonl:1" in capsys.readouterr().err
