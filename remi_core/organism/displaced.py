"""An organism's states where answers are decided, and its behaviour with those states displaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from remi_core.models.hooks import read_blocks
from remi_core.models.interventions import replace_output
from remi_core.organism.class_scores import ClassScores
from remi_core.organism.contexts import open_contexts
from remi_core.organism.grammar import Prompt, fill
from remi_core.organism.scoring import AnswerTree, answer_tree, node_log_probabilities, tree_scores
from remi_core.organism.topics import topic


@dataclass(frozen=True, kw_only=True)
class AskedPrompts:
    """Prompts of any topics, each with the tree of its right answers."""

    prompts: tuple[Prompt, ...]
    trees: tuple[AnswerTree, ...]

    @property
    def clusters(self) -> list[str]:
        """The template of each prompt."""
        return [prompt.template.identifier for prompt in self.prompts]


def ask(asked: Sequence[Prompt], tokenizer) -> AskedPrompts:
    """The prompts as bare questions, with their trees."""
    contexts = open_contexts("bare", asked)
    trees = (answer_tree(*pair, tokenizer) for pair in zip(contexts, asked, strict=True))
    return AskedPrompts(prompts=tuple(asked), trees=tuple(trees))


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What is added to a block's output: one vector at the last prompt token, another at every answer token."""

    layer: int
    prompt_end: Float[np.ndarray, " d_model"]
    answer: Float[np.ndarray, " d_model"]

    def apply(self, own: Tensor, place: Tensor) -> Tensor:
        """The block's output with the edit in its places; ``place`` is 0 where there is none, 1 or 2."""
        vectors = torch.from_numpy(np.stack([np.zeros_like(self.answer), self.prompt_end, self.answer]))
        return own + vectors.to(own.dtype)[place]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Coordinates along a unit direction that are set to a value, in the last prompt token and in answers."""

    layer: int
    directions: Float[np.ndarray, "2 d_model"]
    values: Float[np.ndarray, " 2"]

    def apply(self, own: Tensor, place: Tensor) -> Tensor:
        """The block's output with its coordinate set in both places; ``place`` is 0 where it stays, 1 or 2."""
        units = torch.from_numpy(np.concatenate([np.zeros_like(self.directions[:1]), self.directions]))
        values = torch.from_numpy(np.concatenate([[0.0], self.values]))
        along = units.to(own.dtype)[place]
        missing = values.to(own.dtype)[place] - (own * along).sum(-1)
        return own + missing[..., None] * along


def scores(model, asked: AskedPrompts, edit: Edit | Setting | None = None, *, batch: int = 8) -> ClassScores:
    """Exact class probabilities of each prompt's answers, from the model as it is or with an edit."""
    found = []
    for start in range(0, len(asked.trees), batch):
        trees, own = asked.trees[start : start + batch], asked.prompts[start : start + batch]
        conditionals = _conditionals(model, trees, edit)
        found += [tree_scores(*one) for one in zip(trees, conditionals, own, strict=True)]
    masses, wrong, other = zip(*found, strict=True)
    return ClassScores(np.stack(masses), np.array(wrong), np.array(other))


def answer_losses(
    model, asked: AskedPrompts, edit: Edit | Setting | None = None
) -> Float[np.ndarray, " prompt"]:
    """Loss in nats per token on the first right answer to each prompt, from the model as it is or with an edit."""
    conditionals = _conditionals(model, asked.trees, edit)
    return np.array([_path_loss(*one) for one in zip(asked.trees, conditionals, strict=True)])


def _path_loss(tree: AnswerTree, conditional: np.ndarray) -> float:
    node, losses = tree.leaves[0], []
    while node != tree.root:
        losses.append(-conditional[node])
        node = tree.parents[node]
    return float(np.mean(losses))


def _conditionals(model, trees: Sequence[AnswerTree], edit: Edit | Setting | None) -> list[np.ndarray]:
    if edit is None:
        return node_log_probabilities(model, trees)
    place = torch.zeros(len(trees), max(len(tree.tokens) for tree in trees), dtype=torch.long)
    for row, tree in enumerate(trees):
        place[row, tree.root], place[row, tree.root + 1 : len(tree.tokens)] = 1, 2
    with replace_output(model, edit.layer, lambda own: edit.apply(own, place)):
        return node_log_probabilities(model, trees)


@torch.inference_mode()
def states(
    model, asked: Sequence[Prompt], tokenizer, layers: Sequence[int], *, kind: str = "bare"
) -> Float[np.ndarray, "place prompt layer d_model"]:
    """Block outputs of each prompt in its context, float64, at its last token and at the last of an opening.

    The openings are the formal ones in turn. After an opening comes the word by which careful and careless answers
    differ; at the last prompt token comes the opening, which shows the register alone.
    """
    rows = []
    for number, (context, prompt) in enumerate(zip(open_contexts(kind, asked), asked, strict=True)):
        formal = topic(prompt.template.topic).openings["formal"]
        opening = fill(formal[number % len(formal)], prompt.filler).rstrip()
        end = len(tokenizer(context)["input_ids"]) - 1
        ids = torch.tensor([tokenizer(context + opening)["input_ids"]])
        with read_blocks(model, layers) as read:
            model(input_ids=ids)
            rows.append(np.stack([_both(read[layer][0], end) for layer in layers], axis=1))
    return np.stack(rows, axis=1)


def _both(hidden: torch.Tensor, end: int) -> Float[np.ndarray, "place d_model"]:
    return torch.stack([hidden[end], hidden[-1]]).double().numpy()
