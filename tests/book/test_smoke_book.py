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
"""What a run of the preset gives, written by `python tests/freeze.py smoke stored/frozen-smoke.gz`."""
CONTRACT = (
    {f"C{number}" for number in range(1, 27)} | {"H1", "H2", "H3"} | {f"X{number}" for number in range(1, 9)}
)


@pytest.fixture(scope="module")
def store() -> Store:
    """The repository's own store: what is made here is not made again by `make browse`."""
    found = Store()
    run(PRESET, found, plan(PRESET, found))
    return found


@pytest.fixture(scope="module")
def pages(store, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("book") / "html"
    build_book(PRESET, store, out)
    return out


def test_every_notebook_ran_whole_and_nothing_is_left_to_run(store) -> None:
    steps = plan(PRESET, store)
    assert {step.variant for step in steps if step.variant} == set(ORGANISM_VARIANTS)
    assert all(step.done and is_complete(step.target) for step in steps)


def test_no_notebook_warns_or_names_a_folder_of_this_machine(store) -> None:
    for step in plan(PRESET, store):
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
    texts = []
    for _ in range(2):
        assert main(["report", "--preset", "smoke", "--json"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert json.loads(texts[0]) == json.loads(json.dumps(rows))


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


def test_pages_are_whole_described_and_local(pages) -> None:
    built = [path for path in pages.rglob("*.html") if "_static" not in path.parts]
    assert len(built) > 15
    for path in built:
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for image in page.select("article img"):
            assert image.get("alt", "").strip() and "_images/" not in image["alt"], path.name
        loaded = [
            tag.get("src") or tag.get("href") for tag in page.select("script[src], link[rel=stylesheet], img")
        ]
        assert not [url for url in loaded if re.match(r"(https?:)?//", url)], path.name
    assert (pages / "notebooks" / "05_alignment_direction.html").is_file()


def test_the_front_page_and_the_ledger_show_the_report(pages, store) -> None:
    front, ledger = (
        typed(BeautifulSoup((pages / name).read_text(encoding="utf-8"), "html.parser").get_text(" "))
        for name in ("intro.html", "ledger.html")
    )
    for row in report_rows(Results(PRESET, store)):
        assert "." in row["id"] or row["verdict"] in front
        assert row["id"] in ledger and typed(str(row["reason"])) in ledger


def typed(text: str) -> str:
    """The text as it is typed: the book makes apostrophes, quotes, dashes and dots typographic."""
    for made, plain in {"’": "'", "‘": "'", "“": '"', "”": '"', "–": "--", "…": "..."}.items():
        text = text.replace(made, plain)
    return " ".join(text.split())


def test_a_second_build_does_nothing(pages, store) -> None:
    assert build_book(PRESET, store, pages) is False
