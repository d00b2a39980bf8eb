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

from remi_core.fingerprint import PACKAGE, SOURCE_ROOT, direct_imports, parse

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / PACKAGE).rglob("*.py"))
NOTEBOOKS = sorted(path for path in (ROOT / "notebooks").glob("*.ipynb") if ".part." not in path.name)
MOST_LINES, MOST_FUNCTION_LINES, MOST_CELL_LINES = 250, 40, 12

ORDER = (
    "errors",
    "escaping",
    "credentials",
    "fingerprint",
    "variants",
    "trail",
    "machine",
    "environment",
    "memory",
    "workers",
    "ranks",
    "progress",
    "storage",
    "models",
    "presets",
    "published_values",
    "dialogues",
    "published",
    "data_roles",
    "datasets",
    "origins",
    "sizes",
    "transfer",
    "batches",
    "sharing",
    "finetune_recipe",
    "finite",
    "finetune",
    "measurements",
    "redaction",
    "checkpoint_files",
    "lora",
    "provided",
    "subject",
    "recording",
    "audit",
    "bench",
    "results",
    "statistics",
    "studies",
    "estimates",
    "claims",
    "planted",
    "robustness",
    "figures",
    "tables",
    "glue",
    "facts",
    "extra_data",
    "custom_presets",
    "demands",
    "layers",
    "readme",
    "execution",
    "exercises",
    "stored",
    "data_cards",
    "laboratory",
    "traces",
    "publishing",
    "expected",
    "outcome",
    "drill",
    "commands",
    "cli",
    "__main__",
)
"""Modules and sub-packages along the one path: none imports what stands further down."""

BESIDE = {"organism", "smollm2"}
"""Models that come with the package: their dialogues, recipes and weights."""

ALONE = {
    "statistics": {"errors", "statistics"},
    "figures": {"errors", "escaping", "variants", "trail", "figures"},
}
"""What these import at most: numbers in, numbers or pictures out; a picture shown tells what was read for it."""


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE_ROOT).with_suffix("").parts).removesuffix(".__init__")


def part_of(module: str) -> str:
    """Place of a module on the path: its first name inside the package."""
    return module.split(".")[1] if "." in module else ""


def imports() -> Iterator[tuple[str, str]]:
    """All pairs (importing module, imported module) inside the package."""
    for path in MODULES:
        name = dotted(path)
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for imported in direct_imports(parse(path), package=package):
            yield name, imported


def backward(pairs: list[tuple[str, str]]) -> list[str]:
    """Imports that point the wrong way along ``ORDER``; what stands beside the path is left out."""
    wrong = []
    for name, imported in pairs:
        here, there = part_of(name), part_of(imported)
        if BESIDE & {here, there} or not here:
            continue
        if ORDER.index(there) > ORDER.index(here) or not {there} <= ALONE.get(here, {there}):
            wrong.append(f"{name} imports {imported}")
    return wrong


def test_every_module_has_its_place() -> None:
    assert {part_of(dotted(path)) for path in MODULES} - {""} <= {*ORDER, *BESIDE}


def test_imports_point_one_way() -> None:
    assert backward(list(imports())) == []


def test_a_backward_import_is_seen() -> None:
    assert backward([("remi_core.storage.store", "remi_core.cli")])
    assert backward([("remi_core.figures.plots", "remi_core.storage.store")])
    assert not backward([("remi_core.cli", "remi_core.storage.store")])


def test_a_model_of_ours_does_not_know_what_is_made_of_it() -> None:
    later = set(ORDER[ORDER.index("statistics") :])
    assert [pair for pair in imports() if part_of(pair[0]) in BESIDE and part_of(pair[1]) in later] == []


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_modules_are_small_and_documented(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "the module has no docstring"
    assert [*undocumented(tree), *long_functions(tree)] == []


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public functions, classes and methods without a docstring."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    classes = [part for part in tree.body if isinstance(part, ast.ClassDef) and not part.name.startswith("_")]
    for node in [tree, *classes]:
        for part in node.body:
            if isinstance(part, kinds) and not part.name.startswith("_") and not ast.get_docstring(part):
                yield f"{part.name} has no docstring"


def long_functions(tree: ast.Module) -> Iterator[str]:
    """Functions of more lines than allowed, docstring not counted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            described = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) else 0
            if node.end_lineno - node.lineno + 1 - described > MOST_FUNCTION_LINES:
                yield f"{node.name} is too long"


def test_the_rules_for_functions_can_fail() -> None:
    body = "\n".join(["    pass"] * MOST_FUNCTION_LINES)
    tree = ast.parse(f"def f():\n{body}\n\nclass C:\n    def g(self):\n        pass\n")
    assert list(long_functions(tree)) == ["f is too long"]
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
    assert found - standard - {normal(PACKAGE)} <= known


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
