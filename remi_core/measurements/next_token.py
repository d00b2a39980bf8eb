"""The next-token distribution where the careful and the careless answer part (paper section 4.1)."""

from __future__ import annotations

import numpy as np
import torch

from remi_core.batches import Batch
from remi_core.errors import UsageError
from remi_core.measurements import PassState, all_finite, require_finite
from remi_core.measurements.columns import Columns
from remi_core.transfer import placed


class NextTokenProbe:
    """What the model expects at the position that predicts ``choice``.

    Arrays: ``choice_log_probability`` and ``alternative_log_probability`` (dialogue,), nats, float32, of the
    dialogue's own token there and of the other answer's; ``mean_probability`` (vocab,), float64, over valid
    dialogues; ``top_ids`` and ``top_log_probabilities`` (dialogue, top_k), most probable first; ``valid``
    (dialogue,), whether there is a choice. Where not valid: NaN, and id −1.

    Raises:
        UsageError: if ``top_k`` is below 1 or, at the first batch, above the size of the vocabulary.
    """

    layers: tuple[int, ...] = ()

    def __init__(self, top_k: int = 15, *, name: str = "next_token") -> None:
        if top_k < 1:
            raise UsageError(f"top_k is {top_k}; it must be at least 1")
        self.name = name
        self.top_k = top_k
        self._clear()

    def _clear(self) -> None:
        self._n_seen = 0
        self._kept = Columns()
        self._total = np.zeros(0)

    def empty(self) -> NextTokenProbe:
        """A probe of the same settings that has taken nothing."""
        return NextTokenProbe(self.top_k, name=self.name)

    def join(self, other: NextTokenProbe) -> None:
        """Adds the dialogues of another one."""
        self._total = self._total + other._total if self._n_seen else other._total
        self._n_seen += other._n_seen
        self._kept.extend(other._kept)

    def accumulate(self, batch: Batch, state: PassState) -> None:
        """Takes the prediction at the choice of each dialogue of one batch that has one."""
        if self.top_k > state.n_vocab:
            raise UsageError(f"top_k is {self.top_k}; the vocabulary has {state.n_vocab} tokens")
        if not self._n_seen:
            self._total = np.zeros(state.n_vocab)
        indices = batch.indices.tolist()
        self._n_seen += len(indices)
        chosen = [row for row, dialogue in enumerate(state.dialogues) if dialogue.choice is not None]
        device = batch.input_ids.device
        rows = placed(chosen, device)
        choices = placed([state.dialogues[row].choice for row in chosen], device)
        others = placed([state.dialogues[row].alternative_token for row in chosen], device)
        for part, log_p in state.log_probabilities(rows, choices - 1):
            own = batch.input_ids[rows[part], choices[part]]
            pairs = log_p.gather(1, torch.stack([own, others[part]], dim=1)).cpu().numpy()
            top = log_p.topk(self.top_k, dim=-1)
            values, ids = top.values.cpu().numpy(), top.indices.cpu().numpy()
            self._total += log_p.exp().sum(dim=0, dtype=torch.float64).cpu().numpy()
            if not all_finite(pairs):
                for at, row in enumerate(chosen[part]):
                    require_finite(self.name, pairs[at], state.dialogues[row])
            self._kept.add([indices[row] for row in chosen[part]], pairs, ids, values)

    def finish(self) -> dict[str, np.ndarray]:
        """The arrays named above."""
        n = self._n_seen
        pairs = np.full((n, 2), np.nan, dtype=np.float32)
        top_ids = np.full((n, self.top_k), -1, dtype=np.int64)
        top = np.full((n, self.top_k), np.nan, dtype=np.float32)
        valid = np.zeros(n, dtype=bool)
        indices, arrays = self._kept.finish()
        if len(indices):
            pairs[indices], top_ids[indices], top[indices] = arrays
            valid[indices] = True
        mean = self._total / valid.sum() if valid.any() else np.full_like(self._total, np.nan)
        self._clear()
        return {
            "choice_log_probability": pairs[:, 0],
            "alternative_log_probability": pairs[:, 1],
            "mean_probability": mean,
            "top_ids": top_ids,
            "top_log_probabilities": top,
            "valid": valid,
        }
