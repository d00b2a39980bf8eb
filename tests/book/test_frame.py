"""The frame holds together: pins agree, imports point one way, modules are small and documented, notebooks clean."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from remi_core.keys import PACKAGES, SOURCE_ROOT, direct_imports, parse

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
NOTEBOOKS = sorted(path for path in (ROOT / "notebooks").glob("*.ipynb") if ".part." not in path.name)
MOST_CELL_LINES = 12


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE_ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports() -> Iterator[tuple[str, str]]:
    """All pairs (importing module, imported module) inside the packages."""
    for path in MODULES:
        name = dotted(path)
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for imported in direct_imports(parse(path), package=package):
            yield name, imported


def backward(pairs: list[tuple[str, str]]) -> list[str]:
    """Imports that point the wrong way: ``remi_core`` ← ``remi_lab`` ← ``remi_book``, and statistics know no model."""
    wrong = []
    for name, imported in pairs:
        here, there = (PACKAGES.index(module.split(".")[0]) for module in (name, imported))
        beside = name.startswith("remi_core.statistics") and not imported.startswith(
            ("remi_core.statistics", "remi_core.errors")
        )
        if there > here or beside:
            wrong.append(f"{name} imports {imported}")
    return wrong


def test_imports_point_one_way() -> None:
    assert backward(list(imports())) == []


def test_a_backward_import_is_seen() -> None:
    assert backward([("remi_core.store", "remi_lab.presets")])
    assert backward([("remi_core.statistics.groups", "remi_core.store")])
    assert not backward([("remi_book.cli", "remi_core.store")])


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_modules_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has no docstring"
    assert list(undocumented(tree)) == []


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public functions, classes and methods without a docstring."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    classes = [part for part in tree.body if isinstance(part, ast.ClassDef) and not part.name.startswith("_")]
    for node in [tree, *classes]:
        for part in node.body:
            if isinstance(part, kinds) and not part.name.startswith("_") and not ast.get_docstring(part):
                yield f"{part.name} has no docstring"


def test_what_is_not_documented_is_seen() -> None:
    tree = ast.parse("def f():\n    pass\n\nclass C:\n    def g(self):\n        pass\n")
    assert list(undocumented(tree)) == ["f has no docstring", "C has no docstring", "g has no docstring"]


def normal(name: str) -> str:
    """Name of a distribution as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, str]:
    """Versions in requirements.lock by normal name."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines if not line.startswith("#")]
    assert all(pins), "every line is NAME==VERSION, without a local version such as +cpu"
    names = [normal(pin.group(1)) for pin in pins]
    assert len(names) == len(set(names))
    return {normal(pin.group(1)): pin.group(2) for pin in pins}


def test_the_lock_pins_what_the_project_names_and_nothing_is_pinned_twice() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    assert [name for name in named if not re.fullmatch(r"[\w.-]+", name)] == []
    assert {normal(name) for name in named} <= set(locked())
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert conda == ["python=3.11", "pip", {"pip": ["-r requirements.lock"]}]
    assert project["requires-python"] == ">=3.11,<3.12"


def test_what_the_package_imports_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = {normal(name) for name in [*project["dependencies"], *extras["judge"], *extras["peers"]]}
    modules = {
        "scikit-learn": "sklearn",
        "pyyaml": "yaml",
        "beautifulsoup4": "bs4",
        "jupyter-book": "jupyter-book",
    }
    known = {modules.get(name, name) for name in named}
    found = set()
    for path in MODULES:
        for node in ast.walk(parse(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            found |= {normal(name.split(".")[0]) for name in names}
    standard = {normal(name) for name in __import__("sys").stdlib_module_names}
    assert found - standard - {normal(package) for package in PACKAGES} <= known


@pytest.mark.skipif(not NOTEBOOKS, reason="there are no notebooks yet")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_clean(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"]] == []
    assert len(tagged) == 1
    sources = ["".join(cell["source"]) for cell in code]
    assert [source for source in sources if len(source.splitlines()) > MOST_CELL_LINES] == []
    assert [
        source for source in sources if re.search(r"^\s*(def|class) |_hook\(", source, re.MULTILINE)
    ] == []


def test_pictures_of_the_readme_exist_and_have_an_alternative_text() -> None:
    shown = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert shown
    for alternative, path in shown:
        assert (ROOT / path).is_file() and len(alternative) > 40
