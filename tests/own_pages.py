"""What the pages of a book of own models say that is not true of its preset: roles, sets and counts that it has not."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import yaml
from bs4 import BeautifulSoup

from remi_book.running import ORGANISMS_ONLY, is_hidden, unmet
from remi_core.store import project_root
from remi_lab.datasets import dataset_names, load_dataset
from remi_lab.presets import NEEDS, Preset

_READ = yaml.safe_load((Path(__file__).parent / "book" / "own_words.yaml").read_text(encoding="utf-8"))
SPARED, WORDS, GENERAL = re.compile(_READ["spared"]), _READ["words"], tuple(_READ["general"])
GLUED = re.compile(r"\{glue:(?:text|md)\}`([^`:]+)`")
COUNT = re.compile(r"(\d[\d,]*)(?: to (\d[\d,]*))? (?:dialogues|gradients|loss vectors)\b")

Cells = list[dict]


def prose(cells: Cells, lacking: Collection[str] = ()) -> Iterator[str]:
    """Sentences of the cells that a preset is shown which lacks these needs, values put in where they are glued."""
    glued = {
        output["metadata"]["scrapbook"]["name"]: "".join(next(iter(output["data"].values()))).strip("'\"")
        for cell in cells
        for output in cell.get("outputs", ())
        if "scrapbook" in output.get("metadata", {})
    }
    for cell in cells:
        text = "".join(cell["source"])
        shown = cell["cell_type"] == "markdown" and not (is_hidden(cell, lacking) or unmet(cell, lacking))
        if not shown or any(word in text for word in GENERAL):
            continue
        text = GLUED.sub(lambda role: glued.get(role[1], role[0]), text)
        text = re.sub(r"```.*?```|\$\$.*?\$\$", " ", text, flags=re.DOTALL)
        yield from (
            one for line in text.splitlines() for one in re.split(r"(?<=[.?!]) (?=[A-Z*])", line) if one
        )


def captions(cells: Cells) -> Iterator[str]:
    """Captions and alternative texts of figures, and captions of tables, as executed cells show them."""
    pages = [
        "".join(output.get("data", {}).get("text/html", ""))
        for cell in cells
        for output in cell.get("outputs", ())
    ]
    for page in (BeautifulSoup(text, "html.parser") for text in pages):
        for tag in page.select("details.remi-passport"):
            tag.decompose()
        for figure in page.select("figure"):
            yield " ".join([figure.figcaption.get_text() if figure.figcaption else "", figure.img["alt"]])
        yield from (tag.get_text() for tag in page.select("caption"))


def counts(preset: Preset) -> set[int]:
    """Every number of dialogues that a page may give: of a set, of several together, and of a part that is used."""
    sizes = [len(load_dataset(preset, name)) for name in dataset_names(preset)]
    sums = {0}
    for size in sizes:
        sums |= {total + size for total in sums}
    return sums | {preset.n_patch_dialogues, preset.n_audit_dialogues, 5}


def untrue(preset: Preset, sentences: Iterator[str]) -> list[str]:
    """The sentences that name what the preset has not, each behind what that is."""
    lacking = {need: re.compile(words) for need, words in WORDS.items() if preset.lacks(need)}
    known, found = counts(preset), []
    for sentence in sentences:
        if not SPARED.search(sentence):
            found += [f"{need}: {sentence}" for need, words in lacking.items() if words.search(sentence)]
        said = {int(one.replace(",", "")) for pair in COUNT.findall(sentence) for one in pair if one}
        found += [f"count: {sentence}"] * bool(said - known)
    return found


ABOUT_NO_MODEL = "19_six_points"
"""Invented points, which have the names of models."""


def sources() -> Mapping[str, Path]:
    """Name → notebook of every page about models that a book of own models has."""
    folder = project_root() / "notebooks"
    return {
        path.stem: path
        for path in sorted(folder.glob("*.ipynb"))
        if f"notebooks/{path.stem}" not in ORGANISMS_ONLY and path.stem != ABOUT_NO_MODEL
    }


def lacking_of(preset: Preset) -> list[str]:
    return [need for need in NEEDS if preset.lacks(need)]
