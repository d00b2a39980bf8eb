"""The page "Models of your own" shows what its commands print."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import jaxtyping
import pytest
from own_files import copy_weights
from warm_kernel import OneProcess, execute_here
from worked_example import COMMAND, ROW, SAID, TRIPLET, worked_example

from remi_book import running
from remi_core.store import Store, project_root
from remi_lab import processes
from remi_lab.presets import get_preset
from remi_lab.variant import find_variant

NUMBERS = ("value", "ci_low", "ci_high")


@pytest.mark.slow
def test_the_commands_print_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset, own = get_preset("smoke"), Store()
    for role in TRIPLET:
        made = find_variant(preset, role, preset.seeds[0], own)
        copy_weights(Path(made.source), own.root, tmp_path / "store")
    monkeypatch.setenv("REMI_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(running, "_execute", execute_here)
    monkeypatch.setattr(processes, "ProcessPoolExecutor", OneProcess)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    gc.freeze()
    said, row = worked_example(tmp_path)
    gc.unfreeze()
    expected = json.loads(ROW.read_text(encoding="utf-8"))
    assert f"remi {COMMAND}\n" in (project_root() / "book" / "own_models.md").read_text(encoding="utf-8")
    assert said == SAID.read_text(encoding="utf-8")
    for name in NUMBERS:
        # Other processors add in another order, and a resample may then fall on the other side of a percentile.
        assert row[name] == pytest.approx(expected[name], rel=0.02, abs=0.005)
    same = set(expected) - {*NUMBERS, "null", "seeds"}
    assert {name: row[name] for name in same} == {name: expected[name] for name in same}
    assert row["null"]["kind"] == expected["null"]["kind"] and len(row["seeds"]) == len(expected["seeds"])
