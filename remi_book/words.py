"""Words of data sets and models on a page: escaped as text, and withheld where they are not ours to show."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from remi_core.errors import UsageError
from remi_core.progress import visible
from remi_lab.own_models import REAL, origin_of, real_sets
from remi_lab.presets import Preset

# The one escaper: text of data sets and models as plain characters, in HTML, Markdown, LaTeX, CSV and on a terminal.
#
# Whoever wrote a text must not be able to change the page, the terminal or the file that shows it. No other module
# escapes by itself, and `tests/test_escaping.py` holds them to it.

UNTYPESET = "tex2jax_ignore mathjax_ignore"
"""CSS classes under which no viewer of pages or notebooks reads dollar signs as mathematics."""

PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
"""All ASCII punctuation: CommonMark takes any of it as itself behind a backslash, and so does MyST."""

LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "$&#_%"},
}

FORMULA = re.compile(r"'*[=+@\t-]")
"""How a text begins that a spreadsheet takes for a formula, apostrophes before it or not."""


def as_line(text: str) -> str:
    """The text in one line for a terminal: white space joined to single blanks, nothing that acts on it."""
    return visible(" ".join(text.split()))


def as_html(text: str) -> str:
    """The text for the inside of an element or of a quoted attribute: no tag, entity or quote of its own."""
    return html.escape(visible(text), quote=True)


def folded(summary: str, inside: str) -> str:
    """HTML of a part that opens when its summary is clicked; ``inside`` is HTML already."""
    return f"<details><summary>{as_html(summary)}</summary>{inside}</details>"


def as_markdown(text: str) -> str:
    """The text in one line of Markdown or MyST that reads as typed: no markup, role, directive, link or formula."""
    return PUNCTUATION.sub(r"\\\1", as_line(text))


def as_latex(text: str) -> str:
    """The text in one line for LaTeX and BibTeX: no command, group or formula."""
    return "".join(LATEX.get(one, one) for one in as_line(text))


def as_cell(text: str) -> str:
    """The text for a cell of a CSV file, behind an apostrophe where a spreadsheet would take it for a formula.

    A text with apostrophes before the formula gets one more, so that one taken away gives the text back.
    """
    return f"'{visible(text)}" if FORMULA.match(text) else visible(text)


# Text of real data sets, and what models make of it, is withheld from pages unless a switch says otherwise.
#
# Real data may be harmful, private or under terms of its own, and a page is copied further than the data.
# The grammar of this package is none of these, so it is always shown.

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
    """Tokens of the sets, or in place of each a sign that is the same for the same token in one process.

    Signs are numbers in the order of first appearance: a digest of a token could be looked up in any vocabulary.
    """
    tokens = list(tokens)
    if not is_withheld(preset, datasets):
        return tokens
    return [f"{MARK}{_SIGNS.setdefault(token, len(_SIGNS) + 1)}" for token in tokens]


_SIGNS: dict[str, int] = {}


def forget_signs() -> None:
    """Number withheld tokens from 1 again, as every page does."""
    _SIGNS.clear()


# Places of this machine, which no page tells of: the last part of a path stands for it.


def local_names(preset: Preset) -> dict[str, str]:
    """Each local path that the preset names → its last part, longest path first."""
    models = [path for spec in preset.variants.values() for path in (spec.source, spec.adapter) if path]
    paths = [path for path in (*models, *(path for _, path in preset.extra_data)) if Path(path).is_absolute()]
    return {path: Path(path).name for path in sorted(set(paths), key=len, reverse=True)}


def with_names(text: str, named: Mapping[str, str]) -> str:
    """The text with each local path replaced by its name."""
    for path, name in named.items():
        text = text.replace(path, name)
    return text
