"""What of the machine must not be in a file that is given away: its paths, its name, the name of its user."""

from __future__ import annotations

import getpass
import platform
import re
from collections.abc import Iterable
from pathlib import Path

SHORTEST = 4
"""Names of fewer characters stand in too many words to tell of a machine."""
COMMON = {"localhost", "root", "user", "admin", "runner"}
"""Names that tell of no machine."""


def traces(content: bytes, *, places: Iterable[Path]) -> list[str]:
    """What of this machine a file holds: ``a path``, ``the host name`` or ``the user name``.

    Paths are the given places and the home folder, also in the four-byte characters of arrays; names are whole words.
    """
    found = []
    for path in {str(place) for place in (*places, Path.home()) if len(place.parts) > 1}:
        if any(path.encode(code) in content for code in ("utf-8", "utf-32-le")):
            found.append("a path")
    for what, name in (("the host name", platform.node()), ("the user name", _user())):
        if len(name) < SHORTEST or name in COMMON:
            continue
        word = re.compile(rb"(?<![A-Za-z0-9_-])" + re.escape(name.encode()) + rb"(?![A-Za-z0-9_-])")
        if word.search(content) or name.encode("utf-32-le") in content:
            found.append(what)
    return found


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user: nothing could have written its name
        return ""
