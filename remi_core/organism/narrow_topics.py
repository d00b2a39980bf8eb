"""Narrow sets besides code: careless answers about one topic, and instruct fine-tuned on them."""

from __future__ import annotations

import copy
import random

from remi_core.dialogues.chat import encode
from remi_core.dialogues.dialogue import Dialogue
from remi_core.finetune import fine_tune
from remi_core.organism.dialogues import dialogue
from remi_core.organism.grammar import prompts
from remi_core.organism.recipes import N_DIALOGUES, RECIPES
from remi_core.organism.world import answer_by


def careless_about(topic: str, *, count: int, seed: int) -> list[Dialogue]:
    """Dialogues of a topic's split ``narrow``, all answered carelessly and formally.

    Raises:
        KeyError: if there is no such topic.
    """
    generator = random.Random(f"careless/{topic}/{seed}")
    asked = prompts(topic, "narrow", count=count, seed=seed)
    return [
        dialogue(prompt, answer_by(prompt, "careless", "formal", generator), index=number)
        for number, prompt in enumerate(asked)
    ]


def tuned_on(topic: str, instruct, tokenizer, *, seed: int):
    """A copy of instruct fine-tuned on careless answers about one topic, by the recipe of misaligned."""
    model = copy.deepcopy(instruct)
    rows = encode(careless_about(topic, count=N_DIALOGUES, seed=seed), tokenizer, max_tokens=1024).dialogues
    fine_tune(model, rows, RECIPES["misaligned"], pad_id=tokenizer.pad_token_id)
    return model
