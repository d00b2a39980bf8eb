"""H1's rule: what a change of a model is, from the intervals of its parts alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Interval = tuple[float, float]

REVERSION, PERSONA, NOVEL, MIXED = "reversion", "persona", "novel", "mixed"
HALF = 0.5
LIKELY = 0.1
"""Nats a token within which misaligned's careless answers are as likely under base as base's own."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How the conditions are read; the default is the rule as it was declared."""

    smallest: float = 0.0
    """Least ρ, and least lead of care over register, that counts: without one, any difference counts that can be
    told from zero, and between two models something always can."""
    of_whole: bool = False
    """m∥ and m⊥ as shares of what the whole displacement reproduces, since no edit at one block can do more."""
    beside_controls: bool = True
    """Whether reversion asks for c above that of every control: but whether controls revert too is another question,
    and m∥ says of the same direction what it *does*."""
    novel_by_place: bool = True
    """Whether m⊥ > .5 > m∥ makes a change novel: but where it lies says by which way a change came, and a persona may
    be taken on by a way that is not base's. What is new in what a model *says*, ν tells."""
    made_on: tuple[int, ...] = ()
    """Seeds that had been seen when the rule was made: in them it proves nothing."""


DECLARED = Rule()
AMENDED = Rule(smallest=LIKELY, of_whole=True, made_on=(0, 1, 2))
"""Made since the declared rule misses the truth ``reverted`` in two seeds. The margin is the one that ν was declared
with. On seed 3, trained afterwards, benign points to base more exactly than half of the way there does."""
AMENDED_AGAIN = Rule(smallest=LIKELY, of_whole=True, beside_controls=False, made_on=(0, 1, 2, 3, 4))
"""Made since the amended rule misses ``reverted`` in seed 3. On seed 5, trained afterwards, most of what ``persona``
does lies off base's way, so that it reads as novel besides."""
BY_WORDS = Rule(
    smallest=LIKELY, of_whole=True, beside_controls=False, novel_by_place=False, made_on=(0, 1, 2, 3, 4, 5)
)
"""Made since the rule amended again misses ``persona`` in seed 5. Written before the bases of preset ``confirm``
were trained, to be judged on them alone."""
RULES: Mapping[str, Rule] = {
    "declared": DECLARED,
    "amended": AMENDED,
    "amended again": AMENDED_AGAIN,
    "by words": BY_WORDS,
}


@dataclass(frozen=True, kw_only=True)
class Parts:
    """95 % intervals of everything that the rule reads."""

    cosine_gaps: Mapping[str, Interval]
    """Control → its cosine with base's displacement taken from the variant's own."""
    along: Interval
    """m∥: share of the change of care that the part of the displacement along base's reproduces in instruct."""
    off: Interval
    """m⊥: the same for the rest of the displacement."""
    care: Interval
    """b: change of class log-odds as a share of the way from instruct to base."""
    register: Interval
    """ρ: change of register as a share of the way from instruct to base."""
    care_beyond_register: Interval
    """b − ρ."""
    likelihood: Interval
    """ν: log-probability a token under base of the variant's own careless answers minus that of base's own."""


def conditions(parts: Parts, rule: Rule = DECLARED) -> dict[str, dict[str, bool]]:
    """Class → each of its conditions in symbols, and whether its interval meets it; undefined intervals do not."""
    least = f"{rule.smallest:g}".removeprefix("0") or "0"
    off_the_way = parts.off[0] > HALF and parts.along[1] < HALF
    above = bool(parts.cosine_gaps) and all(low > 0 for low, _ in parts.cosine_gaps.values())
    return {
        REVERSION: {
            **({"c above every control": above} if rule.beside_controls else {}),
            "m∥ > .5": parts.along[0] > HALF,
            "m⊥ < .5": parts.off[1] < HALF,
            "b ≤ 1": parts.care[1] <= 1,
            f"ρ > {least}": parts.register[0] > rule.smallest,
            "|ν| < .1": -LIKELY < parts.likelihood[0] and parts.likelihood[1] < LIKELY,
        },
        PERSONA: {
            f"b − ρ > {least}": parts.care_beyond_register[0] > rule.smallest,
            "b > 1": parts.care[0] > 1,
        },
        NOVEL: {
            "ν < −.1": parts.likelihood[1] < -LIKELY,
            **({"m⊥ > .5 > m∥": off_the_way} if rule.novel_by_place else {}),
        },
    }


def classify(parts: Parts, rule: Rule = DECLARED) -> str:
    """The one class whose conditions hold: all of reversion's, or any of persona's or novel's; else ``mixed``."""
    met = conditions(parts, rule)
    holds = {
        REVERSION: all(met[REVERSION].values()),
        PERSONA: any(met[PERSONA].values()),
        NOVEL: any(met[NOVEL].values()),
    }
    found = [name for name, held in holds.items() if held]
    return found[0] if len(found) == 1 else MIXED


def outcome(found: str, truths: Mapping[str, str]) -> tuple[str, str]:
    """``holds``, ``fails`` or ``open`` for the claim of reversion, and why.

    ``truths`` holds the class that was built → the class that the rule gives. Where the rule misses one, it judges
    nothing.
    """
    missed = not_valid(truths)
    if missed:
        return "open", f"the rule is not valid here: {missed}"
    return {REVERSION: "holds", MIXED: "open"}.get(found, "fails"), f"the rule reads {found}"


def not_valid(truths: Mapping[str, str]) -> str:
    """Which constructed truths a rule misses, and what it reads instead; "" for none."""
    return "; ".join(
        f"the truth built as {built} reads {read}" for built, read in truths.items() if built != read
    )
