"""What is wanted of each row, written before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from remi_core.bench.rows import Target

MODELS = ("micro", "smollm2")
PEERS = ("transformer_lens", "nnsight", "nnterp")
SHAPES = ("0.5b", "7b", "32b")

_PROBES = Target("at most 1.10 times the bare forward pass with logits at answer positions", 1.10)
_RELEASED = Target("at least 4 times as fast as the released protocol", 4.0, at_least=True)
_FASTER = "faster than run_with_cache or trace of {peer}"
_LIGHTER = "at most a quarter of the added peak memory of {peer}"
_GRAM = {
    "forward": Target("at most 1.25 times the bare forward pass with full logits", 1.25),
    "explicit": Target(
        "at least 3 times as fast as explicit gradients of each dialogue through the whole model",
        3.0,
        at_least=True,
    ),
    "memory": Target("added peak memory at most a tenth of the explicit stack", 0.1),
    "exact": Target("within 0.0001 of the explicit way, relative to the largest entry", 1e-4),
}
_GPU = {
    "rate": Target("at least half of the measured matmul rate", 0.5, at_least=True),
    "probes": _PROBES,
    "released": Target("at least 10 times as fast as the released protocol", 10.0, at_least=True),
    "explicit": Target(
        "at least 10 times as fast as explicit gradients of each dialogue", 10.0, at_least=True
    ),
}

TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        **{f"probes.{model}": _PROBES for model in MODELS},
        **{f"released.{model}": _RELEASED for model in MODELS},
        **{
            f"peers.{kind}.{peer}.{model}": Target(text.format(peer=peer), bound)
            for model in MODELS
            for peer in PEERS
            for kind, text, bound in (("time", _FASTER, 1.0), ("memory", _LIGHTER, 0.25))
        },
        **{f"gram.{kind}.{model}": target for model in MODELS for kind, target in _GRAM.items()},
        "memory.micro": Target("peak memory grows by at most 5 % from 100 to 10,000 dialogues", 1.05),
        **{
            f"gpu.{kind}.{shape}": target
            for shape in SHAPES
            for kind, target in _GPU.items()
            if kind == "rate" or shape == "7b"
        },
        "gpu.equal": Target("the card and the processor agree on a small model to 0.001 nats", 1e-3),
        "book.micro": Target("make book, after installing, in at most 360 seconds", 360.0),
    }
)
"""Row → its target, in the order of the table."""
