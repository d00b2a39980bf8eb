"""One notebook: wrong parameters start no kernel, a failure is named and kept, a whole run counts; the log of runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import papermill
import pytest
import yaml
from papermill.exceptions import PapermillExecutionError
from warm_kernel import write_notebook

from remi_book import running
from remi_core.errors import RemiError, UsageError
from remi_core.store import Store
from remi_lab.presets import NEEDS

TABLES = yaml.safe_load(Path(__file__).with_name("running.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_notebook(tmp_path / "source" / "01_sum.ipynb", ["print(n + 1, rate)"])


def texts(executed: Path) -> list[str]:
    cells = nbformat.read(executed, as_version=4).cells
    return [output.get("text", "") for cell in cells for output in cell.get("outputs", [])]


def test_a_run_is_done_under_its_key_alone_and_named_once_it_was_changed(source, tmp_path, capsys) -> None:
    target = tmp_path / "out" / "01_sum.ipynb"
    seconds = running.run_notebook(source, target, {"n": 41, "rate": 1}, key="ab12cd34")
    assert texts(target) == ["42 1\n"]
    assert sorted(path.name for path in target.parent.iterdir()) == ["01_sum.ipynb", "01_sum.json"]
    assert running.execution_record(target)["seconds"] == pytest.approx(seconds, abs=0.01)
    assert running.is_done(target, "ab12cd34") and not running.is_done(target, "ab12cd35")
    target.write_text(target.read_text().replace("42 1", "43 1"))
    assert not running.is_done(target, "ab12cd34")
    assert f"{target}: changed or cut short since it was written: made again" in capsys.readouterr().err
    with pytest.raises(RemiError, match=r"01_sum\.ipynb: .*refused with --frozen"):
        running.is_done(target, "ab12cd34", frozen=True)
    # A run that was killed between two cells is not complete.
    notebook = json.loads(target.read_text())
    notebook["cells"][-1]["metadata"]["papermill"]["status"] = "pending"
    target.write_text(json.dumps(notebook))
    assert not running.is_complete(target)


@pytest.mark.parametrize(("parameters", "message"), TABLES["parameters"])
def test_wrong_parameters_start_no_kernel(source, tmp_path, monkeypatch, parameters, message) -> None:
    monkeypatch.setattr(running, "_execute", lambda *_: pytest.fail("a kernel was started"))
    with pytest.raises(UsageError, match=message):
        running.run_notebook(source, tmp_path / "out" / "01_sum.ipynb", parameters)
    assert not (tmp_path / "out").exists()


def test_a_failure_names_the_cell_or_the_dead_kernel_and_keeps_what_was_there(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out" / "01_sum.ipynb"
    write_notebook(target, ["'the run before'"])
    before = target.read_text()
    write_notebook(source, ["n", "raise KeyError('first\\nlast line')", "'never run'"])
    # Cells from 1: title, parameters, n, raise. Papermill's own cells are not counted.
    message = r"01_sum\.ipynb, cell 4: KeyError: .*last line.*; partial notebook: "
    with pytest.raises(RemiError, match=message):
        running.run_notebook(source, target, {"n": 1})
    part = target.with_suffix(".part.ipynb")
    assert target.read_text() == before and part.is_file() and not running.is_complete(part)
    write_notebook(source, ["import os", "os._exit(3)"])
    with pytest.raises(RemiError, match=r"01_sum\.ipynb, failed: DeadKernelError"):
        running.run_notebook(source, target, {})


FORKED_CELLS = [
    "import os, sys, json",
    "print(json.dumps({'n': n, 'parent': os.getppid(), 'folder': os.getcwd(), 'fresh': 'left' not in globals()}))",
    "print('torch' in sys.modules, os.environ['FOR_THIS_ONE'])",
    "left = os.environ['LEFT'] = 'here'",
    "import matplotlib\nmatplotlib.get_backend()",
]


def test_forked_kernels_share_what_was_imported_and_nothing_else(tmp_path: Path, monkeypatch) -> None:
    for name, value in running.KERNEL_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    source, seen = write_notebook(tmp_path / "source" / "01_sum.ipynb", FORKED_CELLS), {}
    for number, forked in enumerate((True, True, False)):
        monkeypatch.setenv("FOR_THIS_ONE", f"run {number}")
        target = tmp_path / f"out{number}" / "01_sum.ipynb"
        running.run_notebook(source, target, {"n": number}, forked=forked)
        first, second = "".join(texts(target)).splitlines(keepends=True)
        seen[number] = json.loads(first)
        assert (seen[number]["n"], seen[number]["fresh"]) == (number, True)
        assert Path(seen[number]["folder"]) == source.parent
        # Only a fork finds imported what it did not import.
        assert second == f"{forked} run {number}\n"
        assert "inline" in target.read_text()
    assert seen[0]["parent"] == seen[1]["parent"] != seen[2]["parent"] == os.getpid()
    write_notebook(source, ["import os", "os._exit(3)"])
    with pytest.raises(RemiError, match=r"01_sum\.ipynb, failed: DeadKernelError"):
        running.run_notebook(source, target, {}, forked=True)


def test_a_forked_kernel_that_does_not_start_is_started_by_itself(
    source, tmp_path, monkeypatch, capsys
) -> None:
    execute, started = running._execute, []

    def dies_once(*arguments: object) -> None:
        started.append(
            json.loads((Path(arguments[3]) / "kernels/python3/kernel.json").read_text()).get("metadata")
        )
        if len(started) == 1:
            raise RuntimeError("Kernel died before replying to kernel_info")
        execute(*arguments)

    monkeypatch.setattr(running, "_execute", dies_once)
    running.run_notebook(source, tmp_path / "out" / "01_sum.ipynb", {"n": 1}, forked=True)
    assert [about is None for about in started] == [False, True]
    assert "the forked kernel did not start" in capsys.readouterr().err
    started.clear()
    with pytest.raises(RemiError, match="Kernel died before"):
        running.run_notebook(source, tmp_path / "out" / "01_sum.ipynb", {"n": 1})


def test_parameters_carry_type_and_default_in_one_cell(source: Path) -> None:
    declared = running.declared_parameters(source)
    numbers = [("n", "int", 2), ("rate", "float", 0.5), ("layers", "list[int]", [0])]
    found = [(each.name, each.type, each.default) for each in declared.values()]
    assert found == [("preset", "str", "micro"), *numbers]
    running.check_parameters(source, {each.name: each.default for each in declared.values()})
    notebook = nbformat.read(source, as_version=4)
    del notebook.cells[1]
    nbformat.write(notebook, source)
    with pytest.raises(UsageError, match="0 cells tagged 'parameters'"):
        running.declared_parameters(source)


@pytest.mark.parametrize(("text", "written", "value"), TABLES["texts"])
def test_texts_are_read_as_the_declared_type(text: str, written: str, value: object) -> None:
    parsed = running.parse_value(text, written)
    assert parsed == value and type(parsed) is type(value) and running.has_type(parsed, written)
    for other, kind in (("3.5", "int"), ("x", "float"), ("1", "bool"), ("['a']", "list[int]")):
        assert not running.has_type(running.parse_value(other, kind), kind)


def test_cells_that_need_what_is_lacking_become_one_note(tmp_path: Path) -> None:
    source = write_notebook(tmp_path / "01_sum.ipynb", ["print('kept')", "raise KeyError", "raise KeyError"])
    notebook = json.loads(source.read_text())
    for cell in notebook["cells"][-2:]:
        cell["metadata"]["tags"] = ["needs-framed"]
    source.write_text(json.dumps(notebook))
    target = tmp_path / "out" / "01_sum.ipynb"
    running.run_notebook(source, target, {}, lacking=("framed", "organism"))
    shown = "".join("".join(cell["source"]) for cell in json.loads(target.read_text())["cells"])
    assert shown.count("Not shown for this preset") == 1 and NEEDS["framed"] in shown
    assert texts(target) == ["kept\n"]
    with pytest.raises(RemiError, match="cell 4: KeyError"):
        running.run_notebook(source, target, {}, lacking=("organism",))
    step = SimpleNamespace(name="01_sum", source=source, target=target, lacking=("framed",))
    lines = running.missing_lines(step)
    assert lines == [f"01_sum: 2 figures or tables not shown, they need {NEEDS['framed']}"]


def test_steps_and_outcomes_are_written_down_and_a_log_that_cannot_be_stops_nothing(tmp_path: Path) -> None:
    log = running.RunLog(Store(tmp_path).log_path("smoke", running.log_name()))
    with pytest.raises(KeyboardInterrupt), log.run({"preset": "smoke"}):
        with log.step("one", in_children=False):
            pass
        with pytest.raises(ValueError), log.step("two", in_children=True):
            raise ValueError("of two\nlines")
        raise KeyboardInterrupt
    first, *steps, last = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert (first["event"], first["preset"], "torch" in first["versions"]) == ("run", "smoke", True)
    said = [f"{row['event']} {row['step']}" for row in steps]
    assert said == ["start one", "step one", "start two", "step two"]
    assert steps[1]["outcome"] == "done" and steps[1]["seconds"] >= 0 and steps[1]["peak_memory"] > 0
    assert (steps[3]["outcome"], steps[3]["reason"]) == ("failed", "ValueError: of two lines")
    assert (last["event"], last["outcome"]) == ("end", "interrupted")
    (tmp_path / "file").write_text("where a folder is wanted")
    log = running.RunLog(tmp_path / "file" / "one.jsonl")
    with log.run({}), log.step("one", in_children=False):
        pass


def by_papermill(source: Path, target: Path) -> None:
    papermill.execute_notebook(str(source), str(target), kernel_name="python3", progress_bar=False)


def by_jupyter(source: Path, target: Path) -> None:
    command = Path(sys.executable).with_name("jupyter-execute")
    done = subprocess.run([command, str(source), f"--output={target.stem}"], capture_output=True, text=True)
    if done.returncode:
        raise RemiError(done.stderr)


OPENED = "from remi_book.notebook import open_results\nresults = open_results('smoke')"


@pytest.mark.parametrize("execute", [by_papermill, by_jupyter])
def test_by_every_route_a_missing_input_is_a_note_and_so_is_what_hangs_on_it(tmp_path, execute) -> None:
    raised = (
        "from remi_core.errors import MissingInput\nif n:\n    raise MissingInput('needs a thing')\nmade = 1"
    )
    cells = [OPENED, raised, "made + 1", "'kept'", "made = 2", "made"]
    target = tmp_path / "done.ipynb"
    execute(write_notebook(tmp_path / "01_sum.ipynb", cells), target)
    outputs = [cell["outputs"] for cell in running.read_cells(target) if cell["cell_type"] == "code"][1:]
    notes = [[one["metadata"].get(running.NOTES) for one in each] for each in outputs]
    assert notes == [[], ["needs a thing"], ["needs a thing"], [None], [], [None]]
    assert [one["data"]["text/plain"] for each in outputs[3:] for one in each] == [["'kept'"], ["2"]]


DEGENERATE = "import numpy as np\nfrom remi_book.chapters.stitching import shuffled_depth\n"
DEGENERATE += "made = shuffled_depth(np.array([0.1, np.nan]), n_permutations=2, seed=0)"


def test_an_estimate_without_a_value_is_a_note_and_a_value_error_of_the_cell_itself_is_none(tmp_path) -> None:
    target = tmp_path / "done.ipynb"
    by_papermill(write_notebook(tmp_path / "01_sum.ipynb", [OPENED, DEGENERATE, "made", "'kept'"]), target)
    outputs = [cell["outputs"] for cell in running.read_cells(target) if cell["cell_type"] == "code"][2:]
    notes = [[one["metadata"].get(running.NOTES) for one in each] for each in outputs]
    said = "needs models and dialogues from which it can be computed (1 of 2 shares are not numbers)"
    assert notes == [[said], [said], [None]]
    with pytest.raises(Exception, match="ValueError"):
        by_papermill(write_notebook(tmp_path / "02_sum.ipynb", [OPENED, "float('a')"]), target)


def test_an_error_that_is_none_of_ours_still_ends_a_notebook(tmp_path) -> None:
    with pytest.raises(RemiError, match="ZeroDivisionError"):
        by_jupyter(write_notebook(tmp_path / "01_sum.ipynb", [OPENED, "1 / 0"]), tmp_path / "done.ipynb")


WRONG = [
    ({"prest": 1}, "no parameter 'prest' in this notebook .did you mean 'preset'"),
    ({"n": "2"}, "'n' is int, and '2' is not"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG)
def test_a_wrong_parameter_ends_papermill_in_the_first_cell_with_one_line(tmp_path, wrong, said) -> None:
    source = write_notebook(tmp_path / "01_sum.ipynb", [OPENED, "print('later')"])
    options = {"kernel_name": "python3", "language": "python", "progress_bar": False}
    with pytest.raises(PapermillExecutionError, match=said) as caught:
        papermill.execute_notebook(str(source), str(tmp_path / "done.ipynb"), wrong, **options)
    assert "Traceback" not in str(caught.value)
