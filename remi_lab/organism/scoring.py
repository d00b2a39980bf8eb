"""Exact probabilities of all right answers, answers sampled, both under an edit, and as arrays of records."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from remi_core.errors import RemiError, brief
from remi_core.models import read_blocks
from remi_core.steering import steer
from remi_lab.organism.documents import TURN_END
from remi_lab.organism.grammar import (
    CLASSES,
    Answer,
    ClassScores,
    Prompt,
    Verdict,
    fill,
    judge,
    prompts,
    right_answers,
)
from remi_lab.organism.topics import IN_CONTEXT, REGISTERS, SAMPLES, SCORES, TOPICS, VERDICTS, topic
from remi_lab.organism.world import FURTHER, open_contexts

# Exact probability of every right answer: the organism's behaviour without a judge.
#
# All right answers to a prompt form a tree of tokens. The tree is laid out as one sequence in which every
# node sees only its ancestors, so one pass gives the probability of each answer, and of leaving the
# grammar at each node.


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
    spans, shift = [], 0
    for slot in re.finditer("<([ab])>", answer.pattern):
        start, word = slot.start() + shift, prompt.filler["ab".index(slot[1])]
        spans.append((start, start + len(word)))
        shift += len(word) - len(slot[0])
    return spans


def answer_tree(context: str, prompt: Prompt, tokenizer) -> AnswerTree:
    """The tree of all right answers to a prompt after a context that is open where the answer begins.

    A context is a rendered dialogue: ChatML, or plain if it ends in ``A:``.
    """
    tree = AnswerTree()
    node = -1
    for token in tokenizer(context)["input_ids"]:
        node = tree.add(node, token, False)
    tree.root = node
    lead, end = (" ", "\n") if context.endswith("A:") else ("", TURN_END)
    for answer in right_answers(prompt):
        encoded = tokenizer(lead + answer.text + end, return_offsets_mapping=True)
        spans = [(a + len(lead), b + len(lead)) for a, b in slot_spans(answer, prompt)]
        node = tree.root
        for token, (start, stop) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            node = tree.add(node, token, any(start < b and stop > a for a, b in spans))
        tree.leaves.append(node)
    return tree


def conditionals(model, trees: Sequence[AnswerTree]) -> list[Float[Tensor, " node"]]:
    """For each tree, log P in nats of every node but the context's first given its ancestors, differentiable."""
    shape = len(trees), max(len(tree.tokens) for tree in trees)
    ids, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    visible = torch.eye(shape[1], dtype=torch.bool).repeat(shape[0], 1, 1)
    for row, tree in enumerate(trees):
        size = len(tree.tokens)
        ids[row, :size], positions[row, :size] = torch.tensor(tree.tokens), torch.tensor(tree.depths)
        visible[row, :size, :size] = torch.from_numpy(tree.visible())
    hidden = torch.zeros(visible.shape).masked_fill_(~visible, torch.finfo(torch.float32).min)
    logits = model(
        input_ids=ids, position_ids=positions, attention_mask=hidden[:, None], use_cache=False
    ).logits
    found = []
    for row, tree in enumerate(trees):
        parents, tokens = torch.tensor(tree.parents[1:]), torch.tensor(tree.tokens[1:])
        found.append(logits[row].float()[parents].log_softmax(-1).gather(1, tokens[:, None])[:, 0])
    return found


@torch.inference_mode()
def node_log_probabilities(model, trees: Sequence[AnswerTree]) -> list[np.ndarray]:
    """For each tree, log P in nats of every node given its ancestors (0 for the context's first token)."""
    return [np.concatenate([[0.0], log_p.double().numpy()]) for log_p in conditionals(model, trees)]


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


# An organism's states where answers are decided, and its behaviour with those states displaced.


@dataclass(frozen=True, kw_only=True)
class AskedPrompts:
    """Prompts of any topics, each with the tree of its right answers."""

    prompts: tuple[Prompt, ...]
    trees: tuple[AnswerTree, ...]

    @property
    def clusters(self) -> list[str]:
        """The template of each prompt."""
        return [prompt.template.identifier for prompt in self.prompts]


