"""Numbers that are none stop a training: which step, which dialogue, which weight."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from remi_core.errors import RemiError, brief


def check_loss(loss: float, names: Sequence[str] = ()) -> None:
    """Nothing, if a loss is a finite number.

    Raises:
        RemiError: naming the dialogues it is of, otherwise.
    """
    if not math.isfinite(loss):
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        of = f" of {', '.join(map(brief, names[:3]))}{more}" if names else ""
        raise RemiError(f"the loss{of} is {_word(loss)}: lower the learning rate, or take another dtype")


def clip_gradients(parameters: Sequence[Tensor], model: nn.Module | None = None) -> None:
    """Return once the gradients of the parameters have norm 1 at most.

    Raises:
        RemiError: if a gradient is not finite, naming the first such weight of ``model`` in its order.
    """
    total = torch.nn.utils.get_total_norm([one.grad for one in parameters if one.grad is not None])
    norm = float(total)
    if not math.isfinite(norm):
        named = [] if model is None else model.named_parameters()
        # A norm can overflow where each gradient is finite: then no weight is to blame alone.
        bad = (name for name, value in named if value.grad is not None and not value.grad.isfinite().all())
        where = next(bad, "all weights together")
        raise RemiError(f"the gradient of {where} is {_word(norm)}: lower the learning rate")
    torch.nn.utils.clip_grads_with_norm_(parameters, 1.0, total)


def _word(value: float) -> str:
    return "not a number" if math.isnan(value) else "infinite"
