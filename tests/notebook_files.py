"""Small notebooks written by the tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARAMETERS = 'preset: str = "micro"  # preset\nn: int = 2\nrate: float = 0.5\nlayers: list[int] = [0]\n'


def write_notebook(path: Path, code: Sequence[str], *, parameters=PARAMETERS, title="A test") -> Path:
    """The path of a new notebook: a title, one parameters cell, then the code cells."""
    cells = [new_markdown_cell(f"# {title}"), new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    notebook = new_notebook(cells=[*cells, *map(new_code_cell, code)])
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path
