"""Attributes of the package as their docstrings say, where napoleon takes what stands before a colon for a type."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

TYPE = ":type: "
AFTER_NAPOLEON = 600


def with_its_beginning(lines: list[str]) -> list[str]:
    """The lines of an attribute's docstring, what was cut from before its first colon put back."""
    cut = next((number for number, line in enumerate(lines) if line.startswith(TYPE)), None)
    if cut is None:
        return lines
    beginning = lines[cut].removeprefix(TYPE)
    left = [*lines[:cut], *lines[cut + 1 :]]
    first = next(number for number, line in enumerate(left) if line.strip())
    left[first] = f"{beginning}: {left[first]}"
    return left


def _mend(app: Sphinx, what: str, name: str, it: object, options: object, lines: list[str]) -> None:
    if what in ("attribute", "data", "property"):
        lines[:] = with_its_beginning(lines)


def _short(
    app: Sphinx, what: str, name: str, it: object, options: object, signature: str | None, result: str | None
) -> tuple[str | None, str | None]:
    """Signature and result with plain names of types, also where Sphinx cannot read the whole to shorten them."""
    signature, result = (text and re.sub(r"~(\w+\.)+", "", text) for text in (signature, result))
    return signature, result


def setup_api(app: Sphinx) -> None:
    """Register with autodoc, after napoleon."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _mend, priority=AFTER_NAPOLEON)
    app.connect("autodoc-process-signature", _short)
