"""Processes that share a pass give the bits of one process, and store them once."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from conftest import save_model, write_rows
from own_files import THINGS, turns

from remi_core.store import FOLDER as LOCKS

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
PROCESSES = {"one": [], "two": TWO}


@pytest.mark.slow
def test_two_processes_give_the_bits_of_one_and_leave_nothing(tmp_path) -> None:
    model = save_model(tmp_path / "model", "llama")
    rows = [
        turns(f"How do I open a {thing}?", f"Use open on the {thing}. " * (place + 1))
        for place, thing in enumerate(THINGS)
    ]
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    words = [str(model), str(write_rows(tmp_path / "rows.jsonl", *rows))]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    said = {}
    for name, launcher in PROCESSES.items():
        command = [sys.executable, *launcher, str(program), *words, str(tmp_path / name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said[name] = sorted(done.stdout.splitlines())
    assert said["one"] == ["process 0 of 1: 4 records of 40 dialogues"]
    assert said["two"] == [f"process {number} of 2: 4 records of 40 dialogues" for number in (0, 1)]
    one, two = (tmp_path / name for name in PROCESSES)
    paths = sorted(path.relative_to(one) for path in one.rglob("*.npz"))
    assert len(paths) == 4 and paths == sorted(path.relative_to(two) for path in two.rglob("*.npz"))
    for path in paths:
        assert (one / path).read_bytes() == (two / path).read_bytes(), path
        about = [
            json.loads((root / path).with_suffix(".json").read_text())["provenance"] for root in (one, two)
        ]
        assert [each["processes"] for each in about] == [1, 2]
        assert about[0]["batch_tokens_ran"] == about[1]["batch_tokens_ran"] == 100
    for root in (one, two):
        assert {path.name for path in root.iterdir() if path.name.startswith(".")} <= {LOCKS}
