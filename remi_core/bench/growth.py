"""How time and memory grow: with dialogues, tokens, layers and parameters."""

from __future__ import annotations

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from remi_core.bench.processes import Setting, ask
from remi_core.bench.rows import Outcome, Point, judged
from remi_core.bench.targets import TARGETS
from remi_core.bench.timing import seconds_of
from remi_core.bench.ways import bare, gram, probes
from remi_core.bench.workload import Workload, opened
from remi_core.chat import EncodedDialogue
from remi_core.measurements.gradients import measure_gradient_gram

FEW, MANY = 100, 10_000
SIZES = (50, 100, 200, 400)
LENGTHS = (32, 64, 128, 256)
WIDTHS = (64, 128, 256, 384)


def memory_case(setting: Setting, model: str) -> Outcome:
    """Peak of the whole process from few dialogues to many, for all forward measurements together."""
    name = f"memory.{model}"
    peaks = {count: _peak(setting, model, count, "probes") for count in (FEW, MANY)}
    alone = {count: _peak(setting, model, count, "body") for count in (FEW, MANY)}
    note = (
        f"peak bytes of the process with {FEW} dialogues {peaks[FEW]}, with {MANY} dialogues {peaks[MANY]}; the "
        f"decoder alone grows to {alone[MANY] / alone[FEW]:.3f}; what each dialogue leaves is held until it is saved"
    )
    row = judged(name, TARGETS[name], peaks[MANY], [peaks[MANY] / peaks[FEW]], note=note, timed=False)
    points = [
        Point("peak memory", model, way, count, peak)
        for way, found in (("probes", peaks), ("decoder alone", alone))
        for count, peak in found.items()
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


def _peak(setting: Setting, model: str, count: int, way: str) -> int:
    return int(ask(setting, {"do": "memory", "way": way, "model": model, "count": count})["peak"])


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


def _of_length(workload: Workload, length: int) -> Workload:
    """A few dialogues of random tokens of one length, the second half of each the answer."""
    generator = np.random.default_rng(length)
    vocabulary = workload.model.config.vocab_size
    made = tuple(
        EncodedDialogue(
            identifier=f"random {at}",
            input_ids=tuple(int(token) for token in generator.integers(vocabulary, size=length)),
            answer_start=length // 2,
            answer_stop=length,
        )
        for at in range(32)
    )
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
