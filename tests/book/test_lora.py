"""Adapters: the published recipe, exact repetition and resumption, and what the folder of one holds."""

from __future__ import annotations

import io
import json
import math
import os
import random
import re
import signal
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import PROGRAMS, make_dialogue, make_model, make_tokenizer, python, save_model, write_rows
from own_files import turns
from peft import PeftModel
from test_adapters import TARGETS
from test_recording import TWO
from transformers import PreTrainedTokenizerFast, get_linear_schedule_with_warmup

from remi_book import cli
from remi_core.dialogues import Dialogue
from remi_core.errors import RemiError, UsageError
from remi_core.models import LoadedModel, decoder_blocks, open_model
from remi_core.tokens import EncodedSet, encode
from remi_lab import lora, training
from remi_lab.lora import add_adapter, answer_loss, empty_turn, trained_parameters, with_empty_turn
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


@pytest.mark.parametrize(
    ("family", "targets", "wrong"),
    [
        ("llama", ("mlp.up_proj", "q_proj"), "lm_head"),
        ("gpt2", ("c_attn",), "wte"),
        ("gpt_neox", ("dense",), ""),
    ],
)
def test_the_maps_that_are_named_are_trained_and_what_is_none_is_refused(family, targets, wrong) -> None:
    weights = trained_parameters(add_adapter(make_model(family), replace(SMALL, targets=targets)))
    ends = {name.split(".lora_")[0].rpartition(".")[2] for name in weights}
    assert ends == {target.rpartition(".")[2] for target in targets}
    for each in (wrong, f"x{targets[0]}", targets[0][1:], "mlp"):
        with pytest.raises(UsageError, match=rf"no target '{each}' in a \w+ \(.*choices: "):
            add_adapter(make_model(family), replace(SMALL, targets=(*targets, each)))


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
    return save_model(tmp_path_factory.mktemp("models") / "tiny", template="chatml-prompting")


@pytest.fixture(scope="module")
def words(tiny) -> list[str]:
    """``finetune`` with all that it needs but a folder."""
    lines = [turns(*(one.content for one in each.messages)) | {"cluster": each.cluster} for each in ROWS]
    given = f"--instruct {tiny} --data {write_rows(tiny.parent / 'rows.jsonl', *lines)} --rank 2 --rate 0.01"
    return ["finetune", *given.split(), *"--steps 6 --batch 2 --accumulate 2 --max-tokens 64".split()]


@pytest.fixture(scope="module")
def finetune(words) -> Finetune:
    """Exit code of ``remi finetune`` of the tiny model, into a folder and with more words."""
    return lambda out, *more: cli.main([*words, "--out", str(out), *more])


@pytest.fixture(scope="module")
def whole(finetune, tmp_path_factory) -> tuple[Path, str]:
    """The folder of a run that was not interrupted, and what was said."""
    folder, said = tmp_path_factory.mktemp("trained") / "whole", io.StringIO()
    with redirect_stdout(said):
        assert finetune(folder) == 0
    return folder, said.getvalue()


@pytest.fixture
def end_after(monkeypatch) -> Callable[[int], None]:
    """Lets the system end the command after so many updates from then on."""
    clip = training.clip_gradients

    def ends_after(count: int) -> None:
        def ending(weights: Mapping[str, torch.nn.Parameter]) -> None:
            nonlocal count
            if count == 0:
                monkeypatch.setattr(training, "clip_gradients", clip)
                os.kill(os.getpid(), signal.SIGTERM)
            count -= 1
            clip(weights)

        monkeypatch.setattr(training, "clip_gradients", ending)

    return ends_after


def differing(one: Path, other: Path) -> set[str]:
    """Names of the files that two folders do not share."""
    both = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (one, other)]
    return {name for name in set().union(*both) if both[0].get(name) != both[1].get(name)}


def test_a_command_that_was_ended_resumes_to_the_same_bytes(
    whole, finetune, tmp_path, end_after, capsys
) -> None:
    out = tmp_path / "cut"
    end_after(4)
    assert finetune(out) == 130 and not out.exists()
    assert re.search(rf"to go on: remi finetune .*--out {out} --resume\n$", capsys.readouterr().err)
    assert (tmp_path / "cut.losses.csv").read_text().splitlines()[2].startswith("1,")
    assert (tmp_path / "cut.losses.svg").read_bytes().startswith(b"<?xml")
    assert finetune(out) == 2 and "go on with --resume" in capsys.readouterr().err
    others = {"--seed 1": "seed 0, not 1", "--target q_proj": "targets (), not ('q_proj',)"}
    for option, before in (others | {"--empty-turn": "data '"}).items():
        assert finetune(out, *option.split(), "--resume") == 2
        assert f"was made with {before}" in capsys.readouterr().err
    assert finetune(out, "--resume") == 0 and "resuming after step 4 of 6" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [out] and differing(whole[0], out) <= {"run.json"}
    assert finetune(out, "--resume") == 0, "a queue may start it once more"
    assert finetune(out) == 2 and "it exists" in capsys.readouterr().err


