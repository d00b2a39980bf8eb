"""A training in progress: what it must remember to go on after an interruption as if there had been none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import PeftModel

from remi_core.checkpoint_files import load_checkpoint
from remi_core.errors import UsageError
from remi_core.lora.adapter import trained_parameters
from remi_core.storage.store import written_whole


@dataclass
class Run:
    """Adapter and optimiser with the updates done, the seconds they took and the losses so far."""

    adapted: PeftModel
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)

    def save(self, path: Path, identity: Mapping[str, object]) -> None:
        """Return once all of it lies at ``path``; ``identity`` says what data, model and recipe it belongs to."""
        state = {
            "identity": dict(identity),
            "weights": {name: value.detach() for name, value in trained_parameters(self.adapted).items()},
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "held_out": self.held_out,
        }
        with written_whole(path) as part:
            torch.save(state, part)

    def load(self, path: Path, identity: Mapping[str, object]) -> None:
        """Return with the state that was saved at ``path``.

        Raises:
            UsageError: if it was saved by a run of other data, another model or another recipe.
            RemiError: if it cannot be read.
        """
        state = load_checkpoint(path)
        for name, value in identity.items():
            before = state["identity"].get(name)
            if before != value:
                raise UsageError(
                    f"{path} was made with {name} {before!r}, not {value!r}: give the same, or delete it"
                )
        with torch.no_grad():
            for name, parameter in trained_parameters(self.adapted).items():
                parameter.copy_(state["weights"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"]
        self.held_out = [tuple(pair) for pair in state["held_out"]]
