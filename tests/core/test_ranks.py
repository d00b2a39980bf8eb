"""Processes that share a pass give the bits of one process, and store them once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_model, make_tokenizer
from own_files import THINGS, turns, write

from remi_core import batches, parallel
from remi_core.batches import Batch, BatchBudget, share_batches
from remi_core.store import FOLDER as LOCKS
from remi_core.tokens import EncodedDialogue

SCRIPT = Path(__file__).parents[1] / "spread_passes.py"
# What `accelerate launch --multi_gpu` calls; without a network beyond the loopback interface.
TWO = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
PROCESSES = {"one": [], "two": TWO}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Store and output of one process, and of two."""
    folder = tmp_path_factory.mktemp("ranks")
    make_model("llama").save_pretrained(folder / "model")
    make_tokenizer("chatml").save_pretrained(folder / "model")
    rows = [
        turns(f"How do I open a {one}?", f"Use open on the {one}. " * (at + 1))
        for at, one in enumerate(THINGS)
    ]
    place = write(folder / "rows.jsonl", rows)
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    found = {}
    for name, launcher in PROCESSES.items():
        words = [str(folder / "model"), str(place), str(folder / name)]
        done = subprocess.run(
            [sys.executable, *launcher, str(SCRIPT), *words], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        found[name] = folder / name, done.stdout
    return found


@pytest.mark.slow
def test_two_processes_give_the_bits_of_one(stores: dict[str, tuple[Path, str]]) -> None:
    one, two = (stores[name][0] for name in PROCESSES)
    paths = sorted(path.relative_to(one) for path in one.rglob("*.npz"))
    assert len(paths) == 4 and paths == sorted(path.relative_to(two) for path in two.rglob("*.npz"))
    for path in paths:
        assert (one / path).read_bytes() == (two / path).read_bytes(), path
        about = [
            json.loads((root / path).with_suffix(".json").read_text())["provenance"] for root in (one, two)
        ]
        assert [each["processes"] for each in about] == [1, 2]
        assert about[0]["batch_tokens_ran"] == about[1]["batch_tokens_ran"] == 100


@pytest.mark.slow
def test_all_processes_have_the_records_and_nothing_is_left(stores: dict[str, tuple[Path, str]]) -> None:
    assert stores["one"][1].split("\n")[:-1] == ["process 0 of 1: 4 records of 40 dialogues"]
    assert sorted(stores["two"][1].split("\n"))[1:] == [
        f"process {number} of 2: 4 records of 40 dialogues" for number in (0, 1)
    ]
    for root, _ in stores.values():
        assert {path.name for path in root.iterdir() if path.name.startswith(".")} <= {LOCKS}


def test_a_batch_that_another_process_lost_is_cut_anew_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the first of two, and hears that the second one's batch did not fit."""
    lengths = [8, 8, 8, 8, 4, 4, 2, 2]
    encoded = [
        EncodedDialogue(identifier=str(at), input_ids=(1,) * length, answer_start=1, answer_stop=length)
        for at, length in enumerate(lengths)
    ]
    turns: list[list[int]] = []
    monkeypatch.setattr(batches, "n_ranks", lambda: 2)
    monkeypatch.setattr(batches, "on_all", lambda fits: [fits, len(turns) != 1])
    monkeypatch.setattr(batches, "on_first", lambda part: [part, None if len(turns) == 1 else "other"])

    def measure(batch: Batch) -> str:
        turns.append(batch.indices.tolist())
        return "own"

    kept: list[tuple[str, list[int]]] = []
    budget = BatchBudget(16)
    share_batches(encoded, budget, measure=measure, keep=lambda group, part: kept.append((part, list(group))))
    assert budget.ran == 8 and budget.n_out_of_memory == 1
    assert kept == [("own", [0, 1]), ("own", [2]), ("other", [3]), ("own", [4, 5]), ("other", [6, 7])]
    assert turns == [group for part, group in kept if part == "own"]


def test_nothing_is_joined_where_nothing_was_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with parallel.join_ranks(), parallel.first_goes_first():
        assert (parallel.rank(), parallel.n_ranks(), parallel.local_ranks(), parallel.own_card()) == (
            0,
            1,
            1,
            [],
        )
        assert parallel.on_all("a") == parallel.on_first("a") == ["a"]
