"""How time and memory grow: with dialogues, tokens, layers and parameters."""

from __future__ import annotations

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.processes import Setting, ask
from benchmarks.rows import TARGETS, Outcome, Point, judged
from benchmarks.timing import seconds_of
from benchmarks.ways import bare, gram, probes
from benchmarks.workload import Workload, opened, random_dialogue
from remi_core.gradients import gradient_factors, gram_by_slices, measure_gradient_gram

FEW, MANY = 100, 10_000
MEMORY_TOKENS = 1024
"""Tokens of a batch where memory is measured: the fewest dialogues fill several of them."""
SIZES = (50, 100, 200, 400)
LENGTHS = (32, 64, 128, 256)
BLOCK_ROWS = (1, 2, 4, 8, 16, 32)
"""Rows of the weight whose gradients are in memory at a time."""
WIDTHS = (64, 128, 256, 384)


def memory_case(setting: Setting, model: str) -> Outcome:
    """Peak of the whole process from few dialogues to many, for all forward measurements together.

    The dialogues themselves, as text and tokens, are what is measured and no part of the measuring: they are left
    out of the ratio and shown beside it.
    """
    name = f"memory.{model}"
    found = {way: {n: _memory(setting, model, n, way) for n in (FEW, MANY)} for way in ("probes", "body")}
    few, many = found["probes"][FEW], found["probes"][MANY]
    held = few["peak"] - few["added"]
    ratio = (held + many["added"]) / (held + few["added"])
    alone = found["body"][MANY]["peak"] / found["body"][FEW]["peak"]
    note = (
        f"bytes that measuring adds at its peak: {few['added']} with {FEW} dialogues, {many['added']} with {MANY}; "
        f"with the dialogues themselves the process grows to {many['peak'] / few['peak']:.3f}, and with the decoder "
        f"alone to {alone:.3f}. Means of block outputs go to a file; log-probabilities, entropies and next tokens "
        "stay in memory, in few arrays, until the record is written"
    )
    row = judged(name, TARGETS[name], held + many["added"], [ratio], note=note, timed=False)
    points = [
        Point("peak memory", model, "decoder alone" if way == "body" else way, n, own[n]["peak"])
        for way, own in found.items()
        for n in (FEW, MANY)
    ]
    return Outcome([row], points)


def growth_case(setting: Setting, model: str) -> Outcome:
    """Points of time against dialogues, tokens a dialogue, the layer of the gradient, and parameters; no row."""
    points = [Point("matmul rate", "this machine", "float32", 0, matmul_rate())]
    with opened(model, max(SIZES), setting.store) as workload:
        for count in SIZES:
            own = workload.front(count)
            points += _timed("dialogues", model, own, count)
            points.append(Point("dialogues", model, "gradients", count, _best(lambda own=own: gram(own))))
        few = workload.front(SIZES[0])
        for layer in workload.layers:
            seconds = _best(lambda layer=layer: _gram_at(few, layer))
            points.append(Point("gradient layer", model, "gradients", layer, seconds))
        points += _blocks(workload, model)
        for length in LENGTHS:
            points += _timed("tokens", model, _of_length(workload, length), length)
    points.append(Point("parameter tokens", "random weights", "tokens", 0, few.n_tokens))
    for width in WIDTHS:
        made = Workload(_random_model(width), few.dialogues, few.preset)
        points += _timed("parameters", "random weights", made, _matrix_parameters(made))
    return Outcome([], points)


def matmul_rate(size: int = 1024, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second of a large matrix product: what this machine can do at best."""
    left = torch.randn(size, size, device=device, dtype=dtype)
    seconds = min(seconds_of(lambda: left @ left) for _ in range(8))
    return 2 * size**3 / seconds


def _memory(setting: Setting, model: str, count: int, way: str) -> dict[str, int]:
    asked = {"do": "memory", "way": way, "model": model, "count": count, "batch_tokens": MEMORY_TOKENS}
    return ask(setting, asked)


def _timed(curve: str, model: str, workload: Workload, x: float) -> list[Point]:
    ways = {"probes": probes, "bare": bare}
    return [Point(curve, model, way, x, _best(lambda run=run: run(workload))) for way, run in ways.items()]


def _best(way: object) -> float:
    """Seconds of the faster of two calls, after one to warm up."""
    way()
    return min(seconds_of(way) for _ in range(2))


def _gram_at(workload: Workload, layer: int) -> None:
    tokens = workload.preset.batch_tokens
    measure_gradient_gram(workload.model, workload.dialogues, weight=layer, batch_tokens=tokens)


def _blocks(workload: Workload, model: str) -> list[Point]:
    """Seconds of the Gram matrix by the megabytes of gradients that are in memory at a time."""
    factors, _ = gradient_factors(
        workload.model, workload.dialogues, batch_tokens=workload.preset.batch_tokens
    )
    a_row = len(factors) * factors[0][0].shape[-1]
    points = []
    for rows in BLOCK_ROWS:
        seconds = _best(lambda rows=rows: gram_by_slices(factors, block_elements=rows * a_row))
        points.append(Point("gradient blocks", model, "gradients", 4 * rows * a_row / 1e6, seconds))
    return points


def _of_length(workload: Workload, length: int) -> Workload:
    """A few dialogues of random tokens of one length, the second half of each the answer."""
    generator = np.random.default_rng(length)
    vocabulary = workload.model.config.vocab_size
    made = tuple(random_dialogue(generator, at, length, n_vocab=vocabulary) for at in range(32))
    return Workload(workload.model, made, workload.preset)


def _random_model(width: int) -> Qwen2ForCausalLM:
    """A model of as many blocks as micro's, of another width, with random weights."""
    torch.manual_seed(width)
    config = Qwen2Config(
        vocab_size=2048,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).eval().requires_grad_(False)


def _matrix_parameters(workload: Workload) -> int:
    """Parameters that take part in products; of the embedding only what the head uses is counted, once."""
    return sum(parameter.numel() for parameter in workload.model.parameters() if parameter.ndim > 1)
