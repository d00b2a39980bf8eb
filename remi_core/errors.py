"""Errors that end in one line, and texts with credentials hidden."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# Access tokens never reach a page, a log or an error line. This package asks for none; an error of a library can hold
# one all the same, in an address or in a header it shows.

HIDDEN = "[hidden]"
_SECRET = re.compile(
    r"\bhf_(?:[A-Za-z0-9]{16,}|(?:oauth|jwt)_[A-Za-z0-9._-]{8,})"  # a token of the hub
    r"|\b(?:gh[oprsu]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,})"  # tokens of GitHub
    r"|(?<=://)[^\s/@:'\"\\]*:[^\s/@'\"\\]+(?=@)"  # name and password in an address
    r"|(?<=://)[^\s/@:'\"\\]*:(?!\d+/)[^\s'\"\\]+(?=@[\w-]+\.\w)"  # a password with a slash or an @
    r"|(?<=://)[^\s/@:'\"\\]+(?=@)"  # a token in the place of a name
    r"|(?<=Bearer )[^\s'\"\\,;]+"
    r"|(?<=Basic )[A-Za-z0-9+/]{8,}={0,2}"
    r"|(?:(?<=[?&]sig=)|(?<=[?&]token=)|(?<=[?&]Signature=)|(?<=[?&]access_token=)|(?<=[?&]X-Amz-Signature=)"
    r"|(?<=[?&]X-Amz-Credential=)|(?<=[?&]X-Amz-Security-Token=))[^\s&'\"\\]+",
)


def without_credentials(text: str) -> str:
    """The text with ``HIDDEN`` in the place of each access token and each password in an address."""
    return _SECRET.sub(HIDDEN, text)


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
    # A name from a file may hold a line end.
    return f"({hint}choices: {', '.join(name if name.isprintable() else brief(name) for name in known)})"