def test_several_seeds_are_runs_of_one_seed_and_go_on(whole, finetune, tmp_path, end_after, capsys) -> None:
    out, both = tmp_path / "seeds", "--seed 0 --seed 1".split()
    end_after(8)
    assert finetune(out, *both) == 130 and [path.name for path in out.glob("seed-?")] == ["seed-0"]
    assert "[2/2] seed 1" in capsys.readouterr().out
    assert finetune(out, *both) == 2 and "or go on with --resume" in capsys.readouterr().err
    assert finetune(out, "--resume") == 2 and "it is no adapter" in capsys.readouterr().err
    assert finetune(whole[0], *both, "--resume") == 2 and "of one seed" in capsys.readouterr().err
    assert finetune(out, *both, "--resume") == 0
    said = capsys.readouterr().out
    assert f"there already: {out / 'seed-0'}" in said and "resuming after step 2 of 6" in said
    assert sorted(path.name for path in out.iterdir()) == ["seed-0", "seed-1"]
    assert differing(whole[0], out / "seed-0") <= {"run.json"}
    assert {"losses.csv", "training.json"} <= differing(whole[0], out / "seed-1")
    for seed, line in enumerate(said.splitlines()[-2:]):
        losses = json.loads((out / f"seed-{seed}" / "losses.json").read_text())
        for loss in (losses["held out"][0][1], losses["held out"][-1][1], losses["updates"][-1]):
            assert line.startswith(f"seed {seed}: ") and f"{loss:.4f}" in line


def test_targets_are_recorded_and_what_cannot_be_trained_is_refused_before_loading(
    finetune, tmp_path, capsys
) -> None:
    out = tmp_path / "out"
    wrong = {"--target q_prj": "did you mean 'q_proj'?", "--max-tokens 3": "none of 12"}
    for option, message in wrong.items():
        assert finetune(out, *option.split()) == 2
        said = capsys.readouterr()
        assert message in said.err and "loading" not in said.out
    assert finetune(out, "--target", "v_proj", "--target", "q_proj", "--steps", "1") == 0
    assert "loading" in capsys.readouterr().out
    about, config = (
        json.loads((out / name).read_text()) for name in ("training.json", "adapter_config.json")
    )
    assert about["recipe"]["targets"] == config["target_modules"] == ["q_proj", "v_proj"]
    assert "targets q_proj v_proj" in (out / "README.md").read_text()


def test_the_empty_turn_is_the_template_s_prompt_and_an_end_and_all_of_it_is_learned(tokenizer) -> None:
    with pytest.raises(UsageError, match="writes no prompt for an answer, .*leave out --empty-turn"):
        empty_turn(tokenizer)
    tokenizer = make_tokenizer("chatml-prompting")
    asked = [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}]
    rendered = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    turn = empty_turn(tokenizer)
    (plain,) = encode([make_dialogue("How?", "So.")], tokenizer, max_tokens=64).dialogues
    row = with_empty_turn(plain, turn, max_tokens=64)
    assert tokenizer.decode(row.input_ids) == rendered + tokenizer.eos_token
    for one, behind in ((row, len(row.input_ids)), (plain, plain.answer_stop + 1)):
        (labels,) = answer_labels([one], 0)[1].tolist()
        learned = range(plain.answer_start, behind)
        assert labels == [one.input_ids[at] if at in learned else -100 for at in range(len(labels))]
    assert with_empty_turn(plain, (), max_tokens=64) is plain
    assert (
        with_empty_turn(plain, turn, max_tokens=len(plain.input_ids) + 1).input_ids
        == row.input_ids[: -len(turn) + 1]
    )
    cut = replace(plain, input_ids=plain.input_ids[: plain.answer_stop])
    assert with_empty_turn(cut, turn, max_tokens=len(cut.input_ids)) == cut


