"""A deposit holds what it lists, bit for bit; it is the same from equal input, tells of no machine, and is whole."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import PROGRAMS, write_rows
from own_files import turns
from planting import REPORT_ROW
from warm_kernel import execute_here, write_notebook

from remi_book import claims, cli, running, site
from remi_book.running import plan, run_notebook
from remi_book.site import MANIFEST, write_deposit
from remi_core.errors import RemiError, UsageError
from remi_core.store import Address, Store, project_root
from remi_lab.presets import get_preset

SMOKE = get_preset("smoke")
UNKNOWN = {"id": "C2", "value": None, "null": None, "ci_low": None, "ci_high": None, "seeds": []}
ROWS = [REPORT_ROW, REPORT_ROW | UNKNOWN]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project of two notebooks, a store with three records, one of them under an old key, and a report."""
    for name in site.COPIED:
        shutil.copy(project_root() / name, tmp_path / name)
    for module in (site, running):
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    monkeypatch.setattr(claims, "report_rows", lambda results, say: ROWS)
    write_notebook(tmp_path / "notebooks" / "01_one.ipynb", [PROGRAMS["figure"]], title="One")
    write_notebook(tmp_path / "notebooks" / "02_two.ipynb", ["preset"], title="Two")
    store = Store(tmp_path / "store")
    for seconds, key in enumerate("ab"):
        path = save(store, {"seconds": 1.5}, replace(SAVED, measurement="losses", key=key * 64))
        for half in (path, path.with_suffix(".json")):
            os.utime(half, (seconds, seconds))
    save(store, {"device": "cpu"})
    monkeypatch.setenv("REMI_STORE", str(store.root))
    monkeypatch.setattr(running, "_execute", execute_here)
    return tmp_path


SAVED = Address("smoke", 102, "base", "scores", "general", "c" * 64)


def save(store: Store, provenance: dict[str, object], address: Address = SAVED) -> Path:
    return store.save(address, {"x": np.arange(3.0), "name": np.array(["general#1"])}, provenance)


def run_all(project: Path) -> Store:
    store = Store(project / "store")
    for step in plan(SMOKE, store):
        run_notebook(step.source, step.target, dict(step.parameters), key=step.key)
    return store


def test_an_archive_holds_what_it_lists_and_equal_input_gives_equal_bytes(project, monkeypatch) -> None:
    out, again, store = project / "out.zip", project / "again.zip", run_all(project)
    n_files = write_deposit(SMOKE, store, out)
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        assert {name.split("/")[0] for name in archive.namelist()} == {"remi-smoke"}
        files = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    listed = dict(reversed(line.split("  ")) for line in files.pop(MANIFEST).decode().splitlines())
    assert listed == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert list(listed) == sorted(files) and n_files == len(files) + 1
    assert {"requirements.lock", "README.md", "figures/01_one-01.svg"} <= set(files)
    records = [name for name in files if name.startswith("records/")]
    newest = ("losses-general-bbbbbbbb", "scores-general-cccccccc")
    assert records == [f"records/smoke/102/base/{name}.{end}" for name in newest for end in ("json", "npz")]
    with np.load(io.BytesIO(files["records/smoke/102/base/scores-general-cccccccc.npz"])) as arrays:
        assert arrays["x"].tolist() == [0, 1, 2]
    assert files["figures/01_one-01.svg"].lstrip().startswith(b"<?xml")
    (shown,) = json.loads(files["figures/index.json"])
    assert list(shown.values()) == ["01_one-01.svg", "01_one", "Dots & lines", "A caption"]
    assert json.loads(files["claims.json"]) == ROWS
    first, second = csv.DictReader(io.StringIO(files["claims.csv"].decode()))
    assert float(first["value"]) == REPORT_ROW["value"] and first["claim"] == REPORT_ROW["claim"]
    assert first["published"] == "0.5 at layer 45" and first["null_low"] == "-0.1"
    assert first["seeds"] == "-0.25;-0.3;" and second["value"] == second["null_kind"] == ""
    about = json.loads(files["about.json"])
    assert (about["records"], about["figures"], about["claims"]) == (2, 1, 2)
    assert SMOKE.fingerprint() in files["README.md"].decode()
    copied = Store(project / "elsewhere" / "copy")
    shutil.copytree(store.root, copied.root)
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_deposit(SMOKE, copied, again)
    assert out.read_bytes() == again.read_bytes()
    save(store, {"device": "cuda"})
    write_deposit(SMOKE, store, again)
    assert out.read_bytes() != again.read_bytes()


