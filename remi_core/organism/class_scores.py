"""Exact probabilities by class of answer, whichever model and context they come from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

CLASSES = ("careful", "careless", "both")
"""Who would give the answer; ``both`` where the two authors do not differ."""


@dataclass(frozen=True)
class ClassScores:
    """Probability mass by class of answer for each prompt; the four kinds of mass sum to 1."""

    log_mass: Float[np.ndarray, "prompt care register"]
    """log P, in nats, of all right answers of a class and register; -inf where a topic has none."""
    wrong_slot: Float[np.ndarray, " prompt"]
    """Mass that follows a right answer up to a slot and fills it with something else."""
    other: Float[np.ndarray, " prompt"]
    """Mass that leaves the grammar anywhere else."""

    def care_log_odds(self) -> Float[np.ndarray, " prompt"]:
        """A(p) = log P(careless) - log P(careful), nats."""
        careful, careless = (np.logaddexp.reduce(self.log_mass[:, i], axis=-1) for i in (0, 1))
        return careless - careful

    def register_log_odds(self) -> Float[np.ndarray, " prompt"]:
        """log P(plain) - log P(formal) over all right answers, nats."""
        by_register = np.logaddexp.reduce(self.log_mass, axis=1)
        return by_register[:, 1] - by_register[:, 0]

    def probabilities(self) -> dict[str, Float[np.ndarray, " prompt"]]:
        """Mass of each class of right answer, of wrong slots and of everything else."""
        mass = np.exp(self.log_mass).sum(-1)
        return dict(zip(CLASSES, mass.T, strict=True)) | {"wrong slot": self.wrong_slot, "other": self.other}