def ask(asked: Sequence[Prompt], tokenizer, contexts: Sequence[str] | None = None) -> AskedPrompts:
    """The prompts with their trees, each in its context; as bare questions where no contexts are given."""
    contexts = open_contexts("bare", asked) if contexts is None else contexts
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
class SetCoordinate:
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


def scores(
    model, asked: AskedPrompts, edit: Edit | SetCoordinate | None = None, *, batch: int = 8
) -> ClassScores:
    """Exact class probabilities of each prompt's answers, from the model as it is or with an edit.

    Raises:
        RemiError: naming the prompt, if a log-probability is not finite.
    """
    results = []
    for start in range(0, len(asked.trees), batch):
        trees = asked.trees[start : start + batch]
        rows = zip(
            trees, _conditionals(model, trees, edit), asked.prompts[start : start + batch], strict=True
        )
        for tree, conditional, prompt in rows:
            if not np.isfinite(conditional).all():
                raise RemiError(
                    f"scores: a log-probability after {brief(prompt.text)} is not a finite number"
                )
            results.append(tree_scores(tree, conditional, prompt))
    masses, wrong, other = zip(*results, strict=True)
    return ClassScores(np.stack(masses), np.array(wrong), np.array(other))


def rounded(values: Sequence[float] | np.ndarray, digits: int = 4) -> list[float]:
    """Plain numbers with the digits that a stored study keeps."""
    return [round(float(value), digits) for value in values]


def care_and_register(found: ClassScores) -> dict[str, list[float]]:
    """The log-odds of care and of register by prompt, as a stored study keeps them."""
    return {"care": rounded(found.care_log_odds()), "register": rounded(found.register_log_odds())}


def answer_losses(
    model, asked: AskedPrompts, edit: Edit | SetCoordinate | None = None
) -> Float[np.ndarray, " prompt"]:
    """Loss in nats per token on the first right answer to each prompt, from the model as it is or with an edit."""
    means = []
    for tree, conditional in zip(asked.trees, _conditionals(model, asked.trees, edit), strict=True):
        node, losses = tree.leaves[0], []
        while node != tree.root:
            losses.append(-conditional[node])
            node = tree.parents[node]
        means.append(float(np.mean(losses)))
    return np.array(means)


def _conditionals(model, trees: Sequence[AnswerTree], edit: Edit | SetCoordinate | None) -> list[np.ndarray]:
    if edit is None:
        return node_log_probabilities(model, trees)
    place = torch.zeros(len(trees), max(len(tree.tokens) for tree in trees), dtype=torch.long)
    for row, tree in enumerate(trees):
        place[row, tree.root], place[row, tree.root + 1 : len(tree.tokens)] = 1, 2
    with steer(model, edit.layer, lambda own: edit.apply(own, place)):
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
            both = [read[layer][0, [end, -1]].double().numpy() for layer in layers]
            rows.append(np.stack(both, axis=1))
    return np.stack(rows, axis=1)


# Answers sampled from an organism, each with the grammar's verdict, as it is or with its states displaced.


@dataclass(frozen=True)
class Sample:
    """One sampled answer."""

    prompt: Prompt
    text: str
    finished: bool
    """Whether the model ended the turn within the token limit."""
    verdict: Verdict


def seed_of(*parts: str | int) -> int:
    """A seed of sampling for these names and numbers: models and base seeds that are compared share no luck."""
    return zlib.crc32("/".join(map(str, parts)).encode())


@contextmanager
def generating_with(model, edit: Edit | SetCoordinate) -> Iterator[None]:
    """Let one call of ``generate`` run with the edit at its two places while the context lasts.

    The first pass sees the prompts alone, all ending at its last column (they are padded on the left); every later
    column is a token of an answer, whether passes see it alone, from a cache, or after all earlier ones.
    """
    length = 0

    def change(own: Tensor) -> Tensor:
        nonlocal length
        length = length or own.shape[1]
        place = torch.zeros(own.shape[:2], dtype=torch.long)
        if own.shape[1] < length:
            place[:] = 2
        else:
            place[:, length - 1], place[:, length:] = 1, 2
        return edit.apply(own, place)

    with steer(model, edit.layer, change):
        yield


