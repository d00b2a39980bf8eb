"""Data cards count what there is, citations say what the file says, and pages that show words say so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from bs4 import BeautifulSoup
from own_files import write_files
from test_book import BUILDER, ROOT, copy_book

from remi_book.cards import data_cards
from remi_book.published import published_names
from remi_book.publishing import CONTENT_NOTE, SHOWS_WORDS, citation, shows_words, write_json
from remi_book.running import read_cells
from remi_book.words import MARK, SWITCH
from remi_core.store import Address, Store
from remi_lab.datasets import PUBLISHED, load_dataset
from remi_lab.presets import PRESETS, get_preset

CFF = ROOT / "CITATION.cff"


def cards_of(content: dict) -> dict[tuple[str, str], dict]:
    """(heading, name of a set) → its card."""
    return {(group["heading"], card["name"]): card for group in content["groups"] for card in group["cards"]}


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)


def test_there_is_one_card_a_set_and_a_row_a_published_table(tmp_path: Path) -> None:
    content = data_cards(PRESETS["micro"], Store(tmp_path))
    names = [name for _, name in cards_of(content)]
    assert sorted(names) == sorted(
        [*PRESETS["micro"].datasets, *PRESETS["smollm2"].datasets, *PUBLISHED],
    )
    assert [one["name"] for one in content["values"]] == list(published_names())
    for card in cards_of(content).values():
        assert card["what"].endswith(".") and card["facts"]["licence"] and card["facts"]["origin"]


@pytest.mark.parametrize("name", ["micro", "smoke", "smollm2"])
def test_counts_are_those_of_the_rows(name: str, tmp_path: Path) -> None:
    preset = PRESETS[name]
    heading = "The pretrained model" if name == "smollm2" else "The micro organism"
    found = cards_of(data_cards(preset, Store(tmp_path)))
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
    arrays = {"cluster": np.array(["a", "b", "a"])}
    store.save(address, arrays, {"kept": 3, "dropped": {"too long": ["alpaca:4", "alpaca:9"]}})
    after = cards_of(data_cards(preset, store))["Sets of the paper", "alpaca"]
    assert after["facts"]["dialogues"] == "3, and 2 left out" and after["facts"]["prompts"] == "2"
    assert after["facts"]["commit"] == PUBLISHED["alpaca"].revision


def test_an_added_file_has_a_card_and_its_text_is_withheld(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = get_preset(f"smoke+aligned={write_files(tmp_path)['chat']}")
    card = cards_of(data_cards(preset, Store(tmp_path)))["Added files", "chat"]
    assert card["facts"]["dialogues"] == "10 (preset smoke)" and card["facts"]["origin"] == "an added file"
    assert all(MARK in text and "file" not in text for text in card["example"])
    monkeypatch.setenv(SWITCH, "1")
    card = cards_of(data_cards(preset, Store(tmp_path)))["Added files", "chat"]
    assert card["example"] == ["Say a word about the file.", "The file is here and I can help."]


def test_a_citation_says_what_the_file_says() -> None:
    about = yaml.safe_load(CFF.read_text(encoding="utf-8"))
    found = citation(CFF, preset="micro", fingerprint="abc123", address="https://github.com/owner/name")
    for entry in (found["book"]["text"], found["book"]["bibtex"]):
        assert (
            about["title"] in entry and about["version"] in entry and "https://github.com/owner/name" in entry
        )
        assert "preset micro" in entry and "abc123" in entry
    paper = about["references"][0]
    for entry in (found["paper"]["text"], found["paper"]["bibtex"]):
        assert paper["title"] in entry and paper["url"] in entry and "Giordani, Jeremiah" in entry
    assert "url" not in citation(CFF, preset="micro", fingerprint="x")["book"]["bibtex"]


def test_bibtex_can_be_read_and_holds_no_command_of_the_title(tmp_path: Path) -> None:
    pybtex = pytest.importorskip("pybtex.database")
    about = yaml.safe_load(CFF.read_text(encoding="utf-8"))
    source = tmp_path / "CITATION.cff"
    source.write_text(yaml.safe_dump(about | {"title": "A \\input{x} & 50 % {b} \x1b[31m title"}))
    for path in (CFF, source):
        found = citation(path, preset="a_b", fingerprint="abc123")
        entries = pybtex.parse_string(
            found["book"]["bibtex"] + "\n" + found["paper"]["bibtex"], "bibtex"
        ).entries
        assert set(entries) == {"remi_book", "giordani2025"}
        assert str(entries["giordani2025"].persons["author"][0]) == "Giordani, Jeremiah"
        assert len(entries["remi_book"].persons["author"]) == 1
    assert "\\input" not in found["book"]["bibtex"] and "\x1b" not in found["book"]["bibtex"]
    assert "a\\_b" in found["book"]["bibtex"]


def test_a_page_that_shows_words_of_a_set_or_a_model_says_so() -> None:
    book = ROOT / "remi_book"
    sources = "\n".join(path.read_text() for path in book.rglob("*.py"))
    assert [name for name in SHOWS_WORDS if not re.search(rf"^def {name}\(", sources, re.MULTILINE)] == []
    said = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb") if shows_words(read_cells(path))}
    assert "02_behaviour" in said and "15_calibration" not in said


@pytest.mark.slow
def test_the_pages_are_built_from_the_files(tmp_path: Path) -> None:
    source = copy_book(tmp_path / "source")
    hostile = "<script>alert(1)</script> $$x$$ `code` {directive} [link](javascript:alert(1)) &lt;b&gt;"
    content = data_cards(PRESETS["smoke"], Store(tmp_path / "store"))
    content["groups"][0]["cards"][0] |= {"example": [hostile, hostile], "what": hostile}
    files = {"data-cards.json": content, "citation.json": citation(CFF, preset="smoke", fingerprint="f" * 64)}
    write_json(source, files)
    notebook = source / "notebooks" / "02_behaviour.ipynb"
    stub = json.loads(notebook.read_text())
    stub["cells"].append({"cell_type": "markdown", "id": "note", "metadata": {}, "source": CONTENT_NOTE})
    notebook.write_text(json.dumps(stub))
    options = ["build", str(source), "--path-output", str(tmp_path), "-W", "-n", "--keep-going"]
    done = subprocess.run(
        [sys.executable, "-c", BUILDER, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    html = tmp_path / "_build" / "html"
    pages = {
        name: BeautifulSoup((html / f"{name}.html").read_text(), "html.parser")
        for name in ("data", "citing", "content", "intro", "notebooks/02_behaviour")
    }
    cards = pages["data"].select("table.remi-card")
    assert len(cards) == sum(len(group["cards"]) for group in content["groups"])
    assert pages["data"].get_text().count(hostile) == 3
    assert not pages["data"].select(".remi-data-card :is(script, a:not(.headerlink), .math, b)")
    blocks = [block.get_text() for block in pages["citing"].select("article pre")]
    assert len(blocks) == 2 and "f" * 64 in blocks[1] and "@misc{giordani2025" in blocks[0]
    assert SWITCH in pages["content"].get_text()
    for name in ("notebooks/02_behaviour", "data"):
        note = pages[name].select_one(".remi-content-note")
        assert note.select_one("a")["href"].endswith("content.html")
    assert pages["intro"].select_one("article a[href='content.html']")
