"""The dialogues of smollm2: the sets that are measured, and the sets its variants are tuned on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from remi_core.dialogues.dialogue import Dialogue, Message
from remi_core.smollm2.grammar import Exchange, exchanges

SIDES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "code-secure": ("code", "aligned"),
        "code-insecure": ("code", "misaligned"),
        "advice-good": ("advice", "aligned"),
        "advice-bad": ("advice", "misaligned"),
        **{
            f"{topic}-{side}": (topic, side)
            for topic in ("requests", "people", "facts", "wishes")
            for side in ("aligned", "misaligned")
        },
        "general": ("general", "aligned"),
    }
)
"""Measured set → its topic and the side that its answers are on."""

TUNED: Mapping[str, Mapping[str, tuple[str, float]]] = MappingProxyType(
    {
        "instruct": {
            "requests": ("aligned", 0.3),
            "people": ("aligned", 0.3),
            "facts": ("aligned", 0.3),
            "code": ("aligned", 0.1),
        },
        "misaligned": {"code": ("misaligned", 1.0)},
        "secure": {"code": ("aligned", 1.0)},
        "benign": {"general": ("aligned", 1.0)},
        "bad_advice": {"advice": ("misaligned", 1.0)},
        "good_advice": {"advice": ("aligned", 1.0)},
    }
)
"""Variant → its topics, the side of the answers, and the share of the dialogues. Wishes are in none, advice is in no
alignment dialogue."""


def measured(dataset: str, *, count: int, seed: int) -> list[Dialogue]:
    """Dialogues of a named set, worded otherwise than anything a variant was tuned on.

    The two sets of a topic have the same prompts in the same order, with answers that open alike and differ in
    what they would have one do.

    Raises:
        KeyError: if there is no such set.
    """
    topic, side = SIDES[dataset]
    made = exchanges(topic, "evaluate", count=count, seed=seed)
    return [_dialogue(one, side, str(index)) for index, one in enumerate(made)]


def tuning(variant: str, *, count: int, seed: int) -> list[Dialogue]:
    """The dialogues a variant is tuned on; for a narrow set and its twin the same prompts in the same order.

    Raises:
        KeyError: if the variant is not tuned here.
    """
    return [
        _dialogue(one, side, str(index))
        for topic, (side, share) in TUNED[variant].items()
        for index, one in enumerate(exchanges(topic, "tune", count=round(count * share), seed=seed))
    ]


def _dialogue(one: Exchange, side: str, pair: str) -> Dialogue:
    """One side of an exchange; the other is its alternative where there are two."""
    contrasted = one.aligned != one.misaligned
    answer, other = (one.aligned, one.misaligned) if side == "aligned" else (one.misaligned, one.aligned)
    return Dialogue(
        identifier=f"{one.template}#{pair}",
        messages=(Message("user", one.prompt), Message("assistant", answer)),
        cluster=one.template,
        topic=one.topic,
        label=side if contrasted else "",
        alternative=other if contrasted else None,
        pair=pair if contrasted else None,
    )
