"""The steps of a preset: order, what is skipped, refused or stopped; keys follow what changes a number."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from warm_kernel import write_notebook

from remi_book.cli import told_on_output
from remi_book.running import choose, imported_modules, plan, read_cells, run
from remi_core.errors import RemiError, UsageError
from remi_core.keys import canonical_json
from remi_core.progress import OUTWARD, clock, progress_sink
from remi_core.store import Store
from remi_lab.keys import make_key
from remi_lab.presets import ORGANISM_VARIANTS, get_preset
from remi_lab.processes import Meter, Progress, variables

SMOKE = get_preset("smoke")
TABLES = yaml.safe_load(Path(__file__).with_name("running.yaml").read_text(encoding="utf-8"))
LOG = "from pathlib import Path\nwith Path({log!r}).open('a') as log: print({words}, file=log)"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three notebooks that write down that they ran: one per variant, two that compare."""
    folder, log = tmp_path / "notebooks", str(tmp_path / "log")
    variant = 'preset: str = "micro"\nvariant: str = "base"\nn: int = 1\n'
    write_notebook(folder / "00_each.ipynb", [LOG.format(log=log, words="'00', variant")], parameters=variant)
    for name in ("01_one", "02_two"):
        write_notebook(folder / f"{name}.ipynb", [LOG.format(log=log, words=f"'{name}', n")])
    return folder


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.setattr("remi_lab.organism.variants.ensure", lambda *_: None)
    return Store(tmp_path / "store")


def test_variants_come_first_and_notebooks_are_chosen_by_name_number_or_prefix(folder, store) -> None:
    steps = plan(SMOKE, store, parameters={"rate": "1"}, folder=folder)
    each = [f"00_each-{variant}" for variant in ORGANISM_VARIANTS]
    assert [step.name for step in steps] == [*each, "01_one", "02_two"]
    assert len({step.key for step in steps}) == len(steps)
    assert not any(step.done for step in steps) and not store.root.exists()
    assert {step.name for step in steps if "rate" in step.parameters} == {"01_one", "02_two"}
    assert steps[-1].parameters == {"preset": "smoke", "rate": 1.0}
    (folder / "01_one.part.ipynb").write_text("{}")
    for name in ("01", "01_one", "01_one.ipynb"):
        assert [path.stem for path in choose(folder, [name])] == ["01_one"]
    assert [path.stem for path in choose(folder, ["0"])] == ["00_each", "01_one", "02_two"]


def test_only_what_changed_is_run_again_and_what_a_pass_says_is_heard(folder, store, tmp_path) -> None:
    def done(only: list[str], **parameters: str) -> list[bool]:
        return [step.done for step in plan(SMOKE, store, only=only, parameters=parameters, folder=folder)]

    said = "from remi_core.progress import progress_sink\nprogress_sink()('base: 5 of 9 tokens')"
    logged = LOG.format(log=str(tmp_path / "log"), words="'01_one', n")
    write_notebook(folder / "01_one.ipynb", [said, logged])
    steps, lines = plan(SMOKE, store, only=["01", "02"], folder=folder), list[str]()
    assert run(SMOKE, store, steps, jobs=2, say=lines.append) == 2
    assert sorted((tmp_path / "log").read_text().splitlines()) == ["01_one 2", "02_two 2"]
    assert lines[0].startswith("[1/2] 01_one … 00:00 elapsed") and lines[-1].startswith("[2 of 2 done]")
    # What is said is no output: a page does not tell how long it took to make it.
    assert any(line.startswith("    base: 5 of 9 tokens") for line in lines)
    assert not any(cell.get("outputs") for step in steps for cell in read_cells(step.target))
    write_notebook(folder / "02_two.ipynb", ["n + 1"])
    assert done(["01", "02"]) == [True, False] and done(["01"], n="5") == [False]


def test_stored_results_that_a_notebook_shows_and_code_are_part_of_its_key(
    tmp_path, store, monkeypatch
) -> None:
    monkeypatch.setattr("remi_book.running.project_root", lambda: tmp_path)
    declared = 'preset: str = "micro"\nstored: str = "large"\n'
    write_notebook(tmp_path / "notebooks" / "01_shows.ipynb", ["stored"], parameters=declared)
    write_notebook(tmp_path / "notebooks" / "02_other.ipynb", ["1"])
    before = [step.key for step in plan(SMOKE, store)]
    (tmp_path / "stored" / "large").mkdir(parents=True)
    (tmp_path / "stored" / "large" / "audit.json").write_text("{}")
    after = [step.key for step in plan(SMOKE, store)]
    assert before[0] != after[0] and before[1] == after[1]
    # So is the code that its cells import.
    monkeypatch.setattr("remi_book.running.imported_modules", lambda names: ("remi_core.store",))
    assert not {step.key for step in plan(SMOKE, store)} & {*after}


@pytest.mark.parametrize(("only", "parameters", "message"), TABLES["plan"])
def test_wrong_use_is_refused_before_anything_runs(
    folder, store, monkeypatch, only, parameters, message
) -> None:
    monkeypatch.setattr("remi_lab.demands.n_blocks", lambda preset: 8)
    with pytest.raises(UsageError, match=message):
        plan(SMOKE, store, only=only, parameters=parameters, folder=folder)
    assert not store.root.exists()


