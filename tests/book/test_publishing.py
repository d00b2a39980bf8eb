"""The files that publish the book name what there is: commands, presets, the lock. They are read here, not run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from remi_book.cli import app
from remi_core.errors import UsageError
from remi_lab.presets import PRESETS

ROOT = Path(__file__).parents[2]
(WORKFLOW,) = (ROOT / ".github" / "workflows").glob("*.yml")
BINDER = ROOT / ".binder"
PINNED = re.compile(r"uses: [\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def faults(command: str) -> list[str]:
    """What a command of a workflow names that there is not; other programs than make and remi are not known."""
    program, *words = shlex.split(command)
    if Path(program).name == "make":
        targets = {
            name for line in re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE) for name in line.split()
        }
        known = set(re.findall(r"\$\((?:addprefix --preset ,)?([A-Z]+)\)", MAKEFILE))
        given = dict(word.split("=", 1) for word in words if "=" in word)
        wrong = [f"no target {word}" for word in words if "=" not in word and word not in targets]
        wrong += [f"no variable {name}" for name in given if name not in known]
        return wrong + [
            f"no preset {name}" for name in given.get("PRESET", "").split() if name not in PRESETS
        ]
    if Path(program).name != "remi":
        return [f"unknown program {program}"]
    commands = typer.main.get_command(app).commands
    if words[0] not in commands:
        return [f"no command {words[0]}"]
    try:
        given = commands[words[0]].make_context(words[0], words[1:]).params
    except UsageError as error:
        return [str(error)]
    named = [given.get("preset_name"), *(given.get("preset_names") or ())]
    return [f"no preset {name}" for name in named if name and name not in PRESETS]


def test_every_command_of_the_workflow_and_of_binder_exists() -> None:
    content = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    steps = [step for job in content["jobs"].values() for step in job["steps"]]
    commands = [line for step in steps for line in step.get("run", "").splitlines()]
    binder = (BINDER / "postBuild").read_text(encoding="utf-8").splitlines()
    commands += [line for line in binder if line.startswith(("make", "remi"))]
    assert len(commands) >= 3
    assert {command: faults(command) for command in commands if faults(command)} == {}


@pytest.mark.parametrize(
    "command",
    [
        "make bok",
        "make book PRESETT=micro",
        "make book PRESET=mikro",
        "remi deposits",
        "remi deposit --preset mikro",
        "remi deposit --preset micro --outt x.zip",
        "curl x",
    ],
)
def test_a_command_that_does_not_exist_is_seen(command: str) -> None:
    assert faults(command)


def test_every_action_is_pinned_to_a_commit_and_may_write_pages_alone() -> None:
    text = WORKFLOW.read_text(encoding="utf-8")
    lines = [line.strip().removeprefix("- ") for line in text.splitlines() if "uses:" in line]
    assert lines and [line for line in lines if not PINNED.fullmatch(line)] == []
    assert not PINNED.fullmatch("uses: actions/checkout@v4 # v4.2.2")
    content = yaml.safe_load(text)
    assert content["permissions"] == {"contents": "read"} and "permissions" not in content["jobs"]["build"]
    assert content["jobs"]["deploy"]["permissions"] == {"pages": "write", "id-token": "write"}
    assert "secrets" not in text


def test_binder_installs_the_lock_and_pins_nothing_twice() -> None:
    lines = (BINDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    stated = [line for line in lines if not line.startswith("#")]
    required = [line.removeprefix("-r ") for line in stated if line.startswith("-r ")]
    assert [(BINDER / path).resolve() for path in required] == [ROOT / "requirements.lock"]
    assert all(line.startswith("-") for line in stated)
