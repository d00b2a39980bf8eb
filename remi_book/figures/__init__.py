"""Figures of the book: from tidy tables to a matplotlib figure with alternative text, and onto a page."""

from __future__ import annotations

from remi_book.figures.output import glue_by_hand, glue_markdown, glue_rows, show
from remi_book.figures.plots import (
    plot_bars,
    plot_curves,
    plot_grouped_matrices,
    plot_matrix,
    plot_rows,
    plot_scatter,
    select,
)
from remi_book.figures.style import number
