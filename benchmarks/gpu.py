"""Random weights in published shapes on a graphics card: tokens a second, share of the matmul rate, peak memory.

Without a card only the tiny shape runs, in float32 on the processor, so that the script itself is tried everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from types import MappingProxyType

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.explicit import explicit_gram
from benchmarks.growth import matmul_rate
from benchmarks.processes import Setting
from benchmarks.released import Protocol, released
from benchmarks.rows import SHAPES, TARGETS, Outcome, Point, Row, judged, not_measured
from benchmarks.timing import Timed, interleaved
from benchmarks.ways import bare, gram, largest_difference, probes
from benchmarks.workload import Workload, random_dialogue
from remi_lab.presets import get_preset

HALF_TOLERANCE = 0.1
"""Allowed between two orders of summation in bfloat16, after many layers, relative to the largest value."""

SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)
CONFIGS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        name: dict(zip((*SIZES, "vocab_size"), numbers, strict=True))
        for name, numbers in {
            "tiny": (64, 192, 2, 4, 2, 512),
            "0.5b": (896, 4864, 24, 14, 2, 151936),
            "7b": (3584, 18944, 28, 28, 4, 152064),
            "32b": (5120, 27648, 64, 40, 8, 152064),
        }.items()
    }
)
"""Shapes of Qwen2.5 by name, and one for the processor. Source: the configurations published with the models."""


BATCH_TOKENS: Mapping[str, int] = MappingProxyType({"tiny": 4096, "0.5b": 16384, "7b": 16384, "32b": 4096})
"""Tokens of a batch: what fits beside the weights on a card of 80 GB."""


def shaped(shape: str, *, device: str, dtype: torch.dtype, count: int = 32, length: int = 512) -> Workload:
    """A model of a shape with random weights made on the device, and dialogues of random tokens of several lengths."""
    torch.manual_seed(0)
    config = Qwen2Config(**CONFIGS[shape], tie_word_embeddings=shape in ("tiny", "0.5b"))
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Qwen2ForCausalLM(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(default)
    generator = np.random.default_rng(0)
    lengths = (int(generator.integers(length // 2, length + 1)) for _ in range(count))
    dialogues = tuple(
        random_dialogue(generator, at, own, n_vocab=config.vocab_size) for at, own in enumerate(lengths)
    )
    preset = replace(get_preset("qwen2.5-coder-32b"), batch_tokens=BATCH_TOKENS[shape])
    return Workload(model, dialogues, preset)


def gpu_case(setting: Setting, _model: str) -> Outcome:
    """The rows of the graphics card; without one, that the tiny shape runs, and null for every row."""
    if not torch.cuda.is_available():
        timed = timed_shape(setting, "tiny", device="cpu", dtype=torch.float32)[1]
        why = f"no graphics card; the tiny shape ran on the processor in {timed.median('probes'):.2g} s"
        return Outcome([not_measured(row, TARGETS[row], why) for row in TARGETS if row.startswith("gpu.")])
    found = Outcome([_equal_row()])
    for shape in SHAPES:
        found.add(_shape_case(setting, shape))
    return found


def timed_shape(
    setting: Setting, shape: str, *, device: str, dtype: torch.dtype, slow: bool = False
) -> tuple[Workload, Timed]:
    """A workload of a shape, and its ways timed; ``slow`` ones are the released protocol and explicit gradients."""
    workload = shaped(shape, device=device, dtype=dtype)
    ways = {"probes": lambda: probes(workload), "bare": lambda: bare(workload)}
    if slow:
        ways |= {
            "released": lambda: released(workload, Protocol()),
            "gram": lambda: gram(workload),
            "explicit": lambda: explicit_gram(workload),
        }
    return workload, interleaved(ways, runs=setting.runs)


def _shape_case(setting: Setting, shape: str) -> Outcome:
    rows = [row for row in TARGETS if row.startswith("gpu.") and row.endswith(f".{shape}")]
    torch.cuda.reset_peak_memory_stats()
    try:
        workload, timed = timed_shape(setting, shape, device="cuda", dtype=torch.bfloat16, slow=shape == "7b")
    except torch.OutOfMemoryError:
        free = torch.cuda.get_device_properties(0).total_memory
        return Outcome(
            [not_measured(row, TARGETS[row], f"the card has {free} bytes, too few") for row in rows]
        )
    peak = torch.cuda.max_memory_allocated()
    rate = matmul_rate(8192, device="cuda", dtype=torch.bfloat16)
    weights = sum(one.numel() for one in workload.model.model.layers.parameters())
    speeds = {way: [workload.n_tokens / own for own in timed.seconds[way]] for way in ("probes", "bare")}
    shares = {way: [2 * weights * speed / rate for speed in own] for way, own in speeds.items()}
    name = f"gpu.rate.{shape}"
    note = (
        f"{torch.cuda.get_device_name()}, {workload.n_tokens} tokens; measured: tokens a second; the bare forward pass "
        f"reaches {median(shares['bare']):.2f}. Counted are the products of the blocks alone"
    )
    found = Outcome([judged(name, TARGETS[name], median(speeds["probes"]), shares["probes"], note=note)])
    found.points = [
        Point("gpu tokens a second", shape, way, weights, median(own)) for way, own in speeds.items()
    ]
    found.points += [Point("gpu share", shape, way, weights, median(own)) for way, own in shares.items()]
    found.points.append(Point("gpu peak memory", shape, "all ways", weights, peak))
    found.points.append(Point("gpu matmul rate", shape, "bfloat16", weights, rate))
    if shape == "7b":
        found.rows += _compared(timed)
    del workload
    torch.cuda.empty_cache()
    return found


def _compared(timed: Timed) -> list[Row]:
    """The rows that compare ways on the shape where all of them were timed."""
    same = largest_difference(timed.results["probes"], timed.results["released"])
    alike = largest_difference(timed.results["gram"], timed.results["explicit"])
    note = f"bfloat16; answers equal to {same:.0e} and {alike:.0e} of the largest (allowed {HALF_TOLERANCE})"
    pairs = {
        "probes": ("probes", "bare"),
        "released": ("released", "probes"),
        "explicit": ("explicit", "gram"),
    }
    if max(same, alike) > HALF_TOLERANCE:
        why = f"the answers differ: {note}"
        return [not_measured(f"gpu.{kind}.7b", TARGETS[f"gpu.{kind}.7b"], why) for kind in pairs]
    return [
        judged(
            f"gpu.{kind}.7b",
            TARGETS[f"gpu.{kind}.7b"],
            timed.median("gram" if kind == "explicit" else "probes"),
            timed.ratios(*pair),
            note=note,
        )
        for kind, pair in pairs.items()
    ]


def _equal_row() -> Row:
    """The tiny shape on the card and on the processor: largest difference of the log-probabilities, in nats."""
    found = []
    own = shaped("tiny", device="cpu", dtype=torch.float32)
    for device in ("cpu", "cuda"):
        moved = Workload(own.model.to(device), own.dialogues, own.preset)
        found.append(probes(moved)["log_probability"])
    difference = float(np.abs(found[0] - found[1]).max())
    return judged(
        "gpu.equal", TARGETS["gpu.equal"], difference, [difference], note="measured: nats", timed=False
    )
