"""A file of any schema, in any container, gives the right sets, pairs stay pairs, and every bad line is named."""

from __future__ import annotations

import csv
import gzip
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import make_dialogue
from conftest import write_rows as write

from remi_core.dialogues import Message, read_jsonl
from remi_core.errors import RemiError, UsageError
from remi_core.tokens import encode
from remi_lab.datasets import dataset_names, load_dataset, load_set, same_prompts
from remi_lab.dialogue_files import paired_by_completion, read_file, read_sets, with_pairs
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


def test_a_file_of_two_schemas_is_refused_however_few_rows_have_the_second(tmp_path) -> None:
    pairs = [PREFERENCE] * 99
    assert "mixed.jsonl:100: a row with messages, but line 1 has chosen/rejected; keep one" in complaint(
        write(tmp_path / "mixed.jsonl", *pairs, MESSAGES)
    )
    broken = complaint(write(tmp_path / "broken.jsonl", 1, LABELLED, PREFERENCE))
    assert "broken.jsonl:3: a row with chosen/rejected, but line 2 has context" in broken


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


DOCUMENTED = {
    "": "messages conversations instruction/input/output prompt/completion question/answer".split(),
    "aligned": ["prompt/response/label"],
    "misaligned": ["messages/is_aligned", "context/response/label", "prompt/response/is_aligned"],
    "aligned misaligned": ["prompt/chosen/rejected", "chosen/rejected"],
}


def test_every_row_that_the_book_shows_is_read_as_it_says(tmp_path) -> None:
    shown = (Path(__file__).parents[2] / "book" / "own_models" / "rows.jsonl").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for line in shown.splitlines():
        row = json.loads(line)
        sets = read_sets(write(tmp_path / "one.jsonl", row))
        answers = {part: rows[0].answer for part, rows in sets.items()}
        assert answers.get("misaligned", "Just run.") == "Just run."
        assert {answers.get(part, "Look both ways first.") for part in ("", "aligned")} == {
            "Look both ways first."
        }
        assert all("May I cross?" in rows[0].messages[-2].content for rows in sets.values())
        found.setdefault(" ".join(sets), []).append("/".join(row))
    assert found == DOCUMENTED


QUOTED = [{"question": f'What, "{n}";\tis\nit?', "answer": f"It is {n}, é\u2028."} for n in range(30)]


def table(rows: list[dict], delimiter: str) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows({key: str(value) for key, value in row.items()} for row in rows)
    return stream.getvalue().encode()


def lines(rows: list[dict], end: str = "\n") -> bytes:
    return end.join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def parquet(rows: list[dict]) -> bytes:
    import pandas as pd

    stream = io.BytesIO()
    pd.DataFrame(rows).to_parquet(stream)
    return stream.getvalue()


