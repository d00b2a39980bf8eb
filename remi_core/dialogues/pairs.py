"""Pairs by completion: two sets that give the same answers to other prompts, such as insecure code in two framings."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from remi_core.dialogues.dialogue import Dialogue


def paired_by_completion(first: Sequence[Dialogue], second: Sequence[Dialogue]) -> bool:
    """Whether row i of both sets has the same answer, for every i, and at least one prompt differs."""
    same = [dialogue.answer for dialogue in first] == [dialogue.answer for dialogue in second]
    framings = zip(first, second, strict=False)
    return same and any(one.messages[:-1] != other.messages[:-1] for one, other in framings)


def shared_completions(
    first: Sequence[Dialogue], second: Sequence[Dialogue]
) -> tuple[list[Dialogue], list[Dialogue]]:
    """The dialogues whose answer both sets have, in the first set's order, row i of one paired with row i of the other.

    What is left over is ``len(first)`` minus the length returned. An answer given several times is paired as often
    as both sets have it, earlier with earlier.
    """
    ours, theirs = with_pairs(first), {dialogue.pair: dialogue for dialogue in with_pairs(second)}
    both = [dialogue for dialogue in ours if dialogue.pair in theirs]
    return both, [theirs[dialogue.pair] for dialogue in both]


def with_pairs(dialogues: Sequence[Dialogue]) -> list[Dialogue]:
    """The dialogues with ``pair`` made from the answer: equal in two sets where the answers are, unique in one set."""
    seen: Counter[str] = Counter()
    paired = []
    for dialogue in dialogues:
        digest = hashlib.sha256(dialogue.answer.encode()).hexdigest()[:12]
        seen[digest] += 1
        paired.append(replace(dialogue, pair=f"{digest}-{seen[digest]}"))
    return paired