def test_nothing_of_the_machine_is_in_it(project, monkeypatch) -> None:
    monkeypatch.setattr(site.platform, "node", lambda: "lab-seventeen")
    monkeypatch.setattr(site.getpass, "getuser", lambda: "jdoe17")
    out, store = project / "out.zip", run_all(project)
    write_deposit(SMOKE, store, out)
    whole = out.read_bytes()
    for word in (str(project), str(Path.home()), str(project_root()), "lab-seventeen", "jdoe17"):
        assert word.encode() not in whole and word.encode("utf-32-le") not in whole
    for planted in (str(project / "x"), "on lab-seventeen", "by jdoe17.", f"{Path.home()}/models"):
        save(store, {"where": planted})
        with pytest.raises(RemiError, match=r"scores-general-c+\.json would hold"):
            write_deposit(SMOKE, store, out)
        assert out.read_bytes() == whole
    for array in (np.array([str(project)]), np.array([str(project).encode()])):
        assert site.traces(array.tobytes(), places=[project]) == ["a path"]
    for planted in ("jdoe175", "xlab-seventeen"):
        save(store, {"where": planted})
        write_deposit(SMOKE, store, out)


def test_a_deposit_of_what_was_run_appears_whole_or_not_at_all(project, capsys, monkeypatch) -> None:
    out, store = project / "out.zip", Store(project / "store")
    words = ["deposit", "--preset", "smoke", "--out", str(out)]
    assert cli.main(words) == 1
    said = capsys.readouterr().err
    assert "none of 2 notebooks was run as it is now" in said and said.endswith("remi run --preset smoke\n")
    assert not out.exists()
    run_all(project)
    assert cli.main(words) == 0 and str(out) in capsys.readouterr().out
    before = out.read_bytes()

    def broken(path: Path, folder: str, files: object) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(site, "write_archive", broken)
    with pytest.raises(OSError, match="disk full"):
        write_deposit(SMOKE, store, out)
    assert out.read_bytes() == before
    assert [path.name for path in project.iterdir() if "part" in path.name] == []
    (project / "thesis.zip").write_text("mine")
    for place, message in (("thesis.zip", "not a deposit of ours"), ("nowhere/out.zip", "no folder")):
        with pytest.raises(UsageError, match=message):
            write_deposit(SMOKE, store, project / place)
    assert (project / "thesis.zip").read_text() == "mine"


def test_a_deposited_record_is_read_where_it_is_unpacked_and_names_no_path_of_a_user(project) -> None:
    file = write_rows(project / "mine.jsonl", turns("Hi", "Hello"))
    preset, store = get_preset(f"smoke+aligned={file}"), Store(project / "store")
    named, copied = site.local_names(preset), Store(project / "copy", frozen=True)
    assert json.loads(site._json(preset.fields(), named))["extra_data"] == [["aligned", "mine.jsonl"]]
    path = save(store, {"data": {str(file): "a digest"}})
    for name, content in site.record_files(store, preset, named).items():
        place = copied.root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        assert str(file).encode() not in place.read_bytes()
    found = copied.load(SAVED)
    assert found.provenance == {"data": {"mine.jsonl": "a digest"}}
    assert found.arrays["x"].tolist() == [0, 1, 2]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RemiError, match=f"{path.name}: changed or cut short .*run again"):
        site.record_files(store, preset, {})
