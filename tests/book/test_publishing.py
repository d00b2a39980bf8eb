"""The files that publish the book name what there is: commands, versions, the lock. They are read here, not run."""

from __future__ import annotations

import re
import shlex
import stat
import tomllib
from pathlib import Path

import pytest
import yaml

from remi_book.cli import build_parser
from remi_lab.presets import PRESETS

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
BINDER = ROOT / ".binder"
PINNED = re.compile(r"uses: [\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
NOT_RUN = "not run where it was written"


def steps_of(workflow: Path) -> list[dict]:
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return {name for line in re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE) for name in line.split()}


def faults(command: str) -> list[str]:
    """What a command of a workflow names that there is not; other programs than make and remi are not known."""
    program, *words = shlex.split(command)
    if Path(program).name == "make":
        goals = [word for word in words if "=" not in word]
        given = dict(word.split("=", 1) for word in words if "=" in word)
        known = set(re.findall(r"\$\((?:addprefix --preset ,)?([A-Z]+)\)", (ROOT / "Makefile").read_text()))
        wrong = [f"no target {goal}" for goal in goals if goal not in make_targets()]
        wrong += [f"no variable {name}" for name in given if name not in known]
        return wrong + [
            f"no preset {name}" for name in given.get("PRESET", "").split() if name not in PRESETS
        ]
    if Path(program).name == "remi":
        try:
            arguments = build_parser().parse_args(words)
        except ValueError as error:
            return [str(error)]
        named = getattr(arguments, "preset", None) or []
        return [
            f"no preset {name}"
            for name in ([named] if isinstance(named, str) else named)
            if name not in PRESETS
        ]
    return [f"unknown program {program}"]


def test_there_is_a_workflow_and_it_says_that_it_was_not_run() -> None:
    assert [path.name for path in WORKFLOWS] == ["pages.yml"]
    for path in (*WORKFLOWS, BINDER / "postBuild", BINDER / "requirements.txt"):
        assert NOT_RUN in path.read_text(encoding="utf-8").lower(), path.name


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_pinned_to_a_commit_with_its_version(workflow: Path) -> None:
    lines = [line.strip().removeprefix("- ") for line in workflow.read_text().splitlines() if "uses:" in line]
    assert lines and [line for line in lines if not PINNED.fullmatch(line)] == []
    assert not PINNED.fullmatch("uses: actions/checkout@v4 # v4.2.2")
    assert not PINNED.fullmatch("uses: actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_every_command_exists(workflow: Path) -> None:
    commands = [line for step in steps_of(workflow) for line in step.get("run", "").splitlines()]
    assert len(commands) >= 2
    assert {command: faults(command) for command in commands if faults(command)} == {}


def test_a_command_that_does_not_exist_is_seen() -> None:
    for command in (
        "make bok",
        "make book PRESETT=micro",
        "make book PRESET=mikro",
        "remi deposits",
        "curl x",
    ):
        assert faults(command), command
    for command in ("remi deposit --preset mikro", "remi deposit --preset micro --outt x.zip"):
        assert faults(command), command


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_python_is_that_of_the_package(workflow: Path) -> None:
    versions = [
        step["with"]["python-version"]
        for step in steps_of(workflow)
        if "setup-python" in step.get("uses", "")
    ]
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert versions == ["3.11"] and required == ">=3.11,<3.12"
    assert (BINDER / "runtime.txt").read_text().split() == ["python-3.11"]


def test_what_is_uploaded_is_what_the_commands_write() -> None:
    steps = {step.get("uses", "").partition("@")[0]: step for step in steps_of(WORKFLOWS[0])}
    book = (ROOT / steps["actions/upload-pages-artifact"]["with"]["path"]).relative_to(ROOT)
    assert f"BOOK := {book.as_posix()}" in (ROOT / "Makefile").read_text()
    written = [
        shlex.split(step["run"])[-1] for step in steps_of(WORKFLOWS[0]) if "deposit" in step.get("run", "")
    ]
    assert written == [steps["actions/upload-artifact"]["with"]["path"]]


def test_a_workflow_may_write_pages_and_nothing_else() -> None:
    content = yaml.safe_load(WORKFLOWS[0].read_text(encoding="utf-8"))
    assert content["permissions"] == {"contents": "read"}
    assert "permissions" not in content["jobs"]["build"]
    assert content["jobs"]["deploy"]["permissions"] == {"pages": "write", "id-token": "write"}
    assert "secrets" not in WORKFLOWS[0].read_text()


def test_binder_installs_the_lock_and_the_package_and_nothing_is_pinned_twice() -> None:
    lines = [
        line for line in (BINDER / "requirements.txt").read_text().splitlines() if not line.startswith("#")
    ]
    required = [line.removeprefix("-r ") for line in lines if line.startswith("-r ")]
    assert [(BINDER / path).resolve() for path in required] == [ROOT / "requirements.lock"]
    assert all(line.startswith("-") for line in lines)
    post = BINDER / "postBuild"
    assert post.stat().st_mode & stat.S_IXUSR and post.read_text().startswith("#!/usr/bin/env bash\n")
    commands = [line for line in post.read_text().splitlines() if line and not line.startswith(("#", "set "))]
    assert commands[0] == "python -m pip install --no-deps -e ." and faults(commands[1]) == []
