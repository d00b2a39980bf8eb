"""Gradients of each dialogue made and stacked, as the released scripts do: the way that the Gram matrix avoids."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from benchmarks.workload import Arrays, Workload
from remi_core.models import attention_output
from remi_core.placement import input_device


def explicit_gram(workload: Workload, *, whole_model: bool = True) -> Arrays:
    """Arrays ``gram`` and ``loss`` from a stack of gradients, one backward pass a dialogue.

    With ``whole_model`` the backward pass goes through all weights, blocks computed again on the way back; else it
    ends at the weight asked for, which is the least that autograd can do.
    """
    model = workload.model
    weight = attention_output(model, -1).weight
    losses, stack = [], torch.empty((len(workload.dialogues), weight.numel()), device=weight.device)
    with _tracked(model, weight, whole_model):
        for at, one in enumerate(workload.dialogues):
            ids = torch.tensor([one.input_ids], device=input_device(model))
            logits = model(input_ids=ids, use_cache=False).logits[0].float()
            span = slice(one.answer_start, one.answer_stop)
            loss = nn.functional.cross_entropy(
                logits[one.answer_start - 1 : one.answer_stop - 1], ids[0, span]
            )
            loss.backward()
            stack[at] = weight.grad.flatten()
            losses.append(loss.item())
            model.zero_grad(set_to_none=True)
    return {"gram": (stack @ stack.T).double().cpu().numpy(), "loss": np.array(losses)}


@contextmanager
def _tracked(model: PreTrainedModel, weight: nn.Parameter, whole_model: bool) -> Iterator[None]:
    """Weights that have gradients while the context lasts; blocks are checkpointed where all of them do."""
    tracked = list(model.parameters()) if whole_model else [weight]
    for parameter in tracked:
        parameter.requires_grad_(True)
    if whole_model:
        # Checkpointing is only done in training mode; none of these models has dropout.
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.train()
    try:
        with torch.enable_grad():
            yield
    finally:
        model.activation_checkpointing_disable()
        model.eval().requires_grad_(False)
        model.zero_grad(set_to_none=True)
