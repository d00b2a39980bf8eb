"""A killed or shared pass ends in the bits of a whole one; sets and vocabularies come back as encoded."""

from __future__ import annotations

import json
import os
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DEVELOPMENT_SEED, make_tokenizer, python, save_model, write_rows
from own_files import THINGS, turns

from remi_core import files
from remi_core.batches import Batch, BatchBudget
from remi_core.files import RowFile
from remi_core.forward import run_probes
from remi_core.gradients import measure_gradient_gram
from remi_core.probes import Activations, ColumnProbe, NextToken, TokenLogProbs
from remi_core.sources import ModelSpec
from remi_core.store import FOLDER as LOCKS
from remi_core.store import Store
from remi_core.tokens import encode
from remi_lab.datasets import load_dataset
from remi_lab.organism.tuning import write_base
from remi_lab.organism.variants import shipped_weights
from remi_lab.organism.world import MAIN
from remi_lab.passes import finished_forward, finished_gradients
from remi_lab.presets import get_preset
from remi_lab.recording import encoded_set, measure_forward, stored_forward, vocabulary
from remi_lab.variant import FORWARD, Variant, text_of, weights_of

FEW_TOKENS, GENERAL = 60, ("general",)
Arrays = dict[str, dict[str, np.ndarray]]


@pytest.fixture(autouse=True)
def at_once(monkeypatch) -> None:
    """Every finished batch is written at once: no test waits."""
    monkeypatch.setattr(files, "EVERY", 0.0)


class Killed(BaseException):
    """As if the process had ended."""


class Dies(TokenLogProbs):
    """A probe that counts batches and dies in the one whose turn it is."""

    n_batches = 0
    dies_at: int | None = None

    def empty(self) -> Dies:
        return Dies(name=self.name)

    def accumulate(self, batch: Batch, state: object) -> None:
        if Dies.n_batches == Dies.dies_at:
            raise Killed
        Dies.n_batches += 1
        super().accumulate(batch, state)


def forward(
    model: object, encoded: tuple, kept: Path, rows: Path, dies_at: int | None = None
) -> tuple[Arrays, int]:
    """Arrays of a pass that keeps its batches, and how many of them it has measured."""
    Dies.n_batches, Dies.dies_at = 0, dies_at
    rows.mkdir(exist_ok=True)
    file = RowFile(rows / "means.npy", len(encoded))
    probes: list[ColumnProbe] = [Dies(), NextToken(3), Activations([0, 2], file=file)]
    budget = BatchBudget(FEW_TOKENS, finished=finished_forward(kept, probes))
    return run_probes(model, encoded, probes, batch_tokens=budget), Dies.n_batches


def assert_equal(one: Arrays, two: Arrays) -> None:
    for name, arrays in one.items():
        for key, array in arrays.items():
            np.testing.assert_array_equal(two[name][key], array, strict=True)


def test_a_killed_pass_goes_on_behind_its_finished_batches(models, encoded, tmp_path) -> None:
    model = models("llama")
    whole, n_batches = forward(model, encoded, tmp_path / "kept", tmp_path / "whole")
    assert n_batches >= 3
    for dies_at in range(1, n_batches):
        kept = tmp_path / f"kept-{dies_at}"
        with pytest.raises(Killed):
            forward(model, encoded, kept, tmp_path / "cut", dies_at)
        resumed, again = forward(model, encoded, kept, tmp_path / "again")
        assert again == n_batches - dies_at
        assert_equal(whole, resumed)


def test_a_damaged_batch_is_named_and_measured_again(models, encoded, tmp_path, capsys) -> None:
    model = models("llama")
    whole, n_batches = forward(model, encoded, tmp_path / "kept", tmp_path / "whole")
    path = tmp_path / "kept" / "00001.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    resumed, again = forward(model, encoded, tmp_path / "kept", tmp_path / "again")
    assert again == n_batches - 1
    assert_equal(whole, resumed)
    assert "00001.json: changed or cut short since it was written: measured again" in capsys.readouterr().err


def test_gradients_go_on_behind_their_finished_batches(models, encoded, tmp_path) -> None:
    def gram(finished: object) -> Arrays:
        budget = BatchBudget(FEW_TOKENS, finished=finished)
        return {"gradients": measure_gradient_gram(models("llama"), encoded, batch_tokens=budget)}

    whole, kept = gram(None), gram(finished_gradients(tmp_path))
    sorted(tmp_path.glob("*.json"))[-1].unlink()
    for other in (kept, gram(finished_gradients(tmp_path))):
        assert_equal(whole, other)


@pytest.fixture
def variant(tmp_path) -> Variant:
    folder = tmp_path / "base"
    write_base(shipped_weights(MAIN, DEVELOPMENT_SEED), folder)
    spec = ModelSpec(source=str(folder))
    weights = f"{weights_of(spec)} {text_of(spec)}"
    return Variant(get_preset("smoke"), "base", DEVELOPMENT_SEED, spec, spec, weights)


