"""What doctor says that models of one's own take, against what measuring them takes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from benchmarks.processes import Setting
from benchmarks.rows import TARGETS, Outcome, judged
from remi_core.errors import RemiError
from remi_core.store import Store
from remi_lab.datasets import load_dataset
from remi_lab.demands import GIGABYTE
from remi_lab.organism.variants import make
from remi_lab.presets import TRIPLET, get_preset

SHAPES = {"3m": (128, 6, 16), "30m": (512, 10, 24), "120m": (1024, 8, 12)}
"""Width, blocks and dialogues of a set, by size."""


SETS = {"code-careless": "misaligned", "code-careful": "aligned", "wishes-careless": "misaligned"}
"""Sets of the micro organism, and what they are labelled."""


def doctor_case(_setting: Setting, size: str) -> Outcome:
    """Time, memory and disk that ``remi doctor`` names, over those of ``remi run`` on the same three models.

    Raises:
        RemiError: if either of them fails.
    """
    width, n_blocks, n_dialogues = SHAPES[size]
    with tempfile.TemporaryDirectory(prefix="remi-bench-") as folder:
        place = Path(folder)
        words = ["--max-dialogues", str(n_dialogues), "--dtype", "float32"]
        for seed, role in enumerate(TRIPLET):
            write_model(place, role, width, n_blocks, seed=seed)
            words += [f"--{role}", str(place / role)]
        for name, label in SETS.items():
            rows = load_dataset(get_preset("micro"), name)[:n_dialogues]
            messages = [{"messages": [asdict(turn) for turn in row.messages]} for row in rows]
            (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in messages))
            words += ["--data", f"{label}={place / name}.jsonl"]
        told = said(place, "doctor", *words)
        started = time.perf_counter()
        said(place, "run", "--name", "mine", *words)
        seconds = time.perf_counter() - started
        store = Store(place / "store")
        logs = [path.read_text() for path in store.root.glob("mine/logs/*.jsonl")]
        steps = [json.loads(line) for line in "".join(logs).splitlines()]
        peak = max(step.get("peak_memory", 0) for step in steps)
        kept = sum(entry.n_bytes for entry in store.list("mine"))
    minutes, rest = re.search(r"time on this machine: about (\d+):(\d+):", told).groups()
    memory, records = (
        float(re.search(pattern, told).group(1)) * GIGABYTE
        for pattern in (r"memory: about ([\d.]+) GB at most", r"records: about ([\d.]+) GB")
    )
    found = {
        "time": (60 * int(minutes) + int(rest), seconds),
        "memory": (memory, peak),
        "disk": (records, kept),
    }
    rows = []
    for what, (foreseen, measured) in found.items():
        name = f"doctor.{what}.{size}"
        ratio = max(foreseen / measured, measured / foreseen)
        note = f"foreseen {foreseen:.4g}, then measured {measured:.4g} ({'seconds' if what == 'time' else 'bytes'})"
        rows.append(judged(name, TARGETS[name], measured, [ratio], note=note, timed=False))
    return Outcome(rows)


def write_model(place: Path, role: str, width: int, n_blocks: int, *, seed: int) -> None:
    """A folder with random weights of that size, and with the tokenizer and the template of the micro organism."""
    tokenizer = AutoTokenizer.from_pretrained(make(str(place / "organism"), "base", 0))
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=n_blocks,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
    )
    Qwen2ForCausalLM(config).save_pretrained(place / role)
    tokenizer.save_pretrained(place / role)


def said(place: Path, *words: str) -> str:
    """What a command prints, with a store of its own.

    Raises:
        RemiError: with its last line, if it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "remi_book.cli", *words],
        capture_output=True,
        text=True,
        env=os.environ | {"REMI_STORE": str(place / "store"), "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    if done.returncode:
        raise RemiError(f"remi {words[0]}: {(done.stderr.strip().splitlines() or [done.stdout])[-1]}")
    return done.stdout
