"""Cells of a notebook that need what a preset may lack (tag ``needs-WORD``), left out with a note where it does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import groupby

from remi_core.execution.parameters import tags
from remi_core.presets.roles import NEEDS

PREFIX = "needs-"


def unmet(cell: Mapping[str, object], lacking: Collection[str]) -> tuple[str, ...]:
    """What a cell needs and the preset lacks, in the order of ``NEEDS``."""
    wanted = {tag.removeprefix(PREFIX) for tag in tags(cell) if tag.startswith(PREFIX)}
    return tuple(need for need in NEEDS if need in wanted and need in lacking)


def without_unmet(cells: list[dict], lacking: Collection[str]) -> list[dict]:
    """The cells, each run of those with the same unmet need replaced by one note that says what is needed.

    The number of cells stays, so that a failing cell is still named by its place in the source.
    """
    kept: list[dict] = []
    for needs, group in groupby(cells, key=lambda cell: unmet(cell, lacking)):
        if not needs:
            kept += group
            continue
        for position, cell in enumerate(group):
            text = note(needs) if position == 0 else ""
            kept.append({"cell_type": "markdown", "id": cell["id"], "metadata": {}, "source": text})
    return kept


def note(needs: Collection[str]) -> str:
    """Markdown that says what a part of a page would need to be shown."""
    wanted = "\n".join(f"- {NEEDS[need]}" for need in needs)
    return f":::{{note}}\nNot shown for this preset. This part needs\n\n{wanted}\n:::"


def missing_lines(name: str, cells: Collection[Mapping[str, object]], lacking: Collection[str]) -> list[str]:
    """One line for each thing that a notebook's cells need and the preset lacks, with how many cells it costs."""
    needs = [need for cell in cells if cell["cell_type"] == "code" for need in unmet(cell, lacking)]
    return [
        f"{name}: {needs.count(need)} figures or tables not shown, they need {NEEDS[need]}"
        for need in NEEDS
        if need in needs
    ]
