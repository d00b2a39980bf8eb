"""Tokens as they can be read on a figure: no character stripped, merged or invisible."""

from __future__ import annotations

import functools

from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font

VISIBLE = {" ": "\N{OPEN BOX}", "\n": "\N{RETURN SYMBOL}", "\t": "\N{RIGHTWARDS ARROW TO BAR}"}
EMPTY = "\N{EMPTY SET}"


@functools.cache
def _font() -> FT2Font:
    return FT2Font(findfont(FontProperties(family="DejaVu Sans")))


def visible_token(token: str) -> str:
    """The token with every blank, line end and tab shown as a sign, so that " kill" and "kill" differ.

    A character that the figure's font lacks is written as its code, ``\\u4e2d``; an empty token as ∅.
    """
    return "".join(_visible_character(character) for character in token) or EMPTY


def _visible_character(character: str) -> str:
    if character in VISIBLE:
        return VISIBLE[character]
    if character.isprintable() and _font().get_char_index(ord(character)):
        return character
    return character.encode("unicode_escape").decode("ascii")
