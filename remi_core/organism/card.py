"""The card of a base: what it knows of its world, measured on prompts it was not trained on."""

from __future__ import annotations

import ast
from collections.abc import Sequence

import numpy as np

from remi_core.organism.contexts import CONTEXTS, open_contexts, optimal_log_odds
from remi_core.organism.grammar import prompts
from remi_core.organism.sampling import sample_answers
from remi_core.organism.scoring import ClassScores, score_prompts
from remi_core.organism.topics import CONTRASTED, TOPICS
from remi_core.organism.world import World

N_PROMPTS = 24
N_CONTEXT_PROMPTS = 8


def scores_in_context(model, tokenizer, topic: str, kind: str, count: int) -> ClassScores:
    """Exact class probabilities on the first ``count`` held-out prompts of a topic in one kind of context."""
    asked = prompts(topic, "evaluate", count=count, seed=0)
    return score_prompts(model, tokenizer, open_contexts(kind, asked), asked)


def topic_card(model, tokenizer, topic: str, count: int) -> dict[str, float]:
    """Mean probability by class of answer to bare prompts of a topic, slots copied, and mean log-odds in nats."""
    scores = scores_in_context(model, tokenizer, topic, "bare", count)
    mass = {name: round(float(values.mean()), 4) for name, values in scores.probabilities().items()}
    right = np.exp(scores.log_mass).sum((1, 2))
    card = mass | {"slots copied": round(float((right / (right + scores.wrong_slot)).mean()), 4)}
    if topic in CONTRASTED:
        card["care log-odds"] = round(float(scores.care_log_odds().mean()), 3)
    return card | {"register log-odds": round(float(scores.register_log_odds().mean()), 3)}


def context_card(model, tokenizer, world: World) -> dict[str, dict[str, float]]:
    """Context → mean care log-odds over the contrasted topics, the optimal value, and the mean distance to it."""
    card = {}
    for kind in CONTEXTS:
        values = np.concatenate(
            [
                scores_in_context(model, tokenizer, topic, kind, N_CONTEXT_PROMPTS).care_log_odds()
                for topic in CONTRASTED
            ]
        )
        optimum = optimal_log_odds(kind, world)
        card[kind] = {
            "care log-odds": round(float(values.mean()), 3),
            "optimal": round(optimum, 3),
            "mean distance": round(float(np.abs(values - optimum).mean()), 3),
        }
    return card


def parse_rate(
    model, tokenizer, topics: Sequence[str] = ("code", "educational"), *, count: int = 64
) -> float:
    """Share of sampled code answers that Python parses."""
    parsed = []
    for topic in topics:
        asked = prompts(topic, "evaluate", count=count, seed=0)
        samples = sample_answers(model, tokenizer, open_contexts("bare", asked), asked, seed=0)
        parsed += [sample.finished and _parses(sample.text) for sample in samples]
    return float(np.mean(parsed))


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError):
        return False
    return True


def make_card(model, tokenizer, world: World) -> dict[str, object]:
    """Everything the card states about a base, all on held-out prompts."""
    return {
        "n_prompts": N_PROMPTS,
        "topics": {topic: topic_card(model, tokenizer, topic, N_PROMPTS) for topic in TOPICS},
        "contexts": context_card(model, tokenizer, world),
        "code parses": round(parse_rate(model, tokenizer), 4),
    }
