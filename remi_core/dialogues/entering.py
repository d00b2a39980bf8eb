"""Which tokens of a dialogue enter each statistic of this book: the windows, and what is scored or differentiated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from remi_core.dialogues.chat import EncodedDialogue
from remi_core.dialogues.windows import WINDOWS, window_span
from remi_core.errors import UsageError, nearest


@dataclass(frozen=True)
class Statistic:
    """What a token that enters gives to a statistic, and where the model is read for it."""

    label: str
    takes: str
    """One sentence, which ends in a full stop."""
    shift: int = 0
    """Where the model is read, against the token: 0 at the token itself, -1 at the one before, which predicts it."""


STATISTICS: Mapping[str, Statistic] = {
    "prompt_end": Statistic(
        "window prompt_end", "The block outputs at this token are the window's activation."
    ),
    "answer_first_k": Statistic(
        "window answer_first_k", "The block outputs at these tokens are averaged to the window's activation."
    ),
    "answer_all": Statistic(
        "window answer_all", "The block outputs at these tokens are averaged to the window's activation."
    ),
    "choice": Statistic("window choice", "The block outputs at this token are the window's activation."),
    "log_probability": Statistic(
        "log-probability and entropy",
        "Each is predicted at the token before it; the log-probabilities are summed, or averaged a token.",
        -1,
    ),
    "next_token": Statistic(
        "likeliest tokens at the choice", "It is predicted at the token before it, with all its rivals.", -1
    ),
    "loss_vector": Statistic(
        "loss vector", "Each is predicted at the token before it; the losses are the vector's entries.", -1
    ),
    "gradient": Statistic(
        "gradient",
        "Each is predicted at the token before it; the mean of their losses is differentiated.",
        -1,
    ),
    "gradient_as_released": Statistic(
        "gradient as released",
        "Each is predicted at the token before it, prompt and template included; the audit shows what that does.",
        -1,
    ),
}
"""Every statistic of one dialogue, the windows first, in their order."""


def entering_span(
    dialogue: EncodedDialogue, statistic: str, *, first_k: int, loss_tokens: int
) -> tuple[int, int]:
    """Token positions [start, stop) that enter a statistic; empty where the dialogue has no part in it.

    ``first_k`` is the preset's ``answer_first_k``, ``loss_tokens`` the length of its loss vectors.

    Raises:
        UsageError: if the statistic is none of ``STATISTICS``.
    """
    if statistic in WINDOWS:
        return window_span(dialogue, statistic, first_k=first_k)
    if statistic in ("log_probability", "gradient"):
        return dialogue.answer_start, dialogue.answer_stop
    if statistic == "next_token":
        return window_span(dialogue, "choice", first_k=first_k)
    if statistic == "loss_vector":
        # A shorter answer has no such vector: all are of one length.
        enough = dialogue.n_answer >= loss_tokens
        return (dialogue.answer_start, dialogue.answer_start + loss_tokens) if enough else (0, 0)
    if statistic == "gradient_as_released":
        return 1, len(dialogue.input_ids)
    raise UsageError(f"unknown statistic {statistic!r} {nearest(statistic, STATISTICS)}")
