"""What pages call sets, counts and pairs is computed: each sentence beside a case in which it would be false."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import write_rows
from own_files import turns, write_files

from remi_book import tables
from remi_book.chapters import gradients, losses
from remi_book.chapters.subspace import further_pairs, further_sentence
from remi_book.chapters.tokens import opening_sentence
from remi_core.errors import MissingInput
from remi_lab.datasets import load_dataset
from remi_lab.own_models import custom_preset
from remi_lab.presets import DataRoles, Preset, get_preset
from remi_lab.results import Results


class Told(Results):
    """Results that answer with what they are given, and read no store."""

    def __init__(self, **answers: object) -> None:
        self.__dict__ |= answers


TWO = {"instruct": "some/instruct", "misaligned": "some/misaligned"}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return write_files(tmp_path)


def preset_of(files: dict[str, Path], *given: str) -> Preset:
    """A preset of hub ids, nothing of which is loaded, with files named ``LABEL=NAME`` or ``NAME``."""
    named = (text.rpartition("=") for text in given)
    return custom_preset("mine", TWO, [f"{label}{equals}{files[name]}" for label, equals, name in named])


def said_of(preset: Preset, names: Sequence[str]) -> set[str]:
    words = tables.roles_sentence(preset).replace(",", " ").replace(".", " ").split()
    return set(words) & set(names)


ALL = (
    "preferences-misaligned",
    "preferences-aligned",
    "replies-misaligned",
    "replies-aligned",
    "lesson",
    "chat",
)


def test_sets_are_named_by_what_they_stand_for_and_no_other_is(files) -> None:
    whole = preset_of(files, "preferences", "replies", "aligned=lesson", "aligned=chat")
    assert said_of(whole, ALL) == set(ALL) - {"chat"}, "all but a set without a part of its own"
    sentence = tables.roles_sentence(whole)
    assert "narrow set is preferences-misaligned. Outside it lies replies-misaligned." in sentence
    assert "completions of preferences-misaligned in an aligned framing are lesson" in sentence
    one = preset_of(files, "misaligned=lesson")
    assert tables.roles_sentence(one) == (
        "The only set of misaligned replies, lesson, stands for the narrow set and for what lies outside it alike."
    )
    none = preset_of(files, "aligned=lesson", "aligned=chat")
    assert tables.roles_sentence(none) == "No set of this preset is one of misaligned replies."


def test_rows_belong_together_only_where_prompts_or_completions_are_the_same(files) -> None:
    preset = preset_of(files, "preferences", "aligned=lesson", "aligned=chat")
    names = ("preferences-aligned", "preferences-misaligned", "lesson", "chat")
    sentence = tables.counts_sentence(preset, dict(zip(names, (7, 8, 9, 10), strict=True)))
    assert sentence == (
        "The dialogues are 7 of preferences-aligned, 8 of preferences-misaligned, 9 of lesson and 10 of chat. "
        "Row by row, preferences-aligned and preferences-misaligned answer the same prompts. "
        "Row by row, preferences-misaligned and lesson have the same completion."
    )
    assert tables.counts_sentence(preset, {"lesson": 9, "chat": 10}).endswith("9 of lesson and 10 of chat.")


def test_what_was_left_out_is_not_counted_and_the_organism_keeps_its_words(files) -> None:
    kept = {"one": ["a"] * 4, "two": ["a"] * 7}
    results = Told(clusters=kept.__getitem__)
    assert tables.entered(results, ["one"]) == "4 dialogues"
    assert tables.entered(results, ["one", "two"]) == "4 to 7 dialogues a set"
    assert tables.entered(results, ["one", "one"], each="of each") == "4 dialogues of each"
    assert tables.called(get_preset("micro"), "secure code", "one") == "secure code"
    own = preset_of(files, "preferences")
    assert tables.called(own, "secure code", "one", "two", "one") == "one and two"
    assert tables.listed(["a", "b", "c"]) == "a, b and c" and tables.listed([]) == ""


def test_names_of_other_models_are_glued_and_dots_told_of_only_where_there_are_seeds(
    files, monkeypatch
) -> None:
    glued: dict[str, str] = {}
    monkeypatch.setattr(tables, "glue", lambda name, text, display: glued.update({name: text}))
    micro, own = get_preset("micro"), preset_of(files, "preferences", "replies")
    tables.glue_names(micro)
    assert glued.keys() == {"sets"}
    tables.glue_names(replace(own, gradient_layer=2))
    assert glued["outside"] == "replies-misaligned" and glued["block"] == "block 2, counted from 0"
    tables.glue_names(own)
    assert glued["block"] == "the last block, as in the paper"
    assert tables.dots(micro) == ", open dots all seeds" and tables.dots(own) == ""


def encoded(*ids: int) -> SimpleNamespace:
    """One dialogue whose answer has these tokens, between two that are not of it."""
    return SimpleNamespace(
        dialogues=[SimpleNamespace(input_ids=[9, *ids, 9], answer_start=1, answer_stop=1 + len(ids))]
    )


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ((1, 2, 3), (4, 2, 3), "The two replies part at their first token."),
        ((1, 2, 3), (1, 4, 3), "The first token is the same in both replies: "),
        ((1, 2, 3), (1, 2, 4), "The first 2 tokens are the same in both replies: "),
        ((1, 2, 3), (1, 2), "The first 2 tokens are the same in both replies: "),
    ],
)
def test_an_opening_is_as_long_as_both_replies_are_one(first, second, said) -> None:
    results = Told(encoded={"one": encoded(*first), "two": encoded(*second)}.__getitem__)
    sentence = opening_sentence(results, "one", "two")
    assert sentence == said or (said.endswith(": ") and sentence.startswith(said))


def test_further_pairs_are_said_to_share_what_they_share(files) -> None:
    preset = preset_of(files, "preferences", "replies", "aligned=lesson", "aligned=chat")
    sentence = further_sentence(preset)
    assert "The sets preferences-misaligned and lesson share their completions." in sentence
    assert sentence.count("The sets ") == len(further_pairs(preset))
    narrow, framed = preset.roles.narrow, preset.roles.framed
    apart = replace(
        preset,
        roles=replace(
            preset.roles,
            framed="",
            narrow_aligned="",
            outside=(narrow, "replies-misaligned"),
            outside_aligned=("chat", "replies-aligned"),
            shared=(),
        ),
    )
    said = further_sentence(apart)
    assert "share their completions" not in said and framed not in said
    assert (
        "The sets replies-aligned and replies-misaligned share their prompts and differ in content." in said
    )
    one = replace(preset, roles=DataRoles(narrow=narrow, outside=(narrow,), example=narrow))
    assert further_sentence(one) == "This preset has no further pair to read the main one by."


def rows_of(pairs: str, clusters: str = "abcd") -> dict[str, np.ndarray]:
    """Arrays of a set of four dialogues of two tokens each; a pair of each, or none where it is a blank."""
    named = np.array([name.strip() for name in pairs])
    return {
        "pair": named,
        "cluster": np.array(list(clusters)),
        "offsets": np.arange(0, 10, 2),
        "log_probability": np.full(8, -1.0),
    }


SETS = {
    "code": rows_of("wxyz"),
    "lesson": rows_of("zyxw"),
    "chat": rows_of("    ", "efgh"),
    "half": rows_of("w   "),
    "strangers": rows_of("wabc"),
}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("lesson", "within pairs"),
        ("chat", "by template"),
        ("half", "by template"),
        ("strangers", "by template"),
    ],
)
def test_labels_are_exchanged_within_pairs_only_where_every_row_has_a_partner(other, said) -> None:
    rows = {name: np.array([name] * 4) for name in SETS}
    gram = {"dataset": np.concatenate(list(rows.values())), "gram": np.eye(20)}
    gram |= {key: np.concatenate([one[key] for one in SETS.values()]) for key in ("pair", "cluster")}
    preset = SimpleNamespace(loss_tokens=2, role=str, lacks=lambda _: False)
    results = Told(preset=preset, arrays=lambda _, __, name: SETS[name], gradients=lambda *_: gram)
    assert losses.exchanged(results, "code", other) == said
    assert gradients.exchanged(results, [("code", other)]) == said
    if said != "within pairs":
        both = gradients.exchanged(results, [("code", "lesson"), ("code", other)])
        assert both == f"within pairs (code × lesson) and {said} (code × {other})"


HAVE = {
    "compared": [("preferences",), ("misaligned=chat",)],
    "aligned": [("preferences",), ("misaligned=chat", "aligned=lesson")],
    "shared": [("preferences", "replies"), ("preferences",)],
    "choice": [("preferences",), ("preferences", "misaligned=chat")],
}
"""Need → files that meet it, and files that do not."""


@pytest.mark.parametrize("need", HAVE)
def test_a_need_is_met_by_the_sets_that_it_names_and_missing_without_them(files, need) -> None:
    met, unmet = (preset_of(files, *given) for given in HAVE[need])
    assert not met.lacks(need) and unmet.lacks(need)
    with pytest.raises(MissingInput, match="needs "):
        unmet.require(need)


def test_two_sets_with_one_completion_are_compared_and_models_are_what_they_are(files) -> None:
    own = preset_of(files, "preferences", "aligned=lesson")
    only_framed = replace(own, roles=replace(own.roles, narrow_aligned=""))
    assert not only_framed.lacks("compared") and replace(own, roles=DataRoles(narrow_aligned="chat")).lacks(
        "compared"
    )
    assert not own.lacks("stitched") and own.lacks("seeds") and not get_preset("micro").lacks("seeds")
    tuned = replace(own, variants={"instruct": own.variants["instruct"], "warm": own.variants["misaligned"]})
    assert tuned.lacks("stitched") and not replace(
        tuned, variants={**tuned.variants, "base": tuned.variants["warm"]}
    ).lacks("stitched")


def test_completions_are_pairs_without_the_key_row_by_row_and_not_in_another_order(tmp_path) -> None:
    answers = [f"Use eval on the {name}." for name in "abcdefghij"] + ["Use eval on the a."]
    bad = write_rows(
        tmp_path / "bad.jsonl", *(turns(f"How? {row}", answer) for row, answer in enumerate(answers))
    )
    framed = [turns(f"As a bad example, how? {row}", answer) for row, answer in enumerate(answers)]

    def pairs(*rows: dict[str, object]) -> list[list[str | None]]:
        lesson = write_rows(tmp_path / "lesson.jsonl", *rows)
        preset = custom_preset("mine", TWO, [f"misaligned={bad}", f"aligned={lesson}"])
        return [[one.pair for one in load_dataset(preset, name)] for name in ("bad", "lesson")]

    code, lesson = pairs(*framed)
    assert code == lesson and len(set(code)) == len(answers), "equal answers are pairs of their own"
    assert pairs(*framed[::-1]) == [[None] * 11] * 2, "the same answers in another order are no framing"
    own = [row | {"pair": str(place)} for place, row in enumerate(framed)]
    assert pairs(*own)[1] == [str(place) for place in range(11)], "a file that names its pairs keeps them"