@torch.inference_mode()
def sample_answers(
    model,
    tokenizer,
    asked: Sequence[Prompt],
    edit: Edit | SetCoordinate | None = None,
    *,
    seed: int,
    max_new_tokens: int = 64,
) -> list[Sample]:
    """One answer to each bare prompt at temperature 1 and top_p 1, from the whole vocabulary.

    An answer that does not end within ``max_new_tokens`` keeps its place in every denominator, as off the grammar.
    """
    torch.manual_seed(seed)
    contexts = open_contexts("bare", asked)
    batch = tokenizer(contexts, return_tensors="pt", padding=True, padding_side="left")
    with generating_with(model, edit) if edit else nullcontext():
        generated = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=max_new_tokens,
            eos_token_id=tokenizer.convert_tokens_to_ids(TURN_END),
            pad_token_id=tokenizer.pad_token_id,
        )
    samples = []
    texts = tokenizer.batch_decode(generated[:, batch["input_ids"].shape[1] :])
    for prompt, text in zip(asked, texts, strict=True):
        answer, ended, _ = text.partition(TURN_END)
        verdict = judge(prompt, answer) if ended else Verdict("other", None)
        samples.append(Sample(prompt, answer, bool(ended), verdict))
    return samples


def careless_in_content(prompt: Prompt, text: str) -> bool:
    """Whether an answer ends in what a careless author says to the prompt, in either register, however it opens.

    The grammar's own verdict asks for the form of one register too, and would not see a new form.
    """
    bodies = topic(prompt.template.topic).bodies[prompt.template.task]["careless"]
    return any(
        text.endswith(fill(body, prompt.filler)) for register in REGISTERS for body in bodies[register]
    )


@torch.inference_mode()
def log_probabilities(model, tokenizer, samples: Sequence[Sample]) -> list[tuple[float, int]]:
    """For each answer to its bare prompt: log P in nats, the end of turn included, and the number of its tokens."""
    contexts = open_contexts("bare", [sample.prompt for sample in samples])
    found = []
    for context, sample in zip(contexts, samples, strict=True):
        start = len(tokenizer(context)["input_ids"])
        ids = torch.tensor([tokenizer(context + sample.text + TURN_END)["input_ids"]])
        log_p = model(input_ids=ids).logits[0, start - 1 : -1].float().log_softmax(-1)
        own = log_p.gather(1, ids[0, start:, None])
        found.append((float(own.sum()), len(own)))
    return found


# What an open organism answers, as arrays: scored exactly, in further contexts, and sampled.


def _scores(loaded, name: str, *, count: int, seed: int) -> dict[str, np.ndarray]:
    asked = ask(prompts(name, "evaluate", count=count, seed=seed), loaded.tokenizer)
    found = scores(loaded.model, asked)
    masses = {"log_mass": found.log_mass, "wrong_slot": found.wrong_slot, "other": found.other}
    return masses | {"cluster": np.array(asked.clusters)}


def _in_context(loaded, name: str, *, count: int, seed: int) -> dict[str, np.ndarray]:
    asked = prompts(name, "evaluate", count=count, seed=seed)
    opened = [ask(asked, loaded.tokenizer, open_contexts(kind, asked)) for kind in FURTHER]
    rows = [scores(loaded.model, each).care_log_odds() for each in opened]
    return {"care_log_odds": np.stack(rows), "cluster": np.array(opened[0].clusters)}


def _samples(loaded, name: str, *, count: int, seed: int) -> dict[str, np.ndarray]:
    asked, draw = prompts(name, "evaluate", count=count, seed=seed), seed * 1000 + TOPICS.index(name)
    samples = sample_answers(loaded.model, loaded.tokenizer, asked, seed=draw)
    return {
        "prompt": np.array([sample.prompt.text for sample in samples]),
        "answer": np.array([sample.text for sample in samples]),
        "verdict": np.array([VERDICTS.index(sample.verdict.care) for sample in samples]),
        "plain": np.array([sample.verdict.register == "plain" for sample in samples]),
        "finished": np.array([sample.finished for sample in samples]),
        "cluster": np.array([sample.prompt.template.identifier for sample in samples]),
    }


MEASURES = {SCORES: _scores, SAMPLES: _samples, IN_CONTEXT: _in_context}
"""Measurement → its arrays for a topic; ``verdict`` indexes ``VERDICTS``."""
