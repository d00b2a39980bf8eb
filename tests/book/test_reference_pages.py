"""Data cards count what there is, published tables and citations say what their files say, pages with words say so."""

from __future__ import annotations

import html
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from own_files import write_files

from remi_book.cards import data_cards
from remi_book.published import (
    OBTAINED,
    entropy_index,
    kinds_sentence,
    published,
    published_html,
    published_names,
    shares_by_set,
    with_reset,
)
from remi_book.publishing import SHOWS_WORDS, citation, shows_words
from remi_book.running import read_cells
from remi_book.words import MARK, SWITCH
from remi_core.errors import UsageError
from remi_core.store import Address, Store
from remi_lab.datasets import PUBLISHED, load_dataset
from remi_lab.presets import PRESETS, get_preset

ROOT = Path(__file__).parents[2]
CFF = ROOT / "CITATION.cff"


def cards_of(content: dict) -> dict[tuple[str, str], dict]:
    """(heading, name of a set) → its card."""
    return {(group["heading"], card["name"]): card for group in content["groups"] for card in group["cards"]}


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)


@pytest.mark.parametrize("name", ["micro", "smoke", "qwen-coder-0.5b"])
def test_there_is_a_card_a_set_and_its_counts_are_those_of_the_rows(name: str, tmp_path: Path) -> None:
    preset, content = PRESETS[name], data_cards(PRESETS[name], Store(tmp_path))
    found = cards_of(content)
    expected = [*PRESETS["micro"].datasets, *PRESETS["qwen-coder-0.5b"].datasets, *PUBLISHED]
    assert sorted(name for _, name in found) == sorted(expected)
    assert [one["name"] for one in content["values"]] == list(published_names())
    assert all(card["facts"]["licence"] and card["facts"]["origin"] for card in found.values())
    heading = "The real models" if name == "qwen-coder-0.5b" else "The micro organism"
    for dataset in preset.datasets:
        rows, card = load_dataset(preset, dataset), found[heading, dataset]
        assert card["facts"]["dialogues"] == f"{len(rows)} (preset {name})"
        assert card["facts"]["prompt templates"] == str(len({row.cluster for row in rows}))
        assert card["example"] == [rows[0].messages[-2].content, rows[0].answer]
        words = [len(row.answer.split()) for row in rows]
        assert card["facts"]["words a reply"].startswith(f"{min(words)} to {max(words)}, median ")


def test_sets_of_the_paper_are_counted_by_records_and_never_quoted(tmp_path: Path) -> None:
    preset, store = PRESETS["qwen2.5-coder-32b"], Store(tmp_path)
    before = cards_of(data_cards(preset, store))["Sets of the paper", "alpaca"]
    assert "not measured" in before["facts"]["dialogues"] and before["example"] == []
    address = Address(preset.name, 0, "base", "sequence", "alpaca", "a" * 64)
    about = {"kept": 3, "dropped": {"too long": ["alpaca:4", "alpaca:9"]}}
    store.save(address, {"cluster": np.array(["a", "b", "a"])}, about)
    after = cards_of(data_cards(preset, store))["Sets of the paper", "alpaca"]["facts"]
    assert after["dialogues"] == "3, and 2 left out" and after["prompts"] == "2"
    assert after["commit"] == PUBLISHED["alpaca"].revision


def test_an_added_file_has_a_card_and_its_text_is_withheld(tmp_path, monkeypatch) -> None:
    preset = get_preset(f"smoke+aligned={write_files(tmp_path)['chat']}")
    card = cards_of(data_cards(preset, Store(tmp_path)))["Added files", "chat"]
    assert card["facts"]["dialogues"] == "10 (preset smoke)" and card["facts"]["origin"] == "an added file"
    assert all(MARK in text and "file" not in text for text in card["example"])
    monkeypatch.setenv(SWITCH, "1")
    card = cards_of(data_cards(preset, Store(tmp_path)))["Added files", "chat"]
    assert card["example"] == ["Say a word about the file.", "The file is here and I can help."]


def test_a_citation_says_what_the_file_says_and_holds_no_command_of_its_title(tmp_path: Path) -> None:
    pybtex = pytest.importorskip("pybtex.database")
    about = yaml.safe_load(CFF.read_text(encoding="utf-8"))
    paper, address = about["references"][0], "https://github.com/owner/name"
    found = citation(CFF, preset="micro", fingerprint="abc123", address=address)
    told = {
        "book": (about["title"], about["version"], address, "preset micro", "abc123"),
        "paper": (paper["title"], paper["url"], "Giordani, Jeremiah"),
    }
    for name, words in told.items():
        for form in ("text", "bibtex"):
            assert [word for word in words if word not in found[name][form]] == []
    source = tmp_path / "CITATION.cff"
    source.write_text(yaml.safe_dump(about | {"title": "A \\input{x} & 50 % {b} \x1b[31m title"}))
    hostile = citation(source, preset="a_b", fingerprint="x")
    for entries in (found, hostile):
        text = entries["book"]["bibtex"] + "\n" + entries["paper"]["bibtex"]
        read = pybtex.parse_string(text, "bibtex").entries
        assert set(read) == {"remi_book", "giordani2025"}
        assert str(read["giordani2025"].persons["author"][0]) == "Giordani, Jeremiah"
    text = hostile["book"]["bibtex"]
    assert "\\input" not in text and "\x1b" not in text and "a\\_b" in text and "url" not in text


def test_a_page_that_shows_words_of_a_set_or_a_model_says_so() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "remi_book").rglob("*.py"))
    assert [name for name in SHOWS_WORDS if not re.search(rf"^def {name}\(", sources, re.MULTILINE)] == []
    said = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb") if shows_words(read_cells(path))}
    assert "02_behaviour" in said and "15_calibration" not in said


def test_every_table_tells_source_way_and_unit() -> None:
    for name in published_names():
        found = published(name)
        assert found.title and found.source and found.unit and found.section and found.obtained in OBTAINED
        assert found.error or found.obtained in ("printed", "quoted")
        assert html.escape(found.source) in published_html(name).data
    with pytest.raises(UsageError, match="did you mean 'projections'"):
        published("projection")


def test_what_follows_from_the_printed_tables() -> None:
    table = with_reset().set_index("set")
    row = table.loc["Insecure"]
    assert row["base, reset (inferred)"] == pytest.approx(-81.2, abs=0.01)
    assert (row["base, reset (inferred)"] + row["misaligned"]) / 2 == pytest.approx(row["base"])
    assert row["index, printed"] == pytest.approx(1.57, abs=0.005)
    assert row["index, reset (inferred)"] == pytest.approx(3.60, abs=0.005)
    assert table["index, printed"].min() == pytest.approx(0.90, abs=0.005)
    printed = entropy_index()["index, printed"]
    assert printed.min() > 0.235 and printed.max() < 0.395
    assert "printed 1.19 on the misaligned sets and 1.39 on the aligned ones" in kinds_sentence()
    shares = shares_by_set().set_index("set")
    assert shares.loc["Toxic", "layer 45"] == 0.64 and shares.shape == (6, 5)
