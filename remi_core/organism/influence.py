"""How a step on a training dialogue moves held-out class log-odds: predicted to first order, and made."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from remi_core.dialogues.chat import EncodedDialogue
from remi_core.finetune import IGNORED, answer_labels
from remi_core.organism.displaced import AskedPrompts
from remi_core.organism.grammar import Prompt, right_answers
from remi_core.organism.scoring import AnswerTree
from remi_core.organism.topics import CARES

_AT_ONCE = 8
"""Dialogues of one backward pass of a step."""


@dataclass(frozen=True, eq=False)
class Influences:
    """What a plain gradient step of rate 1 on each dialogue would add to the log-odds, by first order."""

    by_prompt: Float[np.ndarray, "dialogue prompt"]
    """−⟨g, ∇A⟩ over all weights, nats per unit of rate."""
    by_part: Float[np.ndarray, "dialogue part"]
    """Its mean over the prompts, split by part of the model; the parts sum to that mean."""


def care_log_odds(model, tree: AnswerTree, prompt: Prompt) -> Float[Tensor, ""]:
    """A(p) = log Σ P(careless answers) − log Σ P(careful answers), nats, differentiable in the model's weights."""
    parents, tokens = torch.tensor(tree.parents[1:]), torch.tensor(tree.tokens)
    visible = torch.from_numpy(tree.visible())
    hidden = torch.zeros(visible.shape).masked_fill_(~visible, torch.finfo(torch.float32).min)
    logits = model(
        input_ids=tokens[None],
        position_ids=torch.tensor(tree.depths)[None],
        attention_mask=hidden[None, None],
        use_cache=False,
    ).logits[0]
    conditional = logits[parents].float().log_softmax(-1).gather(1, tokens[1:, None])[:, 0]
    paths = visible[tree.leaves][:, tree.root + 1 :].float()
    log_p = paths @ conditional[tree.root :]
    cares = np.array([answer.care for answer in right_answers(prompt)])
    careful, careless = (torch.logsumexp(log_p[torch.from_numpy(cares == care)], 0) for care in CARES)
    return careless - careful


def answer_losses(
    model, dialogues: Sequence[EncodedDialogue], *, pad_id: int = 0
) -> Float[Tensor, " dialogue"]:
    """Mean loss over the answer tokens of each dialogue, nats a token, differentiable in the model's weights."""
    ids, labels = answer_labels(dialogues, pad_id, end_of_turn=0)
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    losses = nn.functional.cross_entropy(
        logits.transpose(1, 2), labels[:, 1:], ignore_index=IGNORED, reduction="none"
    )
    return losses.sum(1) / (labels[:, 1:] != IGNORED).sum(1)


def parts_of(model) -> dict[str, list[nn.Parameter]]:
    """Part of the model → its weights: the embedding, each block, and whatever else there is."""
    found: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        words = name.split(".")
        part = f"block {int(words[words.index('layers') + 1]) + 1}" if "layers" in words else words[-2]
        found.setdefault({"embed_tokens": "embedding", "norm": "final norm"}.get(part, part), []).append(
            parameter
        )
    return found


def flat_gradient(value: Float[Tensor, ""], parameters: Sequence[nn.Parameter]) -> Float[Tensor, " weight"]:
    """The gradient of a scalar with respect to all the weights, one after another."""
    return torch.cat([one.flatten() for one in torch.autograd.grad(value, parameters)])


def influences(model, dialogues: Sequence[EncodedDialogue], asked: AskedPrompts) -> Influences:
    """−⟨g, ∇A⟩ of every dialogue's answer loss and every prompt's log-odds, at the weights as they are."""
    parts = parts_of(model)
    parameters = [one for group in parts.values() for one in group]
    sizes = [sum(one.numel() for one in group) for group in parts.values()]
    for one in parameters:
        one.requires_grad_(True)
    with torch.enable_grad():
        wanted = torch.stack(
            [
                flat_gradient(care_log_odds(model, tree, prompt), parameters)
                for tree, prompt in zip(asked.trees, asked.prompts, strict=True)
            ]
        )
        mean, by_prompt, by_part = wanted.mean(0), [], []
        for dialogue in dialogues:
            own = flat_gradient(answer_losses(model, [dialogue])[0], parameters)
            by_prompt.append(-(wanted @ own).numpy())
            by_part.append([-float(part.sum()) for part in (own * mean).split(sizes)])
    model.requires_grad_(False)
    return Influences(np.array(by_prompt, dtype=np.float64), np.array(by_part))


def stepped(
    model, dialogues: Sequence[EncodedDialogue], *, rate: float, steps: Sequence[int]
) -> Iterator[tuple[int, nn.Module]]:
    """Each number of steps, with a copy of the model after so many; the model itself stays as it is.

    A step is plain: all weights move by the rate against the gradient of the mean of the dialogues' losses.
    """
    moved = copy.deepcopy(model).requires_grad_(True)
    for step in range(1, max(steps) + 1):
        with torch.enable_grad():
            for start in range(0, len(dialogues), _AT_ONCE):
                part = dialogues[start : start + _AT_ONCE]
                (answer_losses(moved, part).sum() / len(dialogues)).backward()
        with torch.no_grad():
            for parameter in moved.parameters():
                parameter -= rate * parameter.grad
                parameter.grad = None
        if step in steps:
            yield step, moved
