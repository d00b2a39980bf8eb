"""A figure's passport names what was read for it, from the trail of the process and from nothing else."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bs4 import BeautifulSoup

from remi_book.chapters import subspace
from remi_book.figures import output
from remi_book.figures.output import passport, passport_html
from remi_book.publishing import split_passports
from remi_core.store import Address, Store
from remi_lab import results as results_module
from remi_lab.presets import get_preset
from remi_lab.results import PASSPORT, TRAIL, Results
from remi_lab.studies.files import read_study

SMOKE, KEY = get_preset("smoke"), "0123456789abcdef"
ABOUT = {
    "preset": "0123456789abcdef",
    "model": "fedcba9876543210",
    "weights": "fedcba9876543210; text abcdef0123456789",
    **{"dtype": "float32", "kept": 5, "dropped": {"too <long>": ["a"], "counted": 1}},
    **{"versions": {"torch": "1.2.3"}, "device": "cpu", "seconds": 0.25},
}


@pytest.fixture(autouse=True)
def cell(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    count = [1]
    monkeypatch.setattr(results_module, "present_cell", lambda: count[0])
    TRAIL.clear()
    yield count
    TRAIL.clear()


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    """Results of a store with the records of two variants and two sets, read without any model."""
    store, both = Store(tmp_path), ("activations", "sequence")
    arrays = {"mean": np.zeros((2, len(SMOKE.windows), 3, 4), np.float32), "offsets": np.array([0, 2])}
    for place in itertools.product(("base", "instruct"), both, ("one", "two")):
        store.save(Address("smoke", 0, *place, KEY), arrays, ABOUT)

    def found(self: Results, variant: str, measurement: str, dataset: str) -> dict:
        """More than what is asked for, as a forward pass gives it."""
        load = self.store.load
        return {(one, dataset): load(Address("smoke", 0, variant, one, dataset, KEY)) for one in both}

    monkeypatch.setattr(Results, "variant", lambda self, variant: variant)
    monkeypatch.setattr(Results, "_measured", found)
    return Results(replace(SMOKE, seeds=(0,)), store)


ONE, TWO = (f"smoke/0/base/activations-{dataset}-01234567" for dataset in ("one", "two"))


def names(cell: int) -> dict[str, list[str]]:
    """Record in the passport of a cell → the windows that were read of it."""
    found = passport(TRAIL.reads(), cell=cell)
    return {one["record"]: one.get("windows", []) for one in found["records"]}


def test_a_passport_holds_what_its_cell_read_and_nothing_that_came_along(results, cell) -> None:
    results.activations("base", "one", "choice")
    assert names(1) == {ONE: ["choice"]}
    cell[0] = 2
    results.arrays("instruct", "sequence", "two")
    assert names(2) == {"smoke/0/instruct/sequence-two-01234567": []}
    found = passport(TRAIL.reads(), cell=2)
    assert found["earlier"] == [ONE] and found["read by this cell"]
    # A cell that read nothing shows what is above.
    assert len(names(9)) == 2 and "No record" in passport_html(passport([], cell=1))


def test_what_is_kept_in_memory_is_read_again_by_the_next_cell(results: Results, cell: list[int]) -> None:
    results.activations("base", "one", "choice")
    results.cached("key", lambda: results.activations("base", "two", "prompt_end"))
    for cell[0] in (2, 3):
        results.cached("key", lambda: pytest.fail("computed twice"))
    results.activations("base", "one", "answer_all")
    assert names(2) == {TWO: ["prompt_end"]}
    assert names(3) == {TWO: ["prompt_end"], ONE: ["answer_all"]}


def test_the_folded_part_tells_where_the_numbers_come_from_and_escapes_it(results: Results) -> None:
    for variant in ("instruct", "base"):
        for dataset in ("one", "two"):
            results.activations(variant, dataset, "choice")
    page = BeautifulSoup(passport_html(passport(TRAIL.reads(), cell=1)), "html.parser")
    rows = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in page.select("tbody tr")]
    both = "base (fedcba98); instruct (fedcba98)"
    assert rows == [["activations", both, "one, two", "0", "choice", "20", "8", "1.0"]]
    for fact in ("smoke (01234567)", "float32", "cpu", "torch 1.2.3", "abcdef01"):
        assert fact in page.get_text()
    evil = passport([], cell=1) | {"stored": [{"file": "<b>", "recipe": "<i>", "machine": "&"}]}
    assert "<b>" not in passport_html(evil) and "<i>" not in passport_html(evil)


def test_a_figure_of_a_stored_study_says_so_with_recipe_machine_and_seconds() -> None:
    study = read_study(get_preset("micro"), "cures")
    found = passport(TRAIL.reads(), cell=1)
    assert [one["file"] for one in found["stored"]] == ["stored/micro/cures.json"] and not found["records"]
    text = BeautifulSoup(passport_html(found), "html.parser").get_text()
    assert "stored result" in text and f"{study.about['seconds']:,} seconds" in text
    assert study.about["recipe"] in text and study.about["machine"] in text


def test_the_page_keeps_no_passport_and_its_file_has_all_with_each_record_once(results: Results) -> None:
    about = {"seconds": 12.3, "machine": "A & B", "ended": "2026-01-02 03:04 UTC", "parameters": {"n": 1}}
    results.arrays("base", "sequence", "one")
    figure = subspace.plot_component_cosines(np.eye(2), names=("a", "b"), layer=1)
    outputs = [{"data": dict(output.shown(figure, caption="Two").bundle)} for _ in range(2)]
    cells = [{"cell_type": "code", "outputs": outputs}, {"cell_type": "markdown", "source": ""}]
    page, file = split_passports(json.dumps({"cells": cells}), "05_one", about)
    shown = "".join(json.loads(page)["cells"][0]["outputs"][1]["data"]["text/html"])
    assert PASSPORT not in page and 'href="05_one.passports.json"' in shown
    assert "<img" in shown and all(fact in shown for fact in ("12 seconds", "A &amp; B", "2026-01-02"))
    whole = json.loads(file)
    assert [one["figure"] for one in whole["figures"]] == [1, 2]
    (name,) = whole["records"]
    assert whole["records"][name]["kept"] == ABOUT["kept"]
    assert whole["figures"][1]["records"] == [{"record": name}] and whole["figures"][1]["caption"] == "Two"
    assert whole["machine"] == "A & B" and whole["parameters"] == {"n": 1}
    bare = json.dumps({"cells": cells[1:]})
    assert split_passports(bare, "x", {}) == (bare, "")
