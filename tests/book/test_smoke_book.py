"""The whole path on the small preset: variants, every notebook by papermill, the report, the strict book."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
from bs4 import BeautifulSoup
from freeze import differences, frozen, read

import remi_core as remi
from remi_book.chapters import direction
from remi_book.claims import report_rows
from remi_book.cli import main
from remi_book.publishing import build_book
from remi_book.quantities import shared_resamples
from remi_book.running import is_complete, plan, read_cells, run
from remi_core.store import Store, project_root
from remi_lab.presets import ORGANISM_VARIANTS, TRIPLET, get_preset
from remi_lab.results import Results

pytestmark = pytest.mark.slow
PRESET = get_preset("smoke")
FROZEN = project_root() / "stored" / "frozen-smoke.gz"
"""What a run of the preset gives, written by `python scripts/freeze.py smoke stored/frozen-smoke.gz`."""
KINDS = (("C", 26), ("H", 3), ("X", 15))
CONTRACT = {f"{kind}{number}" for kind, last in KINDS for number in range(1, last + 1)}


@pytest.fixture(scope="module")
def store() -> Store:
    """The repository's own store: what is made here is not made again by `make browse`."""
    found = Store()
    run(PRESET, found, [step for step in plan(PRESET, found) if not step.done])
    return found


@pytest.fixture(scope="module")
def pages(store, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("book") / "html"
    build_book(PRESET, store, out)
    return out


def test_every_notebook_ran_whole_without_a_warning_or_a_folder_of_this_machine(store) -> None:
    steps = plan(PRESET, store)
    assert {step.variant for step in steps if step.variant} == set(ORGANISM_VARIANTS)
    for step in steps:
        assert step.done and is_complete(step.target)
        outputs = [one for cell in read_cells(step.target) for one in cell.get("outputs", [])]
        assert [one["text"] for one in outputs if one["output_type"] == "stream"] == [], step.name
        assert str(project_root()) not in json.dumps(outputs), step.name


def test_the_face_of_the_core_gives_the_estimates_of_the_records(store) -> None:
    results, seed = Results(PRESET, store), PRESET.seeds[0]
    example, tokenizer = PRESET.role("example"), results.at(seed).variant("instruct").tokenizer()
    models = {name: results.at(seed).variant(name).source for name in TRIPLET}
    records = remi.measure(models, results.encoded(example).sources, tokenizer, max_tokens=PRESET.max_tokens)
    found = remi.erosion(records, window="prompt_end", resamples=shared_resamples(PRESET))
    expected = direction.erosion(results.at(seed), "misaligned", (example,), "prompt_end")
    for quantity, estimate in (("e", expected.erosion), ("c", expected.cosine), ("r", expected.residual)):
        for end in ("value", "low", "high"):
            np.testing.assert_allclose(getattr(found[quantity], end), getattr(estimate, end), rtol=1e-4)
    means = records.log_probabilities().groupby(["model", "dialogue"], sort=False)["log_probability"].mean()
    for name in TRIPLET:
        stored = results.at(seed).per_dialogue(name, example, "log_probability")
        np.testing.assert_allclose(means[name], stored, rtol=1e-4)


def test_report_follows_the_contract_and_repeats_byte_for_byte(store, capsys) -> None:
    rows = report_rows(Results(PRESET, store))
    assert {row["id"].partition(".")[0] for row in rows} == CONTRACT
    for row in rows:
        assert row["verdict"] and row["reason"] and row["rule"] and row["n"] >= 0
        if row["verdict"] != "not testable here":
            assert row["ci_low"] <= row["value"] <= row["ci_high"]
            assert row["null"]["low"] <= row["null"]["high"]
            assert len(row["seeds"]) == len(PRESET.seeds)
    command = ["report", "--preset", "smoke", "--json"]
    first, second = (capsys.readouterr().out for _ in range(2) if main(command) == 0)
    assert first == second and json.loads(first) == json.loads(json.dumps(rows))


def test_the_run_gives_what_it_always_gave(store) -> None:
    """Report, records, glued values, tables and the data of figures, as far as processors round alike."""
    before, after = read(FROZEN), frozen("smoke", store)
    assert differences(before, after, within=0.02) == []
    planted = copy.deepcopy(after)
    planted["report"]["C3"]["value"] += 0.1
    planted["glued"].pop(next(iter(planted["glued"])))
    for mark in planted["figures"]["05_alignment_direction:2"][0]:
        mark["points"] = mark["points"][1:]
    found = differences(before, planted, within=0.02)
    assert [line.split(":")[0] for line in found] == ["figures", "glued", "report"]


def test_pages_are_whole_local_and_described_and_show_the_report(pages, store) -> None:
    built = {path: BeautifulSoup(path.read_text(), "html.parser") for path in pages.rglob("*.html")}
    assert len(built) > 15 and pages / "notebooks" / "05_alignment_direction.html" in built
    for path, page in built.items():
        texts = [image.get("alt", "").strip() for image in page.select("article img")]
        assert all(text and "_images/" not in text for text in texts), path.name
        loading = page.select("script[src], img[src], iframe[src], source[src], link[href]")
        loaded = [str(tag.get("src") or tag.get("href")) for tag in loading]
        assert [url for url in loaded if re.match(r"(https?:)?//", url)] == [], path.name
        assert not re.search(r"import\(?\s*['\"]https?:", str(page)), path.name
    assert (pages / "_static" / "mathjax" / "tex-chtml.js").is_file()
    for path in pages.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", path.read_text(encoding="utf-8")), path.name
    ledger = built[pages / "ledger.html"].get_text(" ")
    for row in report_rows(Results(PRESET, store)):
        assert row["id"] in ledger and row["verdict"] in ledger
    assert build_book(PRESET, store, pages) is False, "a second build does nothing"
