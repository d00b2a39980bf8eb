"""What passes take of a batch, as arrays and back: so that a finished batch can lie on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from remi_core.measurements import Probe
from remi_core.measurements.columns import Columns

GradientParts = list[tuple[tuple[Tensor, Tensor], float]]
"""Of each dialogue of a batch: the factors of its gradient, and its loss."""


def spelled_probes(parts: Sequence[Probe]) -> dict[str, np.ndarray]:
    """The arrays and counts that probes have taken of one batch; their settings are left out."""
    found = {}
    for number, probe in enumerate(parts):
        for name, value in vars(probe).items():
            if isinstance(value, Columns):
                held = value.held()
                found |= {f"{number}.{name}.{at:02d}": array for at, array in enumerate(held)}
            elif name.startswith("_") and isinstance(value, np.ndarray | int):
                found[f"{number}.{name}"] = np.asarray(value)
    return found


def read_probes(probes: Sequence[Probe], arrays: Mapping[str, np.ndarray]) -> list[Probe]:
    """Probes of the same settings that have taken what ``spelled_probes`` has spelled."""
    parts = [probe.empty() for probe in probes]
    for number, part in enumerate(parts):
        for name, value in vars(part).items():
            prefix = f"{number}.{name}"
            own = [arrays[key] for key in sorted(arrays) if key.startswith(f"{prefix}.")]
            if isinstance(value, Columns) and own:
                value.add(*own)
            elif prefix in arrays:
                setattr(part, name, int(arrays[prefix]) if isinstance(value, int) else arrays[prefix])
    return parts


def spelled_gradients(parts: GradientParts) -> dict[str, np.ndarray]:
    """Factors and losses of a batch as arrays; factors are float32."""
    factors = {
        f"{row}.{side}": one.detach().cpu().numpy()
        for row, (pair, _) in enumerate(parts)
        for side, one in enumerate(pair)
    }
    return factors | {"loss": np.array([loss for _, loss in parts])}


def read_gradients(arrays: Mapping[str, np.ndarray]) -> GradientParts:
    """What ``spelled_gradients`` has spelled."""
    pairs = [
        tuple(torch.from_numpy(np.array(arrays[f"{row}.{side}"])) for side in (0, 1))
        for row in range(len(arrays["loss"]))
    ]
    return list(zip(pairs, arrays["loss"].tolist(), strict=True))