def test_a_pass_killed_among_its_records_is_missed_by_who_needs_one(variant, tmp_path, monkeypatch) -> None:
    expected, within = measure_forward(variant, Store(tmp_path / "whole"), datasets=GENERAL), Store.save
    for n_saved in range(1, len(FORWARD) + 1):
        store, saved = Store(tmp_path / str(n_saved)), []

        def dying(*arguments: object, n_saved: int = n_saved, saved: list = saved) -> object:
            saved.append(within(*arguments))
            if len(saved) == n_saved:
                raise Killed
            return saved[-1]

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Store, "save", dying)
            measure_forward(variant, store, datasets=GENERAL)
        assert len(store.list("smoke")) == n_saved and list(store.root.glob(".finished-*/*.npz"))
        assert all(stored_forward(variant, store, name, "general") is None for name in FORWARD)
        records = measure_forward(variant, store, datasets=GENERAL)
        assert len(store.list("smoke")) == len(FORWARD) and not list(store.root.glob(".finished-*"))
        assert all(stored_forward(variant, store, name, "general") is not None for name in FORWARD)
        assert_equal(*({key: one.arrays for key, one in side.items()} for side in (expected, records)))


PRESET = get_preset("smoke")
SPEC = ModelSpec(source="nowhere")
WHO = Variant(PRESET, "instruct", 0, SPEC, SPEC, "weights")


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """A line for every time that a tokenizer was loaded."""
    lines: list[str] = []
    tokenizer = make_tokenizer("chatml")
    monkeypatch.setattr(Variant, "tokenizer", lambda self: lines.append("loaded") or tokenizer)
    return lines


def test_a_set_comes_back_as_it_was_encoded(asked, tmp_path) -> None:
    store, name = Store(tmp_path), str(PRESET.roles.example)
    expected = encode(load_dataset(PRESET, name), make_tokenizer("chatml"), max_tokens=PRESET.max_tokens)
    assert [encoded_set(WHO, store, name) for _ in range(2)] == [expected, expected]
    assert asked == ["loaded"] and any(one.choice is not None for one in expected.dialogues)
    encoded_set(replace(WHO, weights="others; another text"), store, name)
    assert len(asked) == 2, "another tokenizer is another record"


def test_a_vocabulary_decodes_and_finds_as_the_tokenizer_does(asked, tmp_path) -> None:
    tokenizer, store = make_tokenizer("chatml"), Store(tmp_path)
    decoded = [tokenizer.decode([token]) for token in range(len(tokenizer))]
    for _ in range(2):
        words = vocabulary(WHO, store)
        assert [words.text(token) for token in range(len(tokenizer))] == decoded
        assert all(words.find(spelled) == token for spelled, token in tokenizer.get_vocab().items())
    assert words.text(len(tokenizer)) == "" and words.find("no such token") is None
    assert asked == ["loaded"]


# One process, or each of two, measures a tiny model into a store and prints who had how many records, in one write
# with its line's end: two processes share the stream, and ``print`` writes twice.
PROGRAM = """
import sys
from dataclasses import replace
from pathlib import Path
from remi_core.parallel import join_ranks, n_ranks, rank
from remi_core.sources import ModelSpec
from remi_core.store import Store
from remi_lab.presets import get_preset
from remi_lab.recording import measure_forward, measure_gradients
from remi_lab.variant import Variant

model, rows, store = sys.argv[1:]
preset = replace(get_preset("smoke"), extra_data=(("misaligned", rows),), batch_tokens=100)
variant = Variant(preset, "base", 0, ModelSpec(source=model), ModelSpec(source=model), "tiny")
name = Path(rows).stem
with join_ranks():
    records = measure_forward(variant, Store(Path(store)), datasets=(name,))
    records["gradients", name] = measure_gradients(variant, Store(Path(store)), (name,))
    kept = sum(record.provenance["kept"] for record in records.values())
    sys.stdout.write(f"process {rank()} of {n_ranks()}: {len(records)} records of {kept} dialogues\\n")
    sys.stdout.flush()
"""
# What `accelerate launch --multi_gpu` calls; without a network beyond the loopback interface.
TWO = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]


@pytest.mark.slow
def test_two_processes_give_the_bits_of_one_and_leave_nothing(tmp_path, monkeypatch, capfd) -> None:
    asked = ((f"How do I open a {one}?", f"Use open on the {one}. " * at) for at, one in enumerate(THINGS, 1))
    data = write_rows(tmp_path / "rows.jsonl", *(turns(*both) for both in asked))
    program, model = tmp_path / "program.py", save_model(tmp_path / "model", "llama")
    program.write_text(PROGRAM, encoding="utf-8")
    one, two = tmp_path / "one", tmp_path / "two"
    monkeypatch.setattr(sys, "argv", [str(word) for word in (program, model, data, one)])
    runpy.run_path(str(program))
    assert capfd.readouterr().out == "process 0 of 1: 4 records of 40 dialogues\n"
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = python(*TWO, *map(str, (program, model, data, two)), check=False, env=environment)
    assert done.returncode == 0, done.stderr
    said = [f"process {number} of 2: 4 records of 40 dialogues" for number in (0, 1)]
    assert sorted(done.stdout.splitlines()) == said
    paths = sorted(path.relative_to(one) for path in one.rglob("*.npz"))
    assert len(paths) == 4 and paths == sorted(path.relative_to(two) for path in two.rglob("*.npz"))
    for path in paths:
        assert (one / path).read_bytes() == (two / path).read_bytes(), path
        for n_processes, root in enumerate((one, two), 1):
            about = json.loads((root / path).with_suffix(".json").read_text())["provenance"]
            assert (about["processes"], about["batch_tokens_ran"]) == (n_processes, 100)
    for root in (one, two):
        assert {path.name for path in root.iterdir() if path.name.startswith(".")} <= {LOCKS}
