"""Text of real data sets, and what models make of it, is withheld from pages unless a switch says otherwise.

Real data may be harmful, private or under terms of its own, and a page is copied further than the data. The grammar of
this package is none of these, so it is always shown.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from remi_core.errors import UsageError
from remi_core.fingerprint import text_digest
from remi_core.origins import REAL, origin_of, real_sets
from remi_core.presets.known import Preset

SWITCH = "REMI_SHOW_TEXT"
"""Environment variable that shows the text: ``1``; withheld where it is ``0``, empty or not set."""

MARK = "\N{BLACK SMALL SQUARE}"
"""Begins whatever stands in place of a text."""

NOTE = f"Withheld ({MARK}): text that is not this package's own; {SWITCH}=1 shows it."


def text_is_shown() -> bool:
    """Whether the text of real data sets is shown.

    Raises:
        UsageError: if the switch says neither 1 nor 0.
    """
    value = os.environ.get(SWITCH, "")
    if value not in ("", "0", "1"):
        raise UsageError(f"{SWITCH} is {value!r}; 1 shows the text of real data sets, 0 withholds it")
    return value == "1"


def show_text() -> None:
    """Return with the switch set, for this process and the notebooks that it starts."""
    os.environ[SWITCH] = "1"


def key_fields(preset: Preset) -> dict[str, str]:
    """What the key of an executed notebook adds, so that a page made with the text never passes for one without."""
    return {"text": "shown"} if real_sets(preset) and text_is_shown() else {}


def is_withheld(preset: Preset, datasets: Iterable[str]) -> bool:
    """Whether what is made of these sets must not show their words."""
    return any(origin_of(preset, name) in REAL for name in datasets) and not text_is_shown()


def shown_text(preset: Preset, dataset: str, text: str) -> str:
    """A text of the set, or in its place how long it is."""
    return f"{MARK} withheld, {len(text)} characters" if is_withheld(preset, [dataset]) else text


def shown_tokens(preset: Preset, datasets: Iterable[str], tokens: Iterable[str]) -> list[str]:
    """Tokens of the sets, or in place of each a sign that is the same for the same token."""
    tokens = list(tokens)
    if not is_withheld(preset, datasets):
        return tokens
    return [MARK + text_digest(token)[:4] for token in tokens]
