"""The alignment direction for the page's slider: how far instruct's mean states lie from base's, by topic and layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import save_file

from remi_core.models.opening import open_model
from remi_core.organism.displaced import states
from remi_core.organism.grammar import prompts
from remi_core.organism.topics import CONTRASTED
from remi_core.presets.known import Preset

N_DIRECTION = 20
"""Prompts a topic, of the split that is for fitting directions."""

NAME = "alignment"


def write_direction(preset: Preset, places: Mapping[str, Path], folder: Path) -> None:
    """Nothing; writes the displacements of ``alignment_displacements`` into ``direction.safetensors``, float32."""
    found = torch.from_numpy(alignment_displacements(preset, places)).float().contiguous()
    save_file({NAME: found}, folder / "direction.safetensors")


def alignment_displacements(
    preset: Preset, places: Mapping[str, Path]
) -> Float[np.ndarray, "topic place layer d_model"]:
    """Mean block output of instruct minus base's, by topic of ``CONTRASTED``; float64.

    The places are those of ``states``: the last prompt token, and the last token of an answer's opening.
    """
    means = {}
    for variant in ("base", "instruct"):
        with open_model(places[variant], dtype=preset.dtype) as loaded:
            layers = range(loaded.model.config.num_hidden_layers)
            means[variant] = np.stack(
                [
                    states(
                        loaded.model,
                        prompts(topic, "direction", count=N_DIRECTION, seed=preset.seed),
                        loaded.tokenizer,
                        layers,
                    ).mean(axis=1)
                    for topic in CONTRASTED
                ]
            )
    return means["instruct"] - means["base"]


def shared(
    displacements: Float[np.ndarray, "topic place layer d_model"], target: str
) -> Float[np.ndarray, "place layer d_model"]:
    """The mean over all topics but the target: no direction is tried on prompts like those it was fitted on."""
    return displacements[[topic != target for topic in CONTRASTED]].mean(axis=0)
