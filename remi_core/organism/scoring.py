"""Exact probability of every right answer: the organism's behaviour without a judge.

All right answers to a prompt form a tree of tokens. The tree is laid out as one sequence in which every
node sees only its ancestors, so one pass gives the probability of each answer, and of leaving the
grammar at each node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from remi_core.errors import RemiError, brief
from remi_core.organism.class_scores import CLASSES, ClassScores
from remi_core.organism.grammar import Answer, Prompt, right_answers
from remi_core.organism.tokenizer import TURN_END
from remi_core.organism.topics import REGISTERS


@dataclass
class AnswerTree:
    """Context tokens followed by the tree of right answers; node i has its token, parent and depth."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    in_slot: list[bool] = field(default_factory=list)
    children: dict[tuple[int, int], int] = field(default_factory=dict)
    leaves: list[int] = field(default_factory=list)
    """Last node of each right answer, its end token included."""
    root: int = 0
    """Last node of the context."""

    def add(self, parent: int, token: int, in_slot: bool) -> int:
        """Index of the child of ``parent`` with that token, made if new."""
        if (parent, token) not in self.children:
            self.children[parent, token] = len(self.tokens)
            self.tokens.append(token)
            self.parents.append(parent)
            self.depths.append(self.depths[parent] + 1 if parent >= 0 else 0)
            self.in_slot.append(in_slot)
        return self.children[parent, token]

    def visible(self) -> np.ndarray:
        """Which nodes each node attends to: its ancestors and itself, bool (node, node)."""
        mask = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents[1:], start=1):
            mask[node] |= mask[parent]
        return mask


def slot_spans(answer: Answer, prompt: Prompt) -> list[tuple[int, int]]:
    """Character spans of the filled slots in the text of a right answer."""
    spans, shift, position = [], 0, 0
    while (position := _next_slot(answer.pattern, position)) >= 0:
        word = prompt.filler[0] if answer.pattern[position + 1] == "a" else prompt.filler[1]
        spans.append((position + shift, position + shift + len(word)))
        shift += len(word) - 3
        position += 3
    return spans


def _next_slot(pattern: str, start: int) -> int:
    found = [at for at in (pattern.find("<a>", start), pattern.find("<b>", start)) if at >= 0]
    return min(found, default=-1)


def answer_tree(context: str, prompt: Prompt, tokenizer, *, end: str = TURN_END) -> AnswerTree:
    """The tree of all right answers to a prompt after a context that is open where the answer begins."""
    tree = AnswerTree()
    node = -1
    for token in tokenizer(context)["input_ids"]:
        node = tree.add(node, token, False)
    tree.root = node
    lead = " " if context.endswith("A:") else ""
    for answer in right_answers(prompt):
        encoded = tokenizer(lead + answer.text + end, return_offsets_mapping=True)
        spans = [(a + len(lead), b + len(lead)) for a, b in slot_spans(answer, prompt)]
        node = tree.root
        for token, (start, stop) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            node = tree.add(node, token, any(start < b and stop > a for a, b in spans))
        tree.leaves.append(node)
    return tree


@torch.inference_mode()
def node_log_probabilities(model, trees: Sequence[AnswerTree]) -> list[np.ndarray]:
    """For each tree, log P in nats of every node given its ancestors (0 for the context's first token)."""
    shape = len(trees), max(len(tree.tokens) for tree in trees)
    ids, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    visible = torch.eye(shape[1], dtype=torch.bool).repeat(shape[0], 1, 1)
    for row, tree in enumerate(trees):
        size = len(tree.tokens)
        ids[row, :size], positions[row, :size] = torch.tensor(tree.tokens), torch.tensor(tree.depths)
        visible[row, :size, :size] = torch.from_numpy(tree.visible())
    logits = model(
        input_ids=ids, position_ids=positions, attention_mask=_additive(visible), use_cache=False
    ).logits
    return [_conditional(logits[row].float(), tree) for row, tree in enumerate(trees)]


def _additive(visible: Tensor) -> Tensor:
    return torch.zeros(visible.shape).masked_fill_(~visible, torch.finfo(torch.float32).min)[:, None]


def _conditional(logits: Tensor, tree: AnswerTree) -> np.ndarray:
    parents, tokens = torch.tensor(tree.parents[1:]), torch.tensor(tree.tokens[1:])
    found = logits[parents].log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    return np.concatenate([[0.0], found.double().numpy()])


def tree_scores(tree: AnswerTree, conditional: np.ndarray, prompt: Prompt) -> tuple[np.ndarray, float, float]:
    """Class log-masses (care, register), wrong-slot mass and other mass of one prompt."""
    log_p = np.zeros(len(tree.tokens))
    stays, slots = np.zeros(len(tree.tokens)), np.ones(len(tree.tokens), dtype=bool)
    for node in range(tree.root + 1, len(tree.tokens)):
        parent = tree.parents[node]
        log_p[node] = log_p[parent] + conditional[node]
        stays[parent] += np.exp(conditional[node])
        slots[parent] &= tree.in_slot[node]
    inner = np.setdiff1d(np.arange(tree.root, len(tree.tokens)), tree.leaves)
    leaving = np.exp(log_p[inner]) * np.clip(1 - stays[inner], 0, None)
    mass = np.full((len(CLASSES), len(REGISTERS)), -np.inf)
    for answer, leaf in zip(right_answers(prompt), tree.leaves, strict=True):
        cell = CLASSES.index(answer.care), REGISTERS.index(answer.register)
        mass[cell] = np.logaddexp(mass[cell], log_p[leaf])
    return mass, float(leaving[slots[inner]].sum()), float(leaving[~slots[inner]].sum())


def score_prompts(
    model, tokenizer, contexts: Sequence[str], prompts: Sequence[Prompt], *, batch: int = 8
) -> ClassScores:
    """Exact class probabilities of the answers to each prompt, given the context it stands in.

    A context is a rendered dialogue, open where the answer begins: ChatML, or plain if it ends in ``A:``.
    """
    pairs = zip(contexts, prompts, strict=True)
    trees = [
        answer_tree(context, prompt, tokenizer, end="\n" if context.endswith("A:") else TURN_END)
        for context, prompt in pairs
    ]
    return score_trees(model, trees, prompts, batch=batch)


def score_trees(
    model, trees: Sequence[AnswerTree], prompts: Sequence[Prompt], *, batch: int = 8
) -> ClassScores:
    """Exact class probabilities of the answers to each prompt, from the tree of its right answers.

    Raises:
        RemiError: naming the prompt, if a log-probability is not finite.
    """
    results = []
    for start in range(0, len(prompts), batch):
        part = trees[start : start + batch]
        found = node_log_probabilities(model, part)
        for conditional, prompt in zip(found, prompts[start : start + batch], strict=True):
            if not np.isfinite(conditional).all():
                raise RemiError(
                    f"scores: a log-probability after {brief(prompt.text)} is not a finite number"
                )
        results += [
            tree_scores(tree, conditional, prompt)
            for tree, conditional, prompt in zip(part, found, prompts[start : start + batch], strict=True)
        ]
    masses, wrong, other = zip(*results, strict=True)
    return ClassScores(np.stack(masses), np.array(wrong), np.array(other))
