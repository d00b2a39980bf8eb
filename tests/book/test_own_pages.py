"""What the pages say to a reader with models of his own: of four presets, nothing of what each has not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from own_files import write_files
from own_pages import lacking_of, prose, sources, untrue

from remi_book.publishing import without_hidden
from remi_book.running import read_cells
from remi_lab.own_models import custom_preset
from remi_lab.presets import TRIPLET, Preset, get_preset

FALSE = yaml.safe_load(Path(__file__).with_name("own_words.yaml").read_text(encoding="utf-8"))["untrue"]
PRESETS = {
    "no control": (TRIPLET, ("preferences", "replies", "aligned=lesson", "aligned=chat")),
    "no base": (("instruct", "warm", "cold"), ("preferences", "replies")),
    "one set": (TRIPLET, ("misaligned=lesson",)),
    "full": ((*TRIPLET, "secure", "benign"), ("preferences", "replies")),
}
"""Name → variants, and files with their labels."""


@pytest.fixture(scope="module")
def presets(tmp_path_factory) -> dict[str, Preset]:
    """Presets of hub ids: nothing is loaded."""
    files, made = write_files(tmp_path_factory.mktemp("own")), {}
    for name, (variants, given) in PRESETS.items():
        named = (text.rpartition("=") for text in given)
        data = [f"{label}{equals}{files[file]}" for label, equals, file in named]
        made[name] = custom_preset("mine", {variant: f"some/{variant}" for variant in variants}, data)
    return made


@pytest.mark.parametrize("name", PRESETS)
def test_no_page_speaks_of_what_a_preset_has_not(presets, name) -> None:
    preset = presets[name]
    for stem, source in sources().items():
        cells = read_cells(source)
        assert untrue(preset, prose(cells, lacking_of(preset))) == [], stem
        titles = [line for line in prose(cells, lacking_of(preset)) if line.startswith("# ")]
        assert len(titles) == 1, stem


@pytest.mark.parametrize("need", FALSE)
def test_a_sentence_without_a_tag_is_found_and_one_with_its_tag_is_not(presets, need) -> None:
    (preset,) = [preset for preset in presets.values() if preset.lacks(need)][:1]
    cells = read_cells(sources()["05_alignment_direction"])
    bare = {"cell_type": "markdown", "metadata": {}, "source": FALSE[need]}
    assert untrue(preset, prose([*cells, bare], lacking_of(preset))) == [f"{need}: {FALSE[need]}"]
    tagged = bare | {"metadata": {"tags": [f"only-{need}"]}}
    assert untrue(preset, prose([*cells, tagged], lacking_of(preset))) == []


def test_a_count_that_no_set_has_is_found(presets) -> None:
    said = ["The mean over all 400 dialogues.", "Means of 10 dialogues a set."]
    assert untrue(presets["full"], iter(said)) == [f"count: {said[0]}"]


def test_blocks_of_a_page_are_shown_to_presets_that_have_what_they_name() -> None:
    page = "Begin.\n\n% only-organism only-seeds\nOurs.\nStill ours.\n\n% not-organism\nYours.\n\nEnd.\n"
    lacking = {name: lacking_of(get_preset(name)) for name in ("micro", "smoke", "gemma-270m")}
    shown = {name: without_hidden(page, needs) for name, needs in lacking.items()}
    assert "Still ours.\n\nEnd." in shown["micro"] and "Yours" not in shown["micro"]
    assert shown["gemma-270m"] == "Begin.\n\n% not-organism\nYours.\n\nEnd.\n"
    assert "Ours" not in shown["smoke"] and "Yours" not in shown["smoke"], "one seed"
