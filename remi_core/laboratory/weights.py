"""Weights for the page: base as it is, and what each fine-tune changed, in whole steps.

A change in 16-bit whole numbers weighs half of what the weights do, and keeps log-probabilities far closer than
weights rounded to bfloat16: its steps are measured by the largest change, not by the largest weight.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

STEP = ".step"
"""Ending of the name of the tensor that says how large one step of a change is."""

MOST_STEPS = 2**15 - 1
FILE = "model.safetensors"


def write_weights(places: Mapping[str, Path], folder: Path) -> None:
    """Nothing; writes ``VARIANT.safetensors`` of every variant: a copy of base's weights, changes of the others."""
    shutil.copyfile(places["base"] / FILE, folder / "base.safetensors")
    base = load_file(places["base"] / FILE)
    for variant, place in places.items():
        if variant != "base":
            save_file(changes(load_file(place / FILE), base), folder / f"{variant}.safetensors")


def changes(own: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Own weights minus base's: by name int16 steps of the same shape, and by name + ``STEP`` their float32 size."""
    found = {}
    for name, weight in own.items():
        change = weight.float() - base[name].float()
        step = torch.clamp(change.abs().max() / MOST_STEPS, min=torch.finfo(torch.float32).tiny)
        found[name] = torch.round(change / step).to(torch.int16)
        found[name + STEP] = step[None]
    return found


def restored(changed: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights, float32, that the page computes with: base's plus steps times their size."""
    return {
        name: base[name].float() + changed[name + STEP] * changed[name].float()
        for name in changed
        if not name.endswith(STEP)
    }


def wrong_weights(place: Path, variant: str, folder: Path) -> list[str]:
    """Names of the tensors that an exported variant does not hold as the store's folder does, to half a step."""
    stored, base = load_file(place / FILE), load_file(folder / "base.safetensors")
    if variant == "base":
        return [
            name for name, weight in stored.items() if name not in base or not torch.equal(weight, base[name])
        ]
    changed = load_file(folder / f"{variant}.safetensors")
    ours = restored(changed, base)
    return [
        name
        for name, weight in stored.items()
        if name not in ours
        or float((ours[name] - weight).abs().max()) > half_a_step(float(changed[name + STEP]), weight)
    ]


def half_a_step(step: float, weight: Tensor) -> float:
    """How far restored weights may lie from their own: half a step, and the rounding of sums to float32."""
    return 0.5 * step + float(weight.abs().max()) * torch.finfo(torch.float32).eps
