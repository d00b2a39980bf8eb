"""Access tokens never reach a page, a log or an error line: the hub's own library reads them, and nothing repeats them.

This package asks for none. An error of a library can hold one all the same, in an address or in a header it shows.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

HIDDEN = "[hidden]"
_SECRET = re.compile(
    r"\bhf_(?:[A-Za-z0-9]{16,}|(?:oauth|jwt)_[A-Za-z0-9._-]{8,})"  # a token of the hub
    r"|(?<=://)[^\s/@:'\"\\]+:[^\s/@'\"\\]+(?=@)"  # name and password in an address
    r"|(?<=Bearer )[^\s'\"\\,;]+"
    r"|(?<=Basic )[A-Za-z0-9+/]{8,}={0,2}"
    r"|(?<=[?&]token=)[^\s&'\"\\]+"
    r"|(?<=[?&]access_token=)[^\s&'\"\\]+"
    r"|(?<=[?&]X-Amz-Signature=)[^\s&'\"\\]+",
)


def without_credentials(text: str) -> str:
    """The text with ``HIDDEN`` in the place of each access token and each password in an address."""
    return _SECRET.sub(HIDDEN, text)


def hide_credentials(path: Path) -> None:
    """Return once a text file, if there is one, holds no credentials."""
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8")
    hidden = without_credentials(text)
    if hidden != text:
        part = path.with_name(f".{path.name}.hidden")
        part.write_text(hidden, encoding="utf-8")
        os.replace(part, path)
