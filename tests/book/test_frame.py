"""Notebooks are clean, and what only reads the store costs no heavy import."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(path for path in (ROOT / "notebooks").glob("*.ipynb") if ".part." not in path.name)
MOST_CELL_LINES = 12
HEAVY = ("torch", "transformers")
MAIN_PROCESS = "import remi_book.cli, remi_book.running, remi_lab.variant"
MEASURING = "import remi_lab.passes"


def code_cells(notebook: Path) -> list[dict]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def code_of(notebook: Path) -> str:
    return "\n".join("".join(cell["source"]) for cell in code_cells(notebook))


def imports_of(notebook: Path) -> str:
    """Every import statement of a notebook's cells, as one program."""
    nodes = [
        node
        for node in ast.walk(ast.parse(code_of(notebook)))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert nodes
    return "\n".join(map(ast.unparse, nodes))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_clean(path: Path) -> None:
    code = code_cells(path)
    tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"]] == []
    assert len(tagged) == 1
    sources = ["".join(cell["source"]) for cell in code]
    assert [source for source in sources if len(source.splitlines()) > MOST_CELL_LINES] == []
    assert [
        source for source in sources if re.search(r"^\s*(def|class) |_hook\(", source, re.MULTILINE)
    ] == []


def test_only_what_measures_brings_torch() -> None:
    """One process imports what each notebook imports, then what a run's main process and at last a pass do."""
    programs = {path.stem: imports_of(path) for path in NOTEBOOKS} | {"run": MAIN_PROCESS, "pass": MEASURING}
    watched = (
        "import json, sys\nfound = {}\n"
        f"for name, program in {programs!r}.items():\n"
        "    exec(program, {})\n"
        f"    found[name] = [heavy for heavy in {HEAVY!r} if heavy in sys.modules]\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", watched], cwd=ROOT, capture_output=True, text=True, check=True
    )
    brought = json.loads(done.stdout.splitlines()[-1])
    assert brought.pop("pass") == list(HEAVY), "a heavy import is seen"
    assert {name: heavy for name, heavy in brought.items() if heavy} == {}