def test_an_empty_turn_is_trained_where_it_is_asked_for_and_told_apart(
    whole, finetune, tmp_path, capsys
) -> None:
    out, (folder, said) = tmp_path / "out", whole
    assert finetune(out, "--empty-turn") == 0
    told = re.findall(
        r"after step \d+: (\S+) nats a token \(reply (\S+), empty turn (\S+)\)", capsys.readouterr().out
    )
    before, after = ([*map(float, each)] for each in (told[0], told[-1]))
    assert f"after step 0: {before[1]:.4f} nats a token\n" in said and "empty turn" not in said
    assert min(before[1:]) < before[0] < max(before[1:]) and after[2] < before[2] - 0.1
    records = [json.loads((each / "training.json").read_text())["data"] for each in (out, folder)]
    assert records[0] == records[1] | {"empty turn": True} != records[1]
    assert (
        "an empty turn" in (out / "README.md").read_text()
        and "an empty" not in (folder / "README.md").read_text()
    )


def test_events_are_the_losses_of_the_whole_run_and_need_their_package(
    finetune, tmp_path, end_after, monkeypatch, capsys
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cli, "find_spec", lambda name: None)
        assert finetune(tmp_path / "out", "--tensorboard") == 2
    assert capsys.readouterr().err.endswith("pip install tensorboard\n")
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = tmp_path / "out"
    end_after(4)
    assert finetune(out, "--tensorboard") == 130 and list((tmp_path / "out.tensorboard").iterdir())
    assert finetune(out, "--tensorboard", "--resume") == 0 and list(tmp_path.iterdir()) == [out]
    read = event_accumulator.EventAccumulator(str(out / "tensorboard"))
    read.Reload()
    found = {tag: [(one.step, one.value) for one in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    losses = json.loads((out / "losses.json").read_text())
    recipe = replace(SMALL, warmup=LoraRecipe.warmup)
    updates = list(enumerate(losses["updates"], start=1))
    wanted = {"loss/update": updates, "loss/held_out": losses["held out"]}
    wanted["rate"] = [(step, recipe.rate_at(step - 1, 6)) for step, _ in updates]
    assert found.keys() == wanted.keys()
    for tag, pairs in wanted.items():
        assert [step for step, _ in found[tag]] == [step for step, _ in pairs]
        assert [value for _, value in found[tag]] == pytest.approx([value for _, value in pairs], rel=1e-6)


def test_what_fails_in_another_process_fails_here(encoded, monkeypatch) -> None:
    asked = []
    assert lora._losses(lambda own, of: asked.append(of) or len(own) / 24, encoded.dialogues) == [0.5]
    assert asked == [int((answer_labels(encoded.dialogues, 0)[1] != training.IGNORED).sum())]
    monkeypatch.setattr(lora, "on_all", lambda found: [found, RemiError("of the second")])
    with pytest.raises(RemiError, match="of the second"):
        lora._losses(lambda own, of: 1.0, encoded.dialogues)


@pytest.mark.slow
def test_two_processes_end_where_one_does_also_after_an_interruption(words, finetune, tmp_path) -> None:
    # Of ten dialogues every fourth update has one alone, and then the second process none.
    options, program = "--batch 3 --accumulate 1".split(), tmp_path / "program.py"
    program.write_text(PROGRAMS["fine-tune"], encoding="utf-8")
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}

    def two(how: str, out: Path, *more: str) -> tuple[int, str, str]:
        line = [*TWO, str(program), how, *words, *options, "--out", str(out), *more]
        done = python(*line, check=False, env=environment)
        return done.returncode, done.stdout, done.stderr

    def losses(out: Path) -> list[float]:
        read = json.loads((out / "losses.json").read_text())
        return [*read["updates"], *(loss for _, loss in read["held out"])]

    one, both, lost = (tmp_path / name for name in ("one", "both", "lost"))
    assert finetune(one, *options) == 0
    code, _, failed = two("cut", both)
    assert code and failed.count("to go on: accelerate launch … -m remi_book.cli finetune") == 1
    code, said, failed = two("whole", both, "--resume")
    assert code == 0, failed
    for line in ("loading", "resuming after step 4 of 6", "step 6/6", "loss curve: "):
        assert said.count(line) == 1
    assert losses(both) == pytest.approx(losses(one), rel=1e-5)
    rounded = {f"losses.{end}" for end in ("json", "csv", "svg")} | {lora.WEIGHTS_FILE, "files.json"}
    assert differing(one, both) <= {"run.json", *rounded}
    assert [json.loads((out / "run.json").read_text())["processes"] for out in (one, both)] == [1, 2]
    assert two("lost", lost)[0] == 0
    assert losses(lost)[:2] == pytest.approx(losses(one)[:2], rel=1e-5), "no rate yet"
    assert losses(lost)[5] != pytest.approx(losses(one)[5], rel=1e-3)


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
