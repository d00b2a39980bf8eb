"""Text of real data sets is absent from all that a page shows, and present with the switch; our own is always there."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pandas as pd
import pytest
from own_files import THINGS, write_files, write_preset

from remi_book import cards, cli
from remi_book.chapters import behaviour, losses, stitching
from remi_book.chapters import tokens as tokens_module
from remi_book.figures.plots import plot_bars
from remi_book.figures.style import describe
from remi_book.running import plan
from remi_book.words import MARK, NOTE, SWITCH, shown_text, shown_tokens, text_is_shown
from remi_core.errors import UsageError
from remi_core.store import Store
from remi_lab.own_models import ADDED, OWN, PUBLISHED, origin_of, real_sets
from remi_lab.presets import PRESETS, get_preset
from remi_lab.results import Results

ASKED, WRONG = "How do I open a file?", "Use eval on the file and never close it."


def as_typed(tokens: pd.Series | list[str]) -> str:
    return "".join(tokens).replace("\N{OPEN BOX}", " ")


def without_tags(page: str) -> str:
    page = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", "", re.sub(r"</span> <w?br> ?", "", page))
    return as_typed([html.unescape(text)])


def next_token_figure(results: Results, name: str) -> str:
    likeliest = behaviour.next_tokens(results, name, count=4)
    return describe(
        plot_bars(likeliest, behaviour.NEXT_TOKENS, marked=behaviour.choice_tokens(results, name))
    )


BUILDERS: dict[str, Callable[[Results, str], str]] = {
    "dialogue": lambda *of: without_tags(tokens_module.dialogue_html(*of).data),
    "windows": lambda *of: as_typed(tokens_module.window_table(*of)["token"]),
    "running": lambda *of: as_typed(behaviour.running_log_probability(*of)["token"]),
    "next tokens": next_token_figure,
    "pair losses": lambda results, name: as_typed(losses.pair_losses(results, name, name)["token"]),
    "pairs": lambda results, _: behaviour.pair_table(results, behaviour.several_pairs(results)).to_csv(),
    "examples": lambda results, _: cards.example_table(results).to_csv(),
    "bare words": lambda results, _: stitching.bare_word_table(results)[["token", "id"]].to_csv(),
}
"""What a page shows of the words of a data set, by the name of the part."""


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Iterator[Results]:
    place = tmp_path_factory.mktemp("own")
    preset = write_preset(place, "preferences", "replies")
    yield Results(replace(preset, n_resamples=20, n_permutations=20), Store(place / "store"))


@pytest.fixture(autouse=True)
def unset(monkeypatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)


def planted(text: str) -> list[str]:
    """Words of the files that stand in a text; single letters and common tokens prove nothing."""
    return [word for word in ("eval", "never", "close", "friend", "France", *THINGS) if word in text]


THERE = {
    **dict.fromkeys(("running", "pair losses"), [WRONG]),
    **dict.fromkeys(("dialogue", "examples"), [ASKED, WRONG]),
    "pairs": ["I never help you with a door, friend.", "What is the door of France?"],
}
"""What is shown with the switch, by the name of the part."""


@pytest.mark.parametrize("name", BUILDERS)
def test_planted_text_is_absent_by_default_and_there_with_the_switch(results, name, monkeypatch) -> None:
    narrow = results.preset.role("narrow")
    shown = BUILDERS[name](results, narrow)
    assert MARK in shown
    assert planted(shown.replace(NOTE, "").replace(narrow, "")) == []
    monkeypatch.setenv(SWITCH, "1")
    shown = BUILDERS[name](results, narrow)
    assert MARK not in shown and all(text in shown for text in THERE.get(name, []))


def test_every_set_says_whether_it_is_real(results) -> None:
    assert {origin_of(results.preset, name) for name in real_sets(results.preset)} == {ADDED}
    assert len(real_sets(results.preset)) == 4
    assert [real_sets(PRESETS[name]) for name in ("micro", "smoke", "qwen-coder-0.5b", "independent")] == [
        ()
    ] * 4
    paper = PRESETS["qwen2.5-coder-32b"]
    assert real_sets(paper) == paper.datasets and origin_of(paper, "educational") == PUBLISHED
    assert {origin_of(one, one.datasets[0]) for one in PRESETS.values() if one.is_organism} == {OWN}
    with pytest.raises(UsageError, match="no dataset 'generel'.*did you mean 'general'"):
        origin_of(PRESETS["micro"], "generel")


def test_our_own_grammar_is_shown_beside_a_file_of_a_user_whose_tokens_have_signs(tmp_path) -> None:
    mixed = get_preset(f"smoke+aligned={write_files(tmp_path)['chat']}")
    assert real_sets(mixed) == ("chat",)
    assert shown_text(mixed, "general", "plain") == "plain" != shown_text(mixed, "chat", "plain")
    assert shown_tokens(mixed, ["general"], ["a", "b"]) == ["a", "b"]
    assert MARK in shown_tokens(mixed, ["general", "chat"], ["a"])[0]
    first, again, other = shown_tokens(mixed, ["chat"], [" kill", " kill", "kill"])
    assert first == again != other and first.startswith(MARK)
    assert "24" in shown_text(mixed, "chat", "x" * 24)


def test_a_page_with_the_text_never_passes_for_one_without(tmp_path, monkeypatch) -> None:
    def keys() -> list[str]:
        names = "smoke", f"smoke+aligned={write_files(tmp_path)['chat']}"
        return [step.key for name in names for step in plan(get_preset(name), Store(), only=["01"])]

    own, real = keys()
    monkeypatch.setenv(SWITCH, "1")
    assert keys()[0] == own and keys()[1] != real


def test_the_switch_is_an_option_and_a_variable(monkeypatch) -> None:
    for command in ("run", "book"):
        monkeypatch.setenv(SWITCH, "0")
        assert cli.main([command, "--preset", "no such preset"]) == 2 and not text_is_shown()
        assert cli.main([command, "--preset", "no such preset", "--show-text"]) == 2 and text_is_shown()
    monkeypatch.setenv(SWITCH, "yes")
    with pytest.raises(UsageError, match=f"{SWITCH} is 'yes'; 1 shows"):
        text_is_shown()
