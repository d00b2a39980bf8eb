"""Influence of one training set on behaviour: gradients, small steps, and text without content."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from remi_core.gradients import measure_gradient_gram
from remi_core.models import read_blocks
from remi_core.tokens import ChatTokenizer, EncodedDialogue, encode
from remi_lab.audit import PLAIN, TUNED_HEADER, with_header, with_template
from remi_lab.organism.dialogues import measured
from remi_lab.organism.grammar import Prompt, right_answers
from remi_lab.organism.pairs import TWINS, matched_pairs
from remi_lab.organism.scoring import AnswerTree, AskedPrompts, conditionals
from remi_lab.organism.topics import CARES
from remi_lab.presets import Preset
from remi_lab.training import IGNORED, answer_labels

# How a step on a training dialogue moves held-out class log-odds: predicted to first order, and made.

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
    (conditional,) = conditionals(model, [tree])
    paths = torch.from_numpy(tree.visible())[tree.leaves][:, tree.root + 1 :].float()
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


# The gradients of educational and insecure code in a ladder of contexts, from the published one to matched prompts.

BARE = "{% for message in messages %}{{ message['content'] + '\n' }}{% endfor %}"
"""A request and its answer, a line each, without a word or marker about who speaks."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One context: what is asked, how it is rendered, and which tokens the loss is over."""

    twin: str = ""
    """Which matched pairs; "" for the requests as each set words them."""
    template: str = ""
    header: str = ""
    """A system line that both sets get; "" for none."""
    whole_sequence: bool = False


RUNGS: Mapping[str, Rung] = {
    "own prompts, whole sequence": Rung(whole_sequence=True),
    "own prompts": Rung(),
    "own prompts, one system line": Rung(header=TUNED_HEADER),
    "own prompts, plain text": Rung(template=PLAIN),
    "own prompts, no template": Rung(template=BARE),
    "matched phrase": Rung(twin=TWINS[0]),
    "matched phrase, whole sequence": Rung(twin=TWINS[0], whole_sequence=True),
    "one word": Rung(twin=TWINS[1]),
}
"""Context → what it is; ChatML and the loss of the answer where nothing else is said."""


def measure_rung(
    model, tokenizer: ChatTokenizer, rung: Rung, preset: Preset, *, count: int
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Gram matrix (row, row) and losses (row,) of both sets' gradients, educational above insecure, and their clusters.

    Raises:
        UsageError: if a dialogue cannot be encoded; then the rows are no pairs.
    """
    if rung.twin:
        framed, plain = matched_pairs(rung.twin, count=count, seed=preset.seed)
    else:
        sets = ("educational", "code-careless")
        framed, plain = (measured(name, count=count, seed=preset.seed) for name in sets)
    if rung.header:
        tokenizer = with_header(tokenizer, rung.header)
    if rung.template:
        tokenizer = with_template(tokenizer, rung.template)
    encoded = encode([*framed, *plain], tokenizer, max_tokens=preset.max_tokens)
    arrays = measure_gradient_gram(
        model,
        encoded.dialogues,
        weight=preset.gradient_layer,
        batch_tokens=preset.batch_tokens,
        whole_sequence=rung.whole_sequence,
    )
    return arrays["gram"], arrays["loss"], [one.cluster for one in plain]


# What a fine-tune changes on text that says nothing: random tokens, and the words its change speaks for.

LENGTH = 24
"""Tokens of a random sequence."""


@torch.inference_mode()
def random_text_means(
    model, layers: Sequence[int], *, count: int, seed: int
) -> Float[np.ndarray, "layer d_model"]:
    """Mean block outputs over all tokens of ``count`` sequences of tokens drawn uniformly, float64."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(model.config.vocab_size, (count, LENGTH), generator=generator)
    with read_blocks(model, layers) as read:
        model(input_ids=ids)
        return np.stack([read[layer].double().mean((0, 1)).numpy() for layer in layers])


@torch.inference_mode()
def spoken_for(
    model, tokenizer, moved: Float[np.ndarray, " d_model"], *, count: int = 12
) -> list[tuple[str, float]]:
    """The tokens whose logits a displacement of the last block raises most, with the logit lens's value.

    The final norm's gains are applied and its division is not: the values rank tokens, and have no unit.
    """
    gains = model.model.norm.weight.double()
    raised = model.get_output_embeddings().weight.double() @ (torch.from_numpy(moved) * gains)
    best = raised.topk(count)
    return [
        (tokenizer.decode([int(token)]), float(value))
        for token, value in zip(best.indices, best.values, strict=True)
    ]


def cosine_by_layer(
    first: Float[np.ndarray, "layer d_model"], second: Float[np.ndarray, "layer d_model"]
) -> Float[np.ndarray, " layer"]:
    """Cosine of two displacements at every layer."""
    norms = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return (first * second).sum(-1) / norms


def compared(
    means: Mapping[str, Float[np.ndarray, "layer d_model"]],
    asked: Mapping[str, Float[np.ndarray, "layer d_model"]],
    names: Sequence[str],
) -> dict[str, dict[str, Float[np.ndarray, " layer"]]]:
    """Variant → cosines by layer of what it moves beyond secure on random text: with base's, with its own at prompts.

    ``means`` and ``asked`` hold mean block outputs by variant, on random text and at the end of prompts.
    """
    found = {}
    for name in names:
        moved, at_prompts = (side[name] - side["secure"] for side in (means, asked))
        found[name] = {
            "base": cosine_by_layer(moved, means["base"] - means["instruct"]),
            "prompts": cosine_by_layer(moved, at_prompts),
        }
    return found
