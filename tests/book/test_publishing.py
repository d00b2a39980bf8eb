"""The files that publish the book: pinned actions with few rights, commands that there are, and the lock."""

from __future__ import annotations

import re
from pathlib import Path

import typer
import yaml

from remi_book.cli import app

ROOT = Path(__file__).parents[2]
(WORKFLOW,) = (ROOT / ".github" / "workflows").glob("*.yml")
BINDER = ROOT / ".binder"
PINNED = re.compile(r"uses: [\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


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


def test_binder_installs_the_lock_and_pins_nothing_twice() -> None:
    lines = (BINDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    stated = [line for line in lines if not line.startswith("#")]
    required = [line.removeprefix("-r ") for line in stated if line.startswith("-r ")]
    assert [(BINDER / path).resolve() for path in required] == [ROOT / "requirements.lock"]
    assert all(line.startswith("-") for line in stated)
