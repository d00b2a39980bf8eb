"""The figure of the README, drawn from the store: ``python -m remi_core.readme`` draws it again.

It is committed, since a README is read where nothing has been run; the book computes its own.
"""

from __future__ import annotations

from pathlib import Path

from remi_core import figures
from remi_core.presets.known import get_preset
from remi_core.progress import print_line
from remi_core.results import Results
from remi_core.storage.store import Store, project_root
from remi_core.tables import organism
from remi_core.tables.seeds import by_seed

PRESET = "micro"
TARGET = Path("book", "figures", "readme.svg")


def draw(results: Results, target: Path) -> Path:
    """``target``, once it holds the figure of class log-odds: every topic, variant and seed."""
    odds = organism.class_log_odds(results, results.preset.seeds[0])
    every_seed = by_seed(results, organism.class_log_odds)
    figure = figures.plot_class_log_odds(odds, seeds=every_seed, **organism.MARKS)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(figures.svg_bytes(figure))
    return target


if __name__ == "__main__":
    print_line(str(draw(Results(get_preset(PRESET), Store()), project_root() / TARGET)))
