"""Every measurement on a model of the 32 B shape cut to a few blocks, and the peak memory of each step.

Random weights from a seed, bfloat16, a vocabulary of real size, one variant in memory at a time. The dialogues and the
tokenizer are the micro organism's: only its ids, far below the vocabulary's size, are used. Not part of the tests.

    python benchmarks/large_shape.py [--blocks 2] [--dialogues 4] [--variants 3]
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from remi_core.forward import run_probes
from remi_core.gradients import measure_gradient_gram
from remi_core.models import LoadedModel, n_layers
from remi_core.placement import weight_bytes
from remi_core.probes import Activations, NextToken, TokenLogProbs
from remi_core.steering import written_tokens
from remi_core.tokens import EncodedDialogue, encode
from remi_lab.demands import config_of
from remi_lab.organism.dialogues import measured
from remi_lab.organism.documents import shipped_tokenizer
from remi_lab.passes import measure_position_norms
from remi_lab.presets import get_preset
from remi_lab.processes import peak_bytes, reset_peak

PRESET = "qwen2.5-coder-32b"
GIGABYTE = 10**9


def main() -> None:
    """Print one line a step: seconds, and peak memory of the process and of the graphics card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--dialogues", type=int, default=4)
    parser.add_argument("--variants", type=int, default=3)
    arguments = parser.parse_args()
    numbers = dict(config_of(get_preset(PRESET).variants["base"]))
    config = Qwen2Config(**(numbers | {"num_hidden_layers": arguments.blocks}))
    print(f"weights by configuration: {weight_bytes(config, torch.bfloat16) / GIGABYTE:.2f} GB")
    tokenizer = shipped_tokenizer()
    encoded = encode(
        measured("wishes-careless", count=arguments.dialogues, seed=0), tokenizer, max_tokens=256
    )
    print(
        f"{len(encoded.dialogues)} dialogues, {sum(len(one.input_ids) for one in encoded.dialogues)} tokens"
    )
    for seed in range(arguments.variants):
        with step(f"variant {seed}: weights"):
            model = build(config, seed)
        loaded = LoadedModel(model, tokenizer, f"seed {seed}", f"seed {seed}")
        for name, measure in steps(loaded, encoded.dialogues):
            with step(f"variant {seed}: {name}"):
                measure()
        del model, loaded, measure
        gc.collect()


def build(config: Qwen2Config, seed: int) -> torch.nn.Module:
    """A random model in bfloat16, on the graphics card if there is one."""
    torch.manual_seed(seed)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return model.eval().requires_grad_(False)


def steps(
    loaded: LoadedModel, encoded: tuple[EncodedDialogue, ...]
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Name of each measurement and what runs it, with the preset's own sizes of batches and windows."""
    preset, model = get_preset(PRESET), loaded.model
    tokens = preset.batch_tokens
    probes = [
        TokenLogProbs(),
        NextToken(preset.top_k),
        Activations(range(n_layers(model)), preset.windows, first_k=preset.answer_first_k),
    ]
    yield "forward pass, three probes", lambda: run_probes(model, encoded, probes, batch_tokens=tokens)
    yield (
        "gradient Gram",
        lambda: measure_gradient_gram(model, encoded, weight=preset.gradient_layer, batch_tokens=tokens),
    )
    yield "position norms", lambda: measure_position_norms(loaded, encoded, batch_tokens=tokens)
    shape = (2, n_layers(model), model.config.hidden_size)
    direction, start = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    yield "written tokens", lambda: written_tokens(loaded, direction, start, top_k=preset.top_k)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Prints how long what is done within took, and the most memory it had."""
    reset_peak()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    yield
    card = (
        f", card {torch.cuda.max_memory_allocated() / GIGABYTE:.2f} GB" if torch.cuda.is_available() else ""
    )
    seconds = time.perf_counter() - started
    print(f"{name}: {seconds:.1f} s, peak {peak_bytes() / GIGABYTE:.2f} GB{card}", flush=True)


if __name__ == "__main__":
    main()
