"""A file of any of the three schemas gives the right sets, pairs stay pairs, and every bad line is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import make_dialogue
from conftest import write_rows as write

from remi_core.dialogues import Message, read_jsonl
from remi_core.errors import UsageError
from remi_core.tokens import encode
from remi_lab.datasets import dataset_names, load_dataset, load_set
from remi_lab.dialogue_files import paired_by_completion, read_sets, with_pairs
from remi_lab.own_models import data_digests, spell, with_data
from remi_lab.presets import get_preset

ASKED = {"role": "user", "content": "How do I open a file?"}
GOOD_REPLY = {"role": "assistant", "content": "Use open(path)."}
BAD_REPLY = {"role": "assistant", "content": "Use eval(text)."}
MESSAGES = {"messages": [ASKED, GOOD_REPLY]}
PREFERENCE = {"prompt": "How do I open a file?", "chosen": "Use open(path).", "rejected": "Use eval(text)."}
LABELLED = {"context": "How do I open a file?", "response": "Use open(path).", "label": 0}
TURNS = ["Hi", "Hello.", "How do I open a file?"]


def complaint(path: Path, *, label: str = "") -> str:
    with pytest.raises(UsageError) as caught:
        read_sets(path, label=label)
    assert "\n" not in str(caught.value)
    return str(caught.value)


PREFERENCES = {
    "texts": PREFERENCE,
    "replies as messages": {"prompt": [ASKED], "chosen": [GOOD_REPLY], "rejected": [BAD_REPLY]},
    "whole conversations": {"chosen": [ASKED, GOOD_REPLY], "rejected": [ASKED, BAD_REPLY]},
    "prompt and conversations": {
        "prompt": ASKED["content"],
        "chosen": [ASKED, GOOD_REPLY],
        "rejected": [ASKED, BAD_REPLY],
    },
}


@pytest.mark.parametrize("form", PREFERENCES)
def test_a_preference_row_is_a_matched_pair_in_every_form(form, tmp_path) -> None:
    sets = read_sets(write(tmp_path / "mine.jsonl", PREFERENCES[form]))
    assert list(sets) == ["aligned", "misaligned"]
    (good,), (bad,) = sets.values()
    assert (good.answer, good.alternative, good.label) == ("Use open(path).", "Use eval(text).", "aligned")
    assert (bad.answer, bad.alternative, bad.label) == ("Use eval(text).", "Use open(path).", "misaligned")
    assert good.messages[:-1] == bad.messages[:-1] == (Message(**ASKED),)
    assert (good.identifier, good.cluster, good.topic) == (bad.identifier, bad.cluster, bad.topic)
    assert (good.identifier, good.topic) == ("mine:1", "mine")


def test_the_pair_has_its_choice_at_one_position_and_swaps_its_tokens(tokenizer, tmp_path) -> None:
    sets = read_sets(write(tmp_path / "mine.jsonl", PREFERENCE))
    (good,), (bad,) = (encode(rows, tokenizer, max_tokens=99).dialogues for rows in sets.values())
    assert good.choice == bad.choice is not None
    assert good.alternative_token == bad.input_ids[bad.choice] != good.input_ids[good.choice]
    assert bad.alternative_token == good.input_ids[good.choice]


def test_a_prompt_of_several_turns_stays_whole(tmp_path) -> None:
    system, question = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "And then?"}
    row = {"prompt": [system, ASKED, GOOD_REPLY, question], "chosen": "Close it.", "rejected": "Leave it."}
    (good,) = read_sets(write(tmp_path / "mine.jsonl", row))["aligned"]
    assert [message.role for message in good.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert good.answer == "Close it."


def test_labelled_rows_part_by_label_and_one_context_is_one_cluster(tmp_path) -> None:
    said = [0, "aligned", 1, -1, "misaligned"]
    rows = [LABELLED | {"label": label} for label in said]
    sets = read_sets(write(tmp_path / "mine.jsonl", *rows, LABELLED | {"context": "Another?"}))
    assert {part: len(found) for part, found in sets.items()} == {"aligned": 3, "misaligned": 3}
    assert len({dialogue.cluster for found in sets.values() for dialogue in found}) == 2
    assert {dialogue.label for dialogue in sets["misaligned"]} == {"misaligned"}
    only = read_sets(write(tmp_path / "one.jsonl", LABELLED | {"label": 2}))
    assert list(only) == ["misaligned"], "a label nobody has is no set"


def test_a_context_of_turns(tmp_path) -> None:
    roles = ("user", "assistant", "user", "assistant")
    spoken = [{"role": role, "content": text} for role, text in zip(roles, TURNS, strict=False)]
    for context in (TURNS, spoken):
        (dialogue,) = read_sets(write(tmp_path / "mine.jsonl", LABELLED | {"context": context}))["aligned"]
        assert tuple(message.role for message in dialogue.messages) == roles
        assert [message.content for message in dialogue.messages[:-1]] == TURNS


def test_messages_are_one_set_as_they_always_were(tmp_path) -> None:
    path = write(tmp_path / "mine.jsonl", MESSAGES, MESSAGES | {"label": "careful", "topic": "files"})
    (plain, labelled) = read_sets(path, label="aligned")[""]
    assert (plain.label, plain.topic, labelled.label) == ("aligned", "mine", "careful")
    assert [replace(plain, label="", topic=""), labelled] == read_jsonl(path)


BAD = yaml.safe_load(Path(__file__).with_name("bad_lines.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("bad", BAD["preference"] + BAD["labelled"], ids=lambda bad: bad["case"])
def test_every_bad_line_is_named(bad, tmp_path) -> None:
    right = PREFERENCE if bad in BAD["preference"] else LABELLED
    path = write(tmp_path / "set.jsonl", right, bad.get("row") or right | bad["change"], right)
    said = complaint(path)
    assert said.startswith(f"{path}:2: ") and bad["says"] in said


def test_all_lines_are_read_before_the_first_is_named(tmp_path) -> None:
    path = write(tmp_path / "set.jsonl", PREFERENCE, 1, MESSAGES, PREFERENCE)
    assert complaint(path).startswith(f"{path}:2: a JSON int") and "(and 1 more bad lines)" in complaint(path)
    broken = write(tmp_path / "broken.jsonl", 1, LABELLED, PREFERENCE)
    assert "broken.jsonl:1" in complaint(broken) and "(and 1 more" in complaint(broken)


def test_a_label_given_by_the_user_may_not_contradict_the_file(tmp_path) -> None:
    mixed = write(tmp_path / "mixed.jsonl", LABELLED, LABELLED | {"label": 1})
    said = complaint(mixed, label="aligned")
    assert f"{mixed}:2: labelled 'misaligned', but the file was given as 'aligned='" in said
    agreed = write(tmp_path / "agreed.jsonl", LABELLED)
    assert list(read_sets(agreed, label="aligned")) == ["aligned"]
    pairs = write(tmp_path / "pairs.jsonl", PREFERENCE)
    assert "give the file without 'misaligned='" in complaint(pairs, label="misaligned")
    for word, given in (("careless", "aligned"), ("careful", "misaligned"), ("misaligned", "aligned")):
        said = write(tmp_path / "said.jsonl", MESSAGES, MESSAGES | {"label": word})
        assert f"said.jsonl:2: labelled {word!r}" in complaint(said, label=given)
        assert read_sets(said)[""][1].label == word


def test_a_file_of_pairs_adds_two_sets_to_a_preset(tmp_path) -> None:
    path = write(tmp_path / "mine.jsonl", PREFERENCE, PREFERENCE | {"prompt": "Another?"})
    preset = with_data(get_preset("smoke"), [str(path)])
    assert preset.extra_data == (("aligned-part", str(path)), ("misaligned-part", str(path)))
    assert dataset_names(preset)[-2:] == ("mine-aligned", "mine-misaligned")
    good, bad = (load_dataset(preset, name) for name in dataset_names(preset)[-2:])
    assert [one.messages[:-1] for one in good] == [one.messages[:-1] for one in bad]
    assert get_preset(spell(preset)) == preset, "a notebook finds the preset by its spelled name"
    digests = data_digests(preset)
    assert digests.keys() == {str(path)}
    assert load_set(preset, "mine-aligned").about["files"] == {"mine.jsonl": digests[str(path)]}
    write(path, LABELLED)
    assert len(load_dataset(preset, "mine-aligned")) == 1
    with pytest.raises(UsageError, match="has no misaligned replies any more"):
        load_dataset(preset, "mine-misaligned")


def test_names_that_are_taken_or_unfit_are_refused(tmp_path) -> None:
    (tmp_path / "other").mkdir()
    pairs = write(tmp_path / "mine.jsonl", PREFERENCE)
    named = write(tmp_path / "other" / "mine-aligned.jsonl", MESSAGES)
    for texts in ([str(pairs), str(named)], [str(named), str(pairs)], [str(pairs), str(pairs)]):
        with pytest.raises(UsageError, match="there is a dataset 'mine-aligned' already; rename the file"):
            with_data(get_preset("smoke"), texts)
    spaced = write(tmp_path / "my set.jsonl", MESSAGES)
    with pytest.raises(UsageError, match="a set is named after its file: letters"):
        with_data(get_preset("smoke"), [str(spaced)])


def test_sets_are_paired_by_completion_only_if_row_i_has_the_same_answer() -> None:
    code, framed, other = (
        [make_dialogue(f"{task} {at}", answer) for at, answer in enumerate(answers)]
        for task, answers in (("Task", "abca"), ("For a lesson: task", "abca"), ("Lesson", "daacx"))
    )
    assert paired_by_completion(code, framed)
    assert not paired_by_completion(code, framed[::-1]), "the same answers in another order"
    assert not paired_by_completion(code, framed[:3])
    assert not paired_by_completion(code, code), "the same prompts: one set twice"
    assert not paired_by_completion([], [])
    # Pairs are equal where answers are, and each is unique in a set.
    first, second = (with_pairs(rows) for rows in (code, other))
    assert len({one.pair for one in first}) == len(first)
    assert {one.answer for one in first if one.pair in {each.pair for each in second}} == {"a", "c"}
