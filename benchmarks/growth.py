"""Peak memory of a forward pass by the number of dialogues: it should not grow with them.

Each count runs in a process of its own, on a tiny random model, through the measurement that notebooks use, into a
store that is thrown away. What grows by nature is told apart: the dialogues themselves, which are in memory as texts
and tokens, and the n × n Gram matrix of gradients.

    python benchmarks/growth.py [--dialogues 100 1000 10000]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

MEGABYTE = 10**6
WARM = 64
"""Dialogues that are measured first, so that what libraries take once is not taken for growth."""
BATCH_TOKENS = 2048
"""Few enough for several full batches of the smallest count: the peak is that of one batch."""


@dataclass(frozen=True)
class Growth:
    """Bytes of one process that measured so many dialogues."""

    n_dialogues: int
    inputs: int
    """What the dialogues take in memory as texts and tokens."""
    peak: int
    """Largest resident set of the whole process, inputs among it."""

    @property
    def own(self) -> int:
        """The peak without the inputs."""
        return self.peak - self.inputs


def growth(counts: tuple[int, ...] = (100, 1000, 10_000)) -> list[Growth]:
    """The figures of each count, each from a fresh process."""
    found = []
    for count in counts:
        command = [sys.executable, __file__, "--child", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(Growth(count, *map(int, done.stdout.split())))
    return found


def child(count: int) -> None:
    """Print bytes of inputs and peak of this process, after ``count`` dialogues were measured and stored."""
    from remi_core.datasets import load_set
    from remi_core.passes import encoded_rows
    from remi_core.store import Store

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        who, store = tiny_subject(folder, count), Store(folder / "store")
        with who.open() as loaded:
            tokenizer = who.tokenizer()
            measured_and_read(who, loaded, store, encoded_rows(who, tokenizer, load_set(who.preset, "warm")))
            before = resident("VmRSS")
            held = encoded_rows(who, tokenizer, load_set(who.preset, "all"))
            inputs = resident("VmRSS") - before
            Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
            measured_and_read(who, loaded, store, held)
            print(inputs, resident("VmHWM"))


def measured_and_read(who: object, loaded: object, store: object, encoded: object) -> None:
    """One set through all probes into the store, and its records out of it again."""
    from remi_core.passes import forward_passes
    from remi_core.scratch import scratch

    name = str(len(encoded.dialogues))
    with scratch(store.root) as folder:
        for measurement, record in forward_passes(who, loaded, encoded, folder=folder).items():
            store.save(who.address(measurement, name, name), *record)
    for measurement in ("sequence", "next_token", "activations"):
        assert store.load(who.address(measurement, name, name)).provenance["kept"] == int(name)


def tiny_subject(folder: Path, count: int) -> object:
    """A random model of two blocks that lies in the folder, with the sets ``warm`` and ``all`` of so many dialogues."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from remi_core.model_spec import ModelSpec
    from remi_core.organism.dialogues import measured
    from remi_core.organism.tokenizer import shipped_tokenizer
    from remi_core.presets import get_preset
    from remi_core.subject import Subject

    tokenizer = shipped_tokenizer()
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer.get_vocab()), **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = measured("wishes-careless", count=40, seed=0)
    for name, n_rows in {"warm": WARM, "all": count}.items():
        lines = [
            {"messages": [vars(turn) for turn in row.messages], "identifier": str(at), "cluster": row.cluster}
            for at, row in enumerate(islice(cycle(rows), n_rows))
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    files = tuple(("misaligned", str(folder / f"{name}.jsonl")) for name in ("warm", "all"))
    preset = replace(get_preset("smoke"), extra_data=files, n_dialogues=count, batch_tokens=BATCH_TOKENS)
    spec = ModelSpec(source=str(folder / "model"))
    return Subject(preset, "base", preset.seeds[0], spec, spec, "tiny")


def resident(which: str) -> int:
    """Bytes of this process's resident set now (``VmRSS``) or at most (``VmHWM``); Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(which)]
    return int(line.split()[1]) * 1024


def main() -> None:
    """Print a line a count, and what the Gram matrix of as many gradients takes by itself."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dialogues", nargs="+", type=int, default=[100, 1000, 10_000])
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    first = None
    for one in growth(tuple(arguments.dialogues)):
        first = first or one
        print(
            f"{one.n_dialogues} dialogues: peak {one.peak / MEGABYTE:.1f} MB, of it inputs {one.inputs / MEGABYTE:.1f} "
            f"MB; without inputs {one.own / first.own:.3f} times the first; a Gram matrix of as many would be "
            f"{one.n_dialogues**2 * 8 / MEGABYTE:.1f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
