"""Models that are equal, or compute nothing, cost the rows that they touch and never the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from own_files import write_files, write_models
from safetensors.torch import load_file, save_file

from remi_book.claims import report_rows
from remi_core.store import Store
from remi_lab import own_models
from remi_lab.own_models import custom_preset
from remi_lab.presets import TRIPLET
from remi_lab.results import Results

pytestmark = pytest.mark.slow


def equal(place: Path) -> None:
    """Base computes what instruct does; what else its file says makes another file of it."""
    weights = load_file(place / "instruct" / "model.safetensors")
    save_file(weights, place / "base" / "model.safetensors", metadata={"format": "pt", "copy": "1"})


def zero(place: Path) -> None:
    for number, role in enumerate(TRIPLET):
        path = place / role / "model.safetensors"
        nothing = {name: torch.zeros_like(value) for name, value in load_file(path).items()}
        save_file(nothing, path, metadata={"format": "pt", "copy": str(number)})


def rows_of(place: Path, change: Callable[[Path], None] | None) -> dict[str, dict[str, object]]:
    words, files = write_models(place), write_files(place)
    if change is not None:
        change(place)
    models = dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))
    preset = custom_preset("deg", models, [str(files["preferences"])], {"dtype": "float32"})
    preset = replace(preset, n_resamples=40, n_permutations=40, n_audit_dialogues=4)
    return {row["id"]: row for row in report_rows(Results(preset, Store(place / "store")))}


@pytest.mark.parametrize("change", [equal, zero])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_degenerate_model_costs_the_rows_it_touches(tmp_path, monkeypatch, change) -> None:
    monkeypatch.setattr(own_models, "check_distinct", lambda *_: None)  # who names them refuses equal ones
    rows = rows_of(tmp_path, change)
    broken = [
        row for row in rows.values() if f"cannot be computed for {row['id']}, seed 0: " in str(row["reason"])
    ]
    assert broken and all(row["verdict"] == "not testable here" and row["value"] is None for row in broken)
    assert any(row["value"] is not None for row in rows.values()) or change is zero
    assert not any(isinstance(row["value"], float) and row["value"] != row["value"] for row in rows.values())


def test_ordinary_models_cost_none(tmp_path) -> None:
    rows = rows_of(tmp_path, None)
    assert not any("cannot be computed" in str(row["reason"]) for row in rows.values())