def test_a_failure_stops_what_has_not_started(folder, store, tmp_path) -> None:
    write_notebook(folder / "01_one.ipynb", ["1 / 0"])
    steps = plan(SMOKE, store, only=["01", "02"], folder=folder)
    with pytest.raises(RemiError, match=r"01_one\.ipynb, cell 3: ZeroDivisionError: division by zero"):
        run(SMOKE, store, steps, jobs=1, say=lambda line: None)
    assert not (tmp_path / "log").exists()


def test_time_left_is_known_from_before_or_from_what_is_done_and_a_short_pass_says_nothing(
    monkeypatch,
) -> None:
    now, lines = [0.0], list[str]()
    monkeypatch.setattr("remi_lab.processes.time.monotonic", lambda: now[0])
    progress = Progress(("a", "b", "c"), {}, jobs=1, say=lines.append)
    known = Progress(("a", "b"), {"a": 30.0, "b": 10.0}, jobs=2, say=lines.append)
    progress.start("a")
    known.start("a")
    assert progress.seconds_left() is None and known.seconds_left() == (30.0 + 10.0) / 2
    now[0] = 10.0
    progress.finish("a")
    assert (progress.seconds_left(), known.seconds_left()) == (20.0, (20.0 + 10.0) / 2)
    said, now[0] = list[str](), 0.0
    meter = Meter("base, seed 0: code", 4000, said.append)
    for seconds, done in ((5, 500), (20, 2000), (21, 2100), (40, 4000)):
        now[0] = seconds
        meter(done)
    numbers = [re.findall(r"[\d,:]*\d", line.partition(": code: ")[2]) for line in said]
    for seconds, n_lines in ((0.4, 0), (3.0, 1), (11.0, 4)):
        now[0], said = 0.0, []
        for _ in Meter("report of x", 5, said.append, unit="rows", after=2.0).each(
            ["C1", "C2", "C3", "C4", "C5"]
        ):
            now[0] += seconds
        assert len(said) == n_lines
    assert said[0] == "report of x: 1 of 5 rows (C2); 00:11 elapsed, about 00:44 left"
    assert numbers == [["2,000", "4,000", "00:20", "00:20"], ["4,000", "4,000", "00:40", "00:00"]]
    assert (clock(62.0), clock(3723.0)) == ("01:02", "1:02:03")


def test_a_pass_speaks_only_where_somebody_listens(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.delenv(OUTWARD, raising=False)
    progress_sink()("nobody hears")
    for place, said in (("-", "on the screen"), (str(tmp_path / "told"), "in a file")):
        with variables({OUTWARD: place}):
            progress_sink()(said)
            with told_on_output():
                progress_sink()("again")
    with told_on_output():
        progress_sink()("once more")
    progress_sink()("nobody hears any more")
    assert capsys.readouterr().out == "on the screen\nagain\nonce more\n" and OUTWARD not in os.environ
    assert (tmp_path / "told").read_text() == "in a file\nagain\n"
    monkeypatch.setenv("REMI_ONE", "before")
    with pytest.raises(KeyError), variables({"REMI_ONE": "1", OUTWARD: "2"}):
        raise KeyError
    assert os.environ["REMI_ONE"] == "before" and OUTWARD not in os.environ


FILES = {
    "__init__.py": '__version__ = "1"\n',
    "a.py": "from remi_core.b import twice\n\ndef f(x):\n    return twice(x)\n",
    "b.py": "def twice(x):\n    from . import c\n    return 2 * x + c.ZERO\n",
    "c.py": "ZERO = 0\n",
    "unrelated.py": "VALUE = 1\n",
    "part/__init__.py": "",
    "part/words.py": "from ..c import ZERO\n",
    "part/words.yaml": "- one\n",
}


@pytest.fixture
def root(tmp_path) -> Path:
    """A package ``remi_core`` in which a imports b, b imports c inside a function, and part has a data file."""
    for name, text in FILES.items():
        path = tmp_path / "remi_core" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_imports_are_followed_at_any_depth_and_no_key_is_made_of_what_it_cannot_hold(root) -> None:
    assert imported_modules(["remi_core.a"], root=root) == ("remi_core.a", "remi_core.b", "remi_core.c")
    words = ("remi_core.c", "remi_core.part", "remi_core.part.words")
    assert imported_modules(words[2:], root=root) == words
    for value in (float("nan"), {1, 2}, object(), Path("x")):
        with pytest.raises(ValueError, match="plain JSON"):
            canonical_json({"field": value})
    with pytest.raises(ValueError, match=r"no module 'remi_core\.d'"):
        make_key({}, ["remi_core.d"], root=root)


@pytest.mark.parametrize(("module", "name", "old", "new", "follows"), TABLES["keys"])
def test_a_key_follows_the_code_and_data_of_its_modules_alone(root, module, name, old, new, follows) -> None:
    before, path = make_key({"n": 1}, [module], root=root), root / "remi_core" / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert (make_key({"n": 1}, [module], root=root) != before) is follows
