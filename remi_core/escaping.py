"""The one escaper: text of data sets and models as plain characters, in HTML, Markdown, LaTeX and on a terminal.

Whoever wrote a text must not be able to change the page, the terminal or the file that shows it. No other module
escapes by itself, and `tests/test_escaping.py` holds them to it.
"""

from __future__ import annotations

import html
import re

KEPT = "\n\t"
"""Characters that do not print and stay all the same: the texts are code, too."""

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


def visible(text: str) -> str:
    """The text with every character that does not print, other than line ends and tabs, written as its code.

    So no escape sequence colours a terminal or a page, and no mark of direction turns a line around.
    """
    return "".join(
        one if one in KEPT or one.isprintable() else one.encode("unicode_escape").decode("ascii")
        for one in text
    )


def as_line(text: str) -> str:
    """The text in one line for a terminal: white space joined to single blanks, nothing that acts on it."""
    return visible(" ".join(text.split()))


def as_html(text: str) -> str:
    """The text for the inside of an element or of a quoted attribute: no tag, entity or quote of its own."""
    return html.escape(visible(text), quote=True)


def as_markdown(text: str) -> str:
    """The text in one line of Markdown or MyST that reads as typed: no markup, role, directive, link or formula."""
    return PUNCTUATION.sub(r"\\\1", as_line(text))


def as_latex(text: str) -> str:
    """The text in one line for LaTeX and BibTeX: no command, group or formula."""
    return "".join(LATEX.get(one, one) for one in as_line(text))