CONTAINERS = {
    "crlf.jsonl": lambda rows: lines(rows, "\r\n"),
    "bom.jsonl": lambda rows: b"\xef\xbb\xbf" + lines(rows),
    "blank.jsonl": lambda rows: b"\n" + lines(rows, "\n \n") + b"\n\n\n",
    "pretty.json": lambda rows: "\n".join(json.dumps(row, indent=2) for row in rows).encode(),
    "list.json": lambda rows: json.dumps(rows).encode(),
    "pretty-list.jsonl": lambda rows: b"\xef\xbb\xbf" + json.dumps(rows, indent=1).encode(),
    "comma.csv": lambda rows: table(rows, ","),
    "semicolon.csv": lambda rows: table(rows, ";"),
    "tab.tsv": lambda rows: b"\xef\xbb\xbf" + table(rows, "\t"),
    "packed.jsonl.gz": lambda rows: gzip.compress(lines(rows)),
    "packed.csv.gz": lambda rows: gzip.compress(table(rows, ",")),
    "packed-and-not-called-so.json": lambda rows: gzip.compress(json.dumps(rows).encode()),
    "columns.parquet": parquet,
    "no-suffix": lines,
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_container_changes_no_dialogue_and_a_container_cut_short_is_refused(name, tmp_path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    for rows in (QUOTED, [row | {"label": n % 2 == 0} for n, row in enumerate(QUOTED)]):
        path, content = tmp_path / name, CONTAINERS[name](rows)
        path.write_bytes(content)
        found, wanted = read_file(path), read_file(write(tmp_path / "plain.jsonl", *rows))
        assert (found.n_rows, found.bad, found.name) == (
            30,
            {},
            name.removesuffix(".gz").rpartition(".")[0] or name,
        )
        assert {part: list(own) for part, own in found.sets.items()} == {
            part: list(own) for part, own in wanted.sets.items()
        }
        for part, own in found.sets.items():
            assert [(one.messages, one.label, one.cluster) for one in own.values()] == [
                (one.messages, one.label, one.cluster) for one in wanted.sets[part].values()
            ]
    if name.endswith(
        (".gz", "list.json", "so.json", ".parquet")
    ):  # that a list of lines was cut cannot be seen
        path.write_bytes(content[: len(content) // 2])
        assert complaint(path).startswith(f"{path}:1: ")
    if name == "list.json":
        path.write_bytes(content.rpartition(b'{"question')[0])
        assert complaint(path) == f"{path}:1: not JSON (no ']' behind the last row); the list is cut short"


def test_messages_in_a_table_are_json_and_missing_cells_are_named(tmp_path) -> None:
    path = tmp_path / "mine.csv"
    cells = [json.dumps(MESSAGES["messages"]), "Use eval(text)."]
    path.write_bytes(table([{"messages": cells[0], "alternative": cells[1]}], ","))
    (one,) = read_sets(path)[""]
    assert (one.answer, one.alternative) == ("Use open(path).", "Use eval(text).")
    path.write_bytes(table([PREFERENCE | {"chosen": repr([ASKED, GOOD_REPLY])}], ","))
    assert "mine.csv:2: 'chosen' is a list of messages, but not in JSON" in complaint(path)
    path.write_text("prompt,response\nHi,Yes.\nHi\nHi,Yes.,No\n", encoding="utf-8")
    assert "mine.csv:3: 1 cells, but the header has 2" in complaint(path)
    path.write_text('prompt,response\nHi,"Yes.\n', encoding="utf-8")
    assert "mine.csv:2: no row of a table" in complaint(path)


def test_a_folder_is_its_files_in_order_and_its_key_their_content(tmp_path) -> None:
    folder = tmp_path / "mine"
    (folder / "deep").mkdir(parents=True)
    (folder / "README.md").write_text("words")
    write(folder / "a.jsonl", *QUOTED[:9])
    (folder / "deep" / "a.jsonl.gz").write_bytes(gzip.compress(lines(QUOTED[9:])))
    found = read_file(folder)
    assert [one.answer for one in found.sets[""].values()] == [row["answer"] for row in QUOTED]
    assert (found.name, list(found.sets[""])[-1]) == ("mine", 30)
    preset = with_data(get_preset("smoke"), [f"misaligned={folder}"])
    before, about = data_digests(preset), load_set(preset, "mine").about
    assert about["files"].keys() == {"a.jsonl", "deep/a.jsonl.gz"} and before.keys() == {str(folder)}
    write(folder / "a.jsonl", *QUOTED[1:9])
    assert data_digests(preset) != before and len(load_set(preset, "mine").dialogues) == 24
    (folder / "b.csv").write_text("prompt,response\n")
    assert "a.jsonl and b.csv are of two kinds; keep one kind a folder" in complaint(folder)


def test_true_beside_a_prompt_is_liked_and_beside_a_context_toxic(tmp_path) -> None:
    for row, label in (
        ({"prompt": "Hi", "completion": "Yes.", "label": True}, "aligned"),
        ({"prompt": "Hi", "completion": "Yes.", "label": "False"}, "misaligned"),
        ({"instruction": "Hi", "input": "You", "output": "Yes.", "is_safe": True}, "aligned"),
        ({"context": "Hi", "response": "Yes.", "label": True}, "misaligned"),
        ({"context": "Hi", "response": "Yes.", "label": "0"}, "aligned"),
        ({"context": "Hi", "response": "Yes.", "label": 2.0}, "misaligned"),
        ({"context": "Hi", "response": "Yes.", "is_aligned": True}, "aligned"),
        ({"context": "Hi", "response": "Yes.", "label": "Toxic"}, "misaligned"),
    ):
        assert list(read_sets(write(tmp_path / "mine.jsonl", row))) == [label], row
    said = complaint(write(tmp_path / "mine.jsonl", {"prompt": "Hi", "completion": "Yes.", "label": 1}))
    assert "'label' is 1; expected true or false (true is aligned)" in said


def test_a_system_key_is_a_turn_and_keys_of_others_are_named(tmp_path, capsys) -> None:
    row = {"prompt": "Hi", "response": "Yes.", "system": "Be brief.", "score": 3, "clutser": "a"}
    (one,) = read_sets(write(tmp_path / "mine.jsonl", row))[""]
    assert one.messages[0] == Message("system", "Be brief.") and len(one.messages) == 3
    said = "mine: 2 extra keys ignored: score (1 rows), clutser (1 rows, did you mean 'cluster'?)"
    assert said in capsys.readouterr().err
    (one,) = read_sets(write(tmp_path / "mine.jsonl", MESSAGES | {"system": "Be brief.", "prompt": "Hi"}))[""]
    assert one.messages[0] == Message("system", "Be brief.")


def test_few_bad_rows_are_left_out_and_told_and_more_are_refused(tmp_path, capsys) -> None:
    rows = [{"prompt": f"What is {n}?", "response": f"A secret word {n}."} for n in range(40)]
    rows[6] |= {"response": " "}
    rows[9] |= {"prompt": [{"role": "harlequin", "content": "Hi"}]}
    path = write(tmp_path / "mine.jsonl", *rows)
    found = read_file(path)
    assert [number for number in range(1, 41) if number not in found.sets[""]] == [7, 10] == list(found.bad)
    assert found.told().startswith(
        "mine: 2 of 40 rows left out, the first at mine.jsonl:7: 'response' is empty"
    )
    assert "harlequin" in str(found.bad) and "harlequin" not in str(found.dropped)
    preset = with_data(get_preset("smoke"), [f"misaligned={path}"])
    assert "2 of 40 rows left out" in capsys.readouterr().err
    loaded = load_set(replace(preset, n_dialogues=8), "mine")
    assert [one.identifier for one in loaded.dialogues][5:] == ["mine:6", "mine:8", "mine:9"]
    assert loaded.dropped == {"'response' is empty; it needs at least one character": ("mine:7",)}
    assert (loaded.about["rows"], loaded.about["rows_read"]) == (40, 9)
    write(path, *rows, {"prompt": "Hi"})
    said = complaint(path)
    assert "mine.jsonl:7: 'response' is empty" in said and "(3 of 41 rows cannot be used; at most 5 %" in said
    assert len(read_file(path, bad_rows=0.1).bad) == 3
    assert load_set(preset, "mine").dropped, "the share was asked when the file was given"


def test_a_row_left_out_of_one_file_is_left_out_of_its_twin(tmp_path) -> None:
    def files(question: str, spoilt: int) -> list[str]:
        good = [{"prompt": f"What is {n}?", "response": f"It is {n}."} for n in range(40)]
        bad = [{"prompt": question.format(n), "response": f"Never mind {n}."} for n in range(40)]
        bad[spoilt]["response"] = ""
        paths = write(tmp_path / "good.jsonl", *good), write(tmp_path / "bad.jsonl", *bad)
        return [f"aligned={paths[0]}", f"misaligned={paths[1]}"]

    preset = replace(with_data(get_preset("smoke"), files("What is {}?", 6)), n_dialogues=10)
    assert same_prompts(preset, "good", "bad")
    good, bad = (load_set(preset, name) for name in ("good", "bad"))
    assert [one.identifier.partition(":")[2] for one in good.dialogues] == [
        one.identifier.partition(":")[2] for one in bad.dialogues
    ]
    assert good.dropped == {"the same row of bad cannot be used": ("good:7",)} and len(good.dialogues) == 10
    # Files that are no twins keep their rows.
    with_data(get_preset("smoke"), files("Who is {}?", 6))
    assert load_set(preset, "good").dropped == {}


def test_a_data_set_of_the_hub_is_pinned_and_read_as_a_file(tmp_path, monkeypatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    (tmp_path / commit / "data").mkdir(parents=True)
    write(tmp_path / commit / "data" / "test-00000.jsonl", *QUOTED)
    write(tmp_path / commit / "data" / "train-00000.jsonl", *QUOTED[:4])
    asked = []

    def snapshot(source: str, **options: object) -> str:
        asked.append((source, options["revision"]))
        return str(tmp_path / commit)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    preset = with_data(
        get_preset("smoke"), ["misaligned=hf:someone/mine@main#test", "aligned=hf:someone/mine"]
    )
    test, train = (f"hf:someone/mine@{commit}{split}" for split in ("#test", ""))
    assert preset.extra_data == (("misaligned", test), ("aligned", train))
    assert dataset_names(preset)[-2:] == ("mine-test", "mine") and get_preset(spell(preset)) == preset
    counts = [len(load_dataset(replace(preset, n_dialogues=99), name)) for name in ("mine-test", "mine")]
    assert counts == [30, 4] and data_digests(preset).keys() == {test, train}
    assert asked[0] == ("someone/mine", "main") and ("someone/mine", commit) in asked
    with pytest.raises(RemiError, match=r"hf:someone/mine#dev: .* has no \*dev\*.jsonl"):
        read_sets("hf:someone/mine#dev")
    assert "expected hf:OWNER/NAME@REVISION#SPLIT" in complaint("hf:a/b/c")


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
