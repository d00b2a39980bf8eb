"""The quick half of the drills: what breaks is survived, a planted bug is found; `make drill` is the long half."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from remi_core.errors import RemiError, UsageError
from remi_core.store import Store
from remi_lab.presets import read_preset
from remi_lab.upkeep import damages
from tests.drill import flips
from tests.drill.flips import drill_flips
from tests.drill.kills import Victim, drill_kills, run_through, small_run
from tests.drill.rows import Row
from tests.drill.work import work

IN_PLACE = """
import json, sys
from contextlib import contextmanager
from pathlib import Path
from remi_core import files, store
from tests.drill import disk, work

@contextmanager
def in_place(target):
    target.parent.mkdir(parents=True, exist_ok=True)
    yield target

for module in (files, store, work):
    module.written_whole = in_place
print(json.dumps([vars(row) for row in disk.drill_disk(Path(sys.argv[1]), faults=["kill -9"], every=4)]))
"""
EVERY = 8


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A folder in main memory where there is one: thousands of flushes of a disk take minutes."""
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path
    ) as folder:
        yield Path(folder)


def rows_of(*words: str) -> list[Row]:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    return [Row(**row) for row in json.loads(done.stdout)]


@pytest.mark.skipif(sys.platform != "linux", reason="the drill reads /proc")
def test_a_disk_that_fails_at_any_step_loses_nothing_finished(quick: Path) -> None:
    rows = rows_of("-m", "tests.drill.disk", str(quick), str(EVERY))
    assert [row.drill.split()[1] for row in rows] == ["ENOSPC", "EIO", "EACCES", "kill"]
    for row in rows:
        assert row.failures == [] and row.held == row.tried > 10


@pytest.mark.skipif(sys.platform != "linux", reason="the drill reads /proc")
def test_writing_in_place_is_found_by_kills(quick: Path) -> None:
    (row,) = rows_of("-c", IN_PLACE, str(quick))
    assert row.held < row.tried and any("not JSON any more" in failure for failure in row.failures)


def test_killed_runs_are_gone_on_with_to_the_same_end(quick: Path) -> None:
    row = drill_kills(small_run(), quick, count=2)
    assert (row.tried, row.held, row.failures) == (2, 2, [])


ADDS = "import sys, time; time.sleep(0.2); open(sys.argv[1], 'a').write('x'); time.sleep(0.3)"


def victim(code: str) -> Victim:
    return Victim(
        name="victim",
        words=lambda root: [sys.executable, "-c", code, str(root / "one")],
        prepare=Path.mkdir,
        state=lambda root: {"one": (root / "one").read_text()},
    )


def test_a_run_that_does_anew_what_it_had_done_or_fails_is_found(quick: Path) -> None:
    row = drill_kills(victim(ADDS), quick, count=3, seed=1)
    assert row.tried == 3 and row.held < 3 and "differ, first one" in row.failures[0]
    with pytest.raises(RemiError, match="(?s)victim failed: .*ZeroDivisionError"):
        run_through(victim("1 / 0"), quick)


def test_flipped_bits_are_found(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = quick / "store"
    work(root, said=lambda line: None)
    (root / "drill" / "logs").mkdir()
    (root / "drill" / "logs" / "one.jsonl").write_text('{"event": "run"}\n')
    assert damages(root) == []
    row = drill_flips(root, count=40)
    assert row.failures == [] and row.held == row.tried == 40 and 0 < row.harmless < 20
    assert damages(root) == []  # every bit was turned back
    monkeypatch.setattr("remi_core.files.file_digest", lambda path: "0")
    monkeypatch.setattr(flips, "damages", lambda root: [])
    assert drill_flips(root, count=20).held < 20


def test_a_store_is_checked_by_the_command(quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from remi_book.cli import main

    work(quick / "store", said=lambda line: None)
    assert main(["store", "check", "--store", str(quick / "store")]) == 0
    (quick / "store" / "drill" / "preset.json").write_text("{}")
    assert main(["store", "check", "--store", str(quick / "store")]) == 1
    assert capsys.readouterr().out.splitlines()[-2] == "drill/preset.json: of format 1, not 2"
    with pytest.raises(UsageError, match="is no preset: of format 1"):
        read_preset(Store(quick / "store").saved_presets()["drill"])
