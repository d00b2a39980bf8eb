"""Checkpoints of trainings in progress: tensors and plain values, never other objects that a pickle could hold."""

from __future__ import annotations

from pathlib import Path

import torch

from remi_core.errors import RemiError


def load_checkpoint(path: Path) -> dict[str, object]:
    """The state in a checkpoint, its tensors in main memory.

    Raises:
        RemiError: if the file is damaged, or holds what no checkpoint of ours does.
    """
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # damaged archives raise nearly anything
        first = str(error).strip().partition("\n")[0]
        raise RemiError(
            f"{path}: no checkpoint that can be read ({first}); delete it to begin anew"
        ) from error
