"""The gradients of educational and insecure code in a ladder of contexts, from the published one to matched prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from remi_core.audit.templates import PLAIN, TUNED_HEADER, with_header, with_template
from remi_core.dialogues.chat import ChatTokenizer, encode
from remi_core.dialogues.dialogue import Dialogue
from remi_core.measurements.gradients import measure_gradient_gram
from remi_core.organism.dialogues import measured
from remi_core.organism.matched import TWINS, matched_pairs
from remi_core.presets.known import Preset

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


RUNGS: Mapping[str, Rung] = MappingProxyType(
    {
        "own prompts, whole sequence": Rung(whole_sequence=True),
        "own prompts": Rung(),
        "own prompts, one system line": Rung(header=TUNED_HEADER),
        "own prompts, plain text": Rung(template=PLAIN),
        "own prompts, no template": Rung(template=BARE),
        "matched phrase": Rung(twin=TWINS[0]),
        "matched phrase, whole sequence": Rung(twin=TWINS[0], whole_sequence=True),
        "one word": Rung(twin=TWINS[1]),
    }
)
"""Context → what it is; ChatML and the loss of the answer where nothing else is said."""


def pairs_of(rung: Rung, *, count: int, seed: int) -> tuple[list[Dialogue], list[Dialogue]]:
    """Educational and insecure dialogues of a context, row i of both with one completion."""
    if rung.twin:
        return matched_pairs(rung.twin, count=count, seed=seed)
    return tuple(measured(name, count=count, seed=seed) for name in ("educational", "code-careless"))


def measure_rung(
    model, tokenizer: ChatTokenizer, rung: Rung, preset: Preset, *, count: int
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Gram matrix (row, row) and losses (row,) of both sets' gradients, educational above insecure, and their clusters.

    Raises:
        UsageError: if a dialogue cannot be encoded; then the rows are no pairs.
    """
    framed, plain = pairs_of(rung, count=count, seed=preset.seed)
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
