"""The ways a command can end badly, and the sentence that names the valid choices."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """Wrong use: the command line prints the message in one line and exits with 2."""


class RemiError(RuntimeError):
    """A failure of something used correctly: printed in one line, exit 1."""


class MissingInput(RemiError):
    """What a figure or claim needs and the preset lacks; a claim that meets it is not testable there."""


def brief(value: object, longest: int = 80) -> str:
    """The value as Python spells it, its middle left out where it is long: an error stays one readable line."""
    text = repr(value)
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


def nearest(value: str, choices: Iterable[str]) -> str:
    """The tail of an error line: ``(did you mean 'x'? choices: …)``, nearest name first where one is close."""
    known = sorted(choices)
    close = difflib.get_close_matches(value, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"({hint}choices: {', '.join(known)})"
