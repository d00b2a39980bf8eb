"""Figures of the book: from arrays and tables to a matplotlib figure with alternative text, and onto a page."""

from __future__ import annotations

from remi_book.figures.output import Shown, figure_html, show, shown, svg_bytes
from remi_book.figures.style import describe, use_style, visible_token, with_alt

__all__ = [
    "Shown",
    "describe",
    "figure_html",
    "show",
    "shown",
    "svg_bytes",
    "use_style",
    "visible_token",
    "with_alt",
]
