"""Models measured on the same dialogues: what differs between them, in which layer, and with which interval."""

from __future__ import annotations

import os
from importlib import import_module

from remi_core.dialogues import Dialogue, dialogues, read_jsonl  # the function bears the name of its module

# Libraries read these when they are imported, which is after this: none tells its makers what is run here.
for _name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_name, "1")

__version__ = "0.1.0"

_PLACES = {
    "encode": "tokens.encode",
    "open_model": "models.open_model",
    "measure": "face.measure",
    "Records": "face.Records",
    "Store": "store.Store",
    "TokenLogProbs": "probes.TokenLogProbs",
    "NextToken": "probes.NextToken",
    "Activations": "probes.Activations",
    "gradient_gram": "face.gradient_gram",
    "patch": "face.patch",
    "steer": "steering.steer",
    "direction_tokens": "steering.direction_tokens",
    "Estimate": "statistics.resampling.Estimate",
    "resamples": "statistics.resampling.make_resamples",
    "difference": "statistics.resampling.difference",
    "ratio": "statistics.resampling.ratio",
    "permutation_null": "statistics.nulls.permutation_null",
    "holm": "statistics.nulls.holm",
    "erosion": "face.erosion",
    "separation": "face.separation",
    "subspace_overlap": "face.subspace_overlap",
    "group_cosines": "face.group_cosines",
}
"""Public name → where it is defined. Imported at its first use: most of these bring torch."""

__all__ = ["Dialogue", "dialogues", "read_jsonl", *_PLACES]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].rpartition(".")
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
