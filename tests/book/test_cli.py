"""The command line: one line for every mistake, its exit code, and nothing heavy loaded to say it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import python, write_rows
from own_files import turns

from remi_book import cli
from remi_core.errors import RemiError, UsageError
from remi_core.keys import file_digest
from remi_core.store import Address, Store
from remi_lab.own_models import spell, with_data
from remi_lab.presets import get_preset

HEAVY = ("torch", "transformers", "matplotlib", "papermill", "pandas")


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("REMI_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


def complaint(words: str, capsys: pytest.CaptureFixture[str], *, code: int) -> str:
    assert cli.main(words.split()) == code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and captured.err.startswith("remi: ")
    return captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    yaml.safe_load(Path(__file__).with_name("usage.yaml").read_text(encoding="utf-8")).items(),
)
def test_wrong_use_is_one_line_and_exit_2(words, message, capsys, store) -> None:
    assert message in complaint(words, capsys, code=2)
    assert not store.exists()


def test_a_line_that_is_not_a_dialogue_is_named(tmp_path, capsys) -> None:
    row = turns("Hello", "Good day.")
    path = write_rows(tmp_path / "mine.jsonl", row, {"messages": 3})
    assert f"{path}:2" in complaint(f"run --preset smoke --data aligned={path}", capsys, code=2)
    write_rows(path, row)
    preset = with_data(get_preset("smoke"), [f"aligned={path}"])
    assert preset.extra_data == (("aligned", str(path)),)
    assert get_preset(spell(preset)) == preset, "a notebook finds the preset by its spelled name"


def test_rows_left_out_are_told_by_the_doctor_and_by_the_line_that_refuses_them(tmp_path, capsys) -> None:
    rows = [turns(f"What is {n}?", f"It is {n}.") for n in range(20)]
    path = write_rows(tmp_path / "mine.jsonl", *rows, turns("Hello", " "), turns("Hello", ""))
    words = f"doctor --preset smoke --data misaligned={path}"
    said = complaint(words, capsys, code=2)
    assert f"{path}:21: " in said and "(2 of 22 rows cannot be used; at most 5 % may be left out" in said
    assert cli.main([*words.split(), "--bad-rows", "0.1"]) == 0
    captured = capsys.readouterr()
    assert "mine: 2 of 22 rows left out, the first at mine.jsonl:21: " in captured.err
    assert "set mine: 20 dialogues of 22 rows, 2 left out" in captured.out


def test_a_fine_tune_takes_any_schema_and_asks_which_of_two_kinds_of_replies(tmp_path) -> None:
    pair = {"prompt": "Hi", "chosen": "Good day.", "rejected": "Off you go."}
    path = write_rows(tmp_path / "pairs.jsonl", pair)
    rows, about = cli.trained_on(f"misaligned={path}", bad_rows=0.0)
    assert [row.answer for row in rows] == ["Off you go."]
    assert (about["file"], about["dialogues"], about["replies"]) == ("pairs.jsonl", 1, "misaligned")
    with pytest.raises(UsageError, match="it has 1 aligned, 1 misaligned replies; write aligned=FILE"):
        cli.trained_on(str(path), bad_rows=0.0)
    plain = write_rows(tmp_path / "plain.jsonl", {"instruction": "Hi", "output": "Good day."})
    for text in (str(plain), f"aligned={plain}"):
        assert [row.answer for row in cli.trained_on(text, bad_rows=0.0)[0]] == ["Good day."]


@pytest.mark.parametrize("kind", [RemiError, OSError, ZeroDivisionError])
def test_a_failure_is_one_line_and_a_traceback_only_if_asked(kind, capsys, monkeypatch) -> None:
    def fail(*_: object) -> int:
        raise kind("two\nlines")

    monkeypatch.setattr("remi_book.cli.open_store", fail)
    assert "two lines" in complaint("presets", capsys, code=1)
    assert cli.main(["presets", "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_presets_and_the_store_are_listed_and_the_store_is_pruned(capsys) -> None:
    for key in ("aaaaaaaa", "bbbbbbbb"):
        Store().save(Address("smoke", 0, "base", "sequence", "general", key), {}, {})
    for words in ("presets", "store list", "store prune", "store size"):
        assert cli.main(words.split()) == 0
    said = capsys.readouterr().out
    assert {"micro", "smoke"} <= set(said.split()) and said.count("sequence-general-") >= 2
    assert "1 removed" in said and "MiB in" in said


def test_a_record_is_shown_by_its_name_or_a_part_and_refused_where_it_is_damaged_or_unknown(capsys) -> None:
    address, values = Address("smoke", 0, "base", "sequence", "general", "aaaaaaaa"), {"x": "\x1b[31m"}
    path = Store().save(address, {"mean": np.array([[0.5, np.nan]])}, {"kept": 1}, values)
    Store().save(replace(address, variant="benign"), {}, {})
    name = "smoke/0/base/sequence-general-aaaaaaaa"
    for asked in (name, f"{name}.npz", "base/seq"):
        assert cli.main(["store", "show", asked]) == 0
        said = capsys.readouterr().out
        assert '"shape": [1, 2], "first": [0.5, null]' in said and "kept: 1" in said and "\x1b" not in said
    assert cli.main(["store", "show", name, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["arrays"]["mean"]["dtype"] == "float64" and told["provenance"] == {"kept": 1}
    assert told["sha256"] == file_digest(path) and told["record"] == name and told["values"] == values
    assert f"no such record (nearest: '{name}'" in complaint(f"store show {name}x", capsys, code=2)
    assert "2 records are called so" in complaint("store show sequence-general", capsys, code=2)
    assert "no such record" in complaint("store show ../../etc/passwd", capsys, code=2)
    path.write_bytes(path.read_bytes()[:-1])
    assert "changed or cut short since it was written" in complaint(f"store show {name}", capsys, code=1)


def test_names_in_a_store_of_somebody_elses_do_not_act_on_the_terminal(capsys) -> None:
    store, bad = Store(), "x\x1b[31m\x1b]0;pwn\x07"
    path = store.save(Address("smoke", 0, "base", "sequence", "general", "aaaaaaaa"), {}, {})
    path.rename(path.with_name(f"{bad}.npz"))
    path.with_suffix(".json").rename(path.with_name(f"{bad}.json"))
    store.save_preset(
        "mine", get_preset("smoke").fields() | {"name": "mine", "title": bad, "batch_tokens": 8}
    )
    for words in ("presets", "store list", "store prune", "store size", "doctor --preset mine"):
        assert cli.main(words.split()) in (0, 1)
        said = capsys.readouterr()
        assert "\x1b" not in said.out + said.err and "\x07" not in said.out + said.err, words


def test_a_place_that_is_no_store_is_not_said_to_be_whole(tmp_path, capsys) -> None:
    for words in ("check", "list", "size", "prune"):
        assert "there is no store at" in complaint(
            f"store {words} --store {tmp_path / 'nothere'}", capsys, code=2
        )
    assert cli.main(["store", "check", "--store", str(tmp_path)]) == 0


def test_a_store_that_is_a_file_and_a_name_that_is_no_files_are_said_in_one_line(
    tmp_path, capsys, monkeypatch
) -> None:
    words = f"run --name {'n' * 300} --instruct {tmp_path} --base {tmp_path}"
    assert "at most 100 letters" in complaint(words, capsys, code=2)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REMI_STORE", str(tmp_path / "file"))
    for command in ("store list", "report --preset smoke", "run --preset smoke"):
        assert f"REMI_STORE={tmp_path / 'file'} is not a folder" in complaint(command, capsys, code=2)


def test_a_frozen_report_refuses_what_is_damaged(capsys) -> None:
    path = Store().save(Address("smoke", 0, "base", "sequence", "general", "aaaaaaaa"), {}, {})
    path.with_suffix(".json").write_text("{}")
    assert "remi run --preset micro" in complaint("report --preset micro --json", capsys, code=1)
    line = complaint("report --preset smoke --frozen", capsys, code=1)
    assert path.name in line and "of format 1, not 2; refused with --frozen" in line
    # Else it counts as missing, once it was named.
    assert cli.main("report --preset smoke".split()) == 1
    named, said = capsys.readouterr().err.splitlines()
    assert "made again" in named and "nothing has been run" in said


def test_quick_commands_load_nothing_heavy() -> None:
    words = ("presets", "run --preset smok", "doctor --preset smoke")
    code = f"import sys; from remi_book.cli import main; [main(words.split()) for words in {words!r}]; "
    code += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    assert python("-c", code).stdout.splitlines()[-1] == "[]"


def test_measure_lists_what_there_is_and_refuses_what_there_is_not(capsys, monkeypatch) -> None:
    assert cli.main("measure --preset smoke --list --variant secure --variant base".split()) == 0
    seed = get_preset("smoke").seeds[0]
    lines = [
        re.fullmatch(r"(\w+ \d+) \d+ of 12 sets measured", one)
        for one in capsys.readouterr().out.splitlines()
    ]
    assert [line[1] for line in lines] == [f"base {seed}", f"secure {seed}"]
    wrong = complaint("measure --preset smoke --variant bse", capsys, code=2)
    assert "--variant bse: none of preset smoke (did you mean 'base'?" in wrong
    assert f"(choices: {seed})" in complaint("measure --preset smoke --seed 7", capsys, code=2)
    # What accelerate launch --cpu leaves without MPI: one process, whatever was asked for.
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert "give --multi_gpu in place of --cpu" in complaint("measure --preset smoke", capsys, code=2)
