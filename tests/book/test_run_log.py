"""A run's log is JSON line by line: each step with start, seconds, memory and outcome, and how the run ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from remi_book.running import RunLog, log_name
from remi_core.store import Store


def rows(log: RunLog) -> list[dict]:
    return [json.loads(line) for line in log.path.read_text().splitlines()]


def test_steps_and_their_outcomes_are_written_down(tmp_path: Path) -> None:
    log = RunLog(Store(tmp_path).log_path("smoke", log_name()))
    with pytest.raises(KeyboardInterrupt), log.run({"preset": "smoke"}):
        with log.step("one", in_children=False):
            pass
        with pytest.raises(ValueError), log.step("two", in_children=True):
            raise ValueError("of two\nlines")
        raise KeyboardInterrupt
    first, *steps, last = rows(log)
    assert (first["event"], first["preset"], "torch" in first["versions"]) == ("run", "smoke", True)
    assert [(row["event"], row["step"]) for row in steps] == [
        ("start", "one"),
        ("step", "one"),
        ("start", "two"),
        ("step", "two"),
    ]
    assert steps[1]["outcome"] == "done" and steps[1]["seconds"] >= 0 and steps[1]["peak_memory"] > 0
    assert (steps[3]["outcome"], steps[3]["reason"]) == ("failed", "ValueError: of two lines")
    assert (last["event"], last["outcome"]) == ("end", "interrupted")


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where a folder is wanted")
    log = RunLog(tmp_path / "logs" / "one.jsonl")
    with log.run({}), log.step("one", in_children=False):
        pass
    assert (tmp_path / "logs").read_text()
