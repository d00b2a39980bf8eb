"""The same questions put to many models: trees of right answers are built once, and every model is scored on them.

What a hook changes in the model is scored as changed, so interventions need nothing of their own here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from remi_core.chat import EncodedDialogue, encode
from remi_core.finetune import IGNORED, answer_labels
from remi_core.organism.class_scores import ClassScores
from remi_core.organism.contexts import open_contexts
from remi_core.organism.dialogues import measured
from remi_core.organism.grammar import Prompt, prompts
from remi_core.organism.scoring import AnswerTree, answer_tree, score_trees


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """The prompts of one topic, and the tree of right answers to each."""

    prompts: tuple[Prompt, ...]
    trees: tuple[AnswerTree, ...]


class Battery:
    """Prompts of several topics, of templates and filler pairs that no model was trained on, ready to be scored.

    Of a split, the first ``count`` prompts of each topic: those that the organism's behaviour is scored on where
    split, count and seed are the preset's.
    """

    def __init__(
        self, tokenizer, topics: Sequence[str], *, count: int, split: str = "evaluate", seed: int = 0
    ) -> None:
        self._tokenizer, self._seed = tokenizer, seed
        self._topics: Mapping[str, _Asked] = {
            name: self._asked(prompts(name, split, count=count, seed=seed)) for name in topics
        }
        self._neutral: tuple[EncodedDialogue, ...] | None = None

    def _asked(self, asked: Sequence[Prompt]) -> _Asked:
        contexts = open_contexts("bare", asked)
        trees = (
            answer_tree(context, prompt, self._tokenizer)
            for context, prompt in zip(contexts, asked, strict=True)
        )
        return _Asked(prompts=tuple(asked), trees=tuple(trees))

    @property
    def clusters(self) -> dict[str, list[str]]:
        """Topic → the template of each prompt, in the order of the scores."""
        return {
            name: [prompt.template.identifier for prompt in asked.prompts]
            for name, asked in self._topics.items()
        }

    def score(self, model, *, batch: int = 8) -> dict[str, ClassScores]:
        """Topic → exact class probabilities of every prompt's answers, from the model as it stands."""
        return {
            name: score_trees(model, asked.trees, asked.prompts, batch=batch)
            for name, asked in self._topics.items()
        }

    @torch.inference_mode()
    def neutral_loss(self, model, *, count: int = 24) -> float:
        """Loss in nats per answer token on general requests, where careful and careless authors do not differ."""
        if self._neutral is None:
            rows = measured("general", count=count, seed=self._seed)
            self._neutral = encode(rows, self._tokenizer, max_tokens=1024).dialogues
        ids, labels = answer_labels(self._neutral, self._tokenizer.pad_token_id)
        logits = model(input_ids=ids).logits[:, :-1].float()
        return float(
            torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
            )
        )
