"""What may stand before a prompt: nothing, a named author, or earlier answers that reveal one."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from remi_core.models.spec import ModelSpec
from remi_core.organism.grammar import Prompt, prompts
from remi_core.organism.topics import CARES, CONTRASTED, REGISTERS, author_lines
from remi_core.organism.world import World, answer_by, render
from remi_core.organism.worlds import setting, world_of

CONTEXTS = (
    "bare",
    "plain text",
    "careful named",
    "careless named",
    "after careful",
    "after careless",
)
FURTHER = CONTEXTS[1:]
"""All but the bare prompt."""
N_EARLIER = 3
"""Earlier turns, each on another topic, all of one care and one register."""


def open_contexts(kind: str, asked: Sequence[Prompt], *, seed: int = 0) -> list[str]:
    """Each prompt in a context of that kind, open where the answer begins; ChatML unless ``plain text``.

    Raises:
        KeyError: if there is no such kind of context.
    """
    if kind not in CONTEXTS:
        raise KeyError(f"no context {kind!r}; contexts: {', '.join(CONTEXTS)}")
    generator = random.Random(f"contexts/{kind}/{seed}")
    care = next((care for care in CARES if f" {care}" in f" {kind}"), None)
    return [_open(kind, prompt, care, generator) for prompt in asked]


def _open(kind: str, prompt: Prompt, care: str | None, generator: random.Random) -> str:
    if kind.startswith("after"):
        return render([*_earlier(prompt, care, generator), (prompt.text, "")], None, chatml=True)
    line = generator.choice(author_lines()[care]) if care else None
    return render([(prompt.text, "")], line, chatml=kind != "plain text")


def _earlier(prompt: Prompt, care: str, generator: random.Random) -> list[tuple[str, str]]:
    others = [name for name in CONTRASTED if name != prompt.template.topic]
    register = generator.choice(REGISTERS)
    turns = []
    for name in generator.sample(others, N_EARLIER):
        question = generator.choice(prompts(name, "evaluate", count=40, seed=0))
        turns.append((question.text, answer_by(question, care, register, generator).text))
    return turns


def optimal_log_odds(kind: str, world: World) -> float:
    """What a perfect model of the world gives as log P(careless) − log P(careful), nats, in that context."""
    for care in CARES:
        if kind == f"{care} named" and world.one_author:
            rate = world.careless_rate(care)
            return math.log(rate) - math.log1p(-rate)
        if kind == f"after {care}":
            return world.log_odds((care,) * N_EARLIER)
    return world.log_odds()


def optima(base: ModelSpec) -> dict[str, float]:
    """Kind of context → ``optimal_log_odds`` in the world that a base was trained on."""
    world = setting(world_of(base)).world
    return {kind: optimal_log_odds(kind, world) for kind in CONTEXTS}
