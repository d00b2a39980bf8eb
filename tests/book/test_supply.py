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
"""Pinned in tests.lock, for tests that are skipped without them."""
NOT_IMPORTED = yaml.safe_load(Path(__file__).with_name("not_imported.yaml").read_text(encoding="utf-8"))
PROVIDERS = packages_distributions()
PROVIDED = {canonicalize_name(name) for each in PROVIDERS.values() for name in each}
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


def pinned(lock: str) -> dict[str, str]:
    """Name → where it is needed, "" for everywhere; each entry is one version, with digests alone."""
    text = re.sub(r"^#.*\n", "", (ROOT / lock).read_text(encoding="utf-8"), flags=re.MULTILINE)
    entry = (
        r"([\w.-]+)==[\w.]+(?:\+cpu)?( ; sys_platform == '\w+')?((?: \\\n   )? --hash=sha256:[0-9a-f]{64})+\n"
    )
    assert re.fullmatch(f"({entry})+", text), lock
    found = [(canonicalize_name(one[1]), one[2] or "") for one in re.finditer(entry, text)]
    assert len(dict(found)) == len(found)
    return dict(found)


LOCKS = {path.name: pinned(path.name) for path in ROOT.glob("*.lock")}
SYSTEMS = (
    {"sys_platform": "linux", "platform_system": "Linux"},
    {"sys_platform": "darwin", "platform_system": "Darwin"},
)


def test_the_lock_pins_what_the_project_names_and_nothing_else() -> None:
    def reachable(names: Iterable[str]) -> set[str]:
        """Packages that some of the given ones need on a system, at any depth, and these themselves."""
        found, left = set(), list(names)
        while left:
            name = canonicalize_name(left.pop())
            if name not in found and (found.add(name) or name in PROVIDED):
                needs = map(Requirement, distribution(name).requires or [])
                left += [
                    one.name
                    for one in needs
                    if not one.marker or any(one.marker.evaluate({"extra": "", **each}) for each in SYSTEMS)
                ]
        return found

    named = [*PROJECT["dependencies"], *EXTRAS["judge"], *EXTRAS["test"]]
    # A torch with CUDA needs what the other lock has.
    assert reachable(named) - set(LOCKS["cuda.lock"]) == set(LOCKS["requirements.lock"])
    assert reachable(["jinja2"]) == {"jinja2", "markupsafe"}
    assert LOCKS["requirements.lock"]["appnope"] and not LOCKS["requirements.lock"]["torch"]
    (without,) = re.findall("sha256:.*", (ROOT / "cpu.lock").read_text(encoding="utf-8"))
    assert without in (whole := (ROOT / "requirements.lock").read_text(encoding="utf-8")), (
        "Binder finds it there"
    )
    assert not re.search(r"==\S*\+", whole), "no local version, which no registry has"
    assert all(LOCKS["cuda.lock"].values()), "nothing of it for a system without CUDA"
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert conda == ["python=3.11", "pip", {"pip": ["-r requirements.lock", "-r cuda.lock"]}]


def test_what_is_installed_beside_the_lock_is_pinned_too() -> None:
    assert set(LOCKS["tests.lock"]) == BESIDE_THE_LOCK and len(LOCKS) == 8
    installs = re.findall(r"^.*\binstall .*$", MAKEFILE, re.MULTILINE)
    (own,) = [line for line in installs if "--require-hashes" not in line and "@echo" not in line]
    assert (
        "--no-deps --no-build-isolation -e ." in own
        and "--no-build-isolation" in (BINDER / "postBuild").read_text()
    )
    (build,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert f"\n{build} \\\n" in (ROOT / "requirements.lock").read_text(), "what builds is what the lock has"
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
