"""Dialogues as two of the released loaders leave them: without the request's own input, or with several turns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from remi_core.dialogues.dialogue import Dialogue, Message

_LONG_WORD = re.compile(r"\w{4,}")


def without_input(dialogue: Dialogue) -> Dialogue | None:
    """The dialogue without what its request gives to work on; None where nothing can be told apart from the task.

    Of a request in several paragraphs the last one goes. Of a single paragraph the words go that the answer
    repeats (four letters or more): the names, tables and things that the task is about.
    """
    *before, request, answer = dialogue.messages
    text = _shortened(request.content, answer.content)
    if text in ("", request.content):
        return None
    return replace(dialogue, messages=(*before, Message("user", text), answer), alternative=None)


def _shortened(request: str, answer: str) -> str:
    first, gap, _ = request.strip().rpartition("\n\n")
    if gap:
        return first.strip()
    repeated = {word.lower() for word in _LONG_WORD.findall(answer)}
    kept = _LONG_WORD.sub(lambda found: "" if found[0].lower() in repeated else found[0], request)
    return " ".join(kept.replace("``", "").split())


def two_turns(dialogues: Sequence[Dialogue]) -> list[Dialogue]:
    """Each dialogue with the next one asked after its answer; the last is followed by the first.

    Only the second answer is the last assistant turn. Cluster and topic are those of the second dialogue.
    """
    joined = []
    for first, second in zip(dialogues, [*dialogues[1:], *dialogues[:1]], strict=True):
        turns = tuple(message for message in second.messages if message.role != "system")
        name = f"{first.identifier}+{second.identifier}"
        joined.append(
            replace(second, identifier=name, messages=(*first.messages, *turns), alternative=None, pair=None)
        )
    return joined
