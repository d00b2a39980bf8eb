"""What only reads the store costs no heavy import: neither the notebooks nor the main process of a run bring torch."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from remi_core.keys import SOURCE_ROOT

NOTEBOOKS = sorted(path for path in (SOURCE_ROOT / "notebooks").glob("*.ipynb") if ".part." not in path.name)
HEAVY = ("torch", "transformers")
MAIN_PROCESS = "import remi_book.cli, remi_book.running, remi_lab.subject"


def imports_of(notebook: Path) -> str:
    """Every import statement of a notebook's cells, as one program."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    found = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert found
    return "\n".join(map(ast.unparse, found))


def brought_by(program: str) -> list[str]:
    """Which heavy packages are imported in a fresh process that runs the program."""
    shown = f"{program}\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", shown], cwd=SOURCE_ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_imports_what_it_measures_with_only_when_it_measures(notebook: Path) -> None:
    assert brought_by(imports_of(notebook)) == []


def test_the_main_process_of_a_run_brings_no_torch() -> None:
    assert brought_by(MAIN_PROCESS) == []


def test_a_heavy_import_is_seen() -> None:
    assert brought_by(f"{imports_of(NOTEBOOKS[0])}\nimport remi_lab.passes") == list(HEAVY)
