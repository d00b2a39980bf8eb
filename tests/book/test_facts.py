"""What pages say of models that are not the organism."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from remi_book.facts import OTHERWISE, facts, notices
from remi_core.sources import ModelSpec
from remi_core.store import Store
from remi_lab.presets import NEEDS, DataRoles, get_preset

TRIPLET = {name: ModelSpec(source=f"models/{name}") for name in ("base", "instruct", "misaligned")}


def test_other_models_lead_with_whose_numbers_these_are_and_what_is_missing(tmp_path: Path) -> None:
    roles = DataRoles(outside=("harmful-careless",))
    mine = replace(
        get_preset("smoke"), name="mine", variants=TRIPLET, roles=roles, remark="Tuned twice.", seeds=(0,)
    )
    lines = notices(mine, Store(tmp_path))
    assert "preset 'mine'" in lines[0] and lines[1] == "Tuned twice."
    assert NEEDS["framed"] in lines[2] and NEEDS["outside"] not in lines[2]
    found = facts(mine, Store(tmp_path))
    assert found["preset"] == "mine" and OTHERWISE in found
    assert "organism.parameters" not in found
