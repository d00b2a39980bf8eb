"""Figures of the book: from tidy tables to a matplotlib figure with alternative text, and onto a page."""

from __future__ import annotations

from remi_book.figures.output import (
    Shown,
    figure_html,
    glue_by_hand,
    glue_markdown,
    glue_rows,
    show,
    shown,
    svg_bytes,
)
from remi_book.figures.plots import (
    Layout,
    plot_bars,
    plot_curves,
    plot_grouped_matrices,
    plot_matrix,
    plot_rows,
    plot_scatter,
    select,
)
from remi_book.figures.style import describe, number, use_style, visible_token, with_alt

__all__ = [
    "Layout",
    "Shown",
    "describe",
    "figure_html",
    "glue_by_hand",
    "glue_markdown",
    "glue_rows",
    "number",
    "plot_bars",
    "plot_curves",
    "plot_grouped_matrices",
    "plot_matrix",
    "plot_rows",
    "plot_scatter",
    "select",
    "show",
    "shown",
    "svg_bytes",
    "use_style",
    "visible_token",
    "with_alt",
]
