"""The page "Models of your own" shows what its commands print."""

from __future__ import annotations

import json
from pathlib import Path

import jaxtyping
import pytest
from warm_kernel import OneProcess, execute_here
from worked_example import COMMAND, ROW, SAID, worked_example

from remi_book import running
from remi_core.store import project_root
from remi_lab import processes


@pytest.mark.slow
def test_the_commands_print_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_execute", execute_here)
    monkeypatch.setattr(processes, "ProcessPoolExecutor", OneProcess)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    said, row = worked_example(tmp_path)
    expected = json.loads(ROW.read_text(encoding="utf-8"))
    assert f"remi {COMMAND}\n" in (project_root() / "book" / "own_models.md").read_text(encoding="utf-8")
    assert said == SAID.read_text(encoding="utf-8")
    for name, value in expected.items():
        if name in ("value", "ci_low", "ci_high", "median", "seed_low", "seed_high"):
            # Other processors add in another order, and a resample may then fall on the other side of a percentile.
            assert row[name] == pytest.approx(value, rel=0.02, abs=0.005)
        elif name not in ("null", "seeds"):
            assert row[name] == value
