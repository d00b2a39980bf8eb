"""Named windows of a dialogue: the tokens over which activations are averaged."""

from __future__ import annotations

from remi_core.dialogues.chat import EncodedDialogue
from remi_core.errors import UsageError, nearest

WINDOWS = ("prompt_end", "answer_first_k", "answer_all", "choice")


def window_span(dialogue: EncodedDialogue, window: str, *, first_k: int) -> tuple[int, int]:
    """Token positions [start, stop) of a window; empty where the dialogue has no such token.

    Raises:
        UsageError: if the window is none of ``WINDOWS``.
    """
    if window == "prompt_end":
        return dialogue.prompt_end, dialogue.prompt_end + 1
    if window == "answer_first_k":
        return dialogue.answer_start, min(dialogue.answer_start + first_k, dialogue.answer_stop)
    if window == "answer_all":
        return dialogue.answer_start, dialogue.answer_stop
    if window == "choice":
        return (0, 0) if dialogue.choice is None else (dialogue.choice, dialogue.choice + 1)
    raise UsageError(f"unknown window {window!r} {nearest(window, WINDOWS)}")
