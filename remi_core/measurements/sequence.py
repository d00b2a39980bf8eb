"""Log-probability and next-token entropy at every answer token (paper section 4.1)."""

from __future__ import annotations

import numpy as np
import torch

from remi_core.batches import Batch
from remi_core.measurements import PassState, all_finite, require_finite, split_rows
from remi_core.measurements.columns import Columns, pieces_in_order


class SequenceProbe:
    """What the model expects at each token of the answer.

    Arrays, answer tokens of all dialogues in order, dialogue i at ``offsets[i]:offsets[i + 1]``:
    ``log_probability`` of the token given all before it (total,), nats, float32; ``entropy`` of the
    prediction it is drawn from (total,), nats, float32; ``token`` ids (total,), int64; ``offsets`` (dialogue
    + 1,), int64. The running joint log-probability is the cumulative sum within a dialogue.
    """

    layers: tuple[int, ...] = ()

    def __init__(self, *, name: str = "sequence") -> None:
        self.name = name
        self._kept = Columns()

    def empty(self) -> SequenceProbe:
        """A probe of the same name that has taken nothing."""
        return SequenceProbe(name=self.name)

    def join(self, other: SequenceProbe) -> None:
        """Adds the dialogues of another one."""
        self._kept.extend(other._kept)

    def accumulate(self, batch: Batch, state: PassState) -> None:
        """Takes the answer tokens of one batch."""
        rows, positions = state.answer_positions()
        tokens = batch.input_ids[rows, positions]
        # One array, so that a card is waited for once.
        found = torch.empty((2, len(rows)), dtype=torch.float32, device=tokens.device)
        log_probability, entropy = found
        # The token at a position is predicted at the position before it.
        for part, log_p in state.log_probabilities(rows, positions - 1):
            log_probability[part] = log_p.gather(1, tokens[part, None])[:, 0]
            # In place: on a processor a second matrix of this size costs more than the arithmetic on it.
            entropy[part] = log_p.exp().mul_(log_p).sum(dim=-1).neg_()
        counts = [dialogue.n_answer for dialogue in state.dialogues]
        own = found.cpu().numpy()
        if not all_finite(own):
            for values in own:
                for one, dialogue in zip(split_rows(values, counts), state.dialogues, strict=True):
                    require_finite(self.name, one, dialogue)
        ids = [
            dialogue.input_ids[dialogue.answer_start : dialogue.answer_stop] for dialogue in state.dialogues
        ]
        self._kept.add(batch.indices.tolist(), np.array(counts), *own, np.concatenate(ids))

    def finish(self) -> dict[str, np.ndarray]:
        """The arrays named above."""
        indices, (counts, *flat) = self._kept.finish()
        places, offsets = pieces_in_order(indices, counts)
        log_probability, entropy, token = (values[places] for values in flat)
        return {"log_probability": log_probability, "entropy": entropy, "token": token, "offsets": offsets}
