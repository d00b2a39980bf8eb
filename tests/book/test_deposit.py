"""A deposit holds what it lists, bit for bit; it is the same from equal input, tells of no machine, and is whole."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import write_rows
from notebook_files import write_notebook
from own_files import turns
from planting import REPORT_ROW

from remi_book import claims, cli, running, site
from remi_book.running import plan, run_notebook
from remi_book.site import MANIFEST, write_deposit
from remi_core.errors import RemiError, UsageError
from remi_core.store import Address, Store, project_root
from remi_lab.presets import get_preset

SMOKE = get_preset("smoke")
DRAW = "from IPython.display import HTML\nfrom matplotlib.figure import Figure\n"
DRAW += "from remi_book.figures.output import figure_html\n"
DRAW += "HTML(figure_html(Figure(), alt='Dots & lines', caption='A caption'))"
UNKNOWN = {"id": "C2", "value": None, "null": None, "ci_low": None, "ci_high": None, "seeds": []}
ROWS = [REPORT_ROW, REPORT_ROW | UNKNOWN]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of two notebooks, a store with three records, one of them under an old key, and a report."""
    for name in site.COPIED:
        shutil.copy(project_root() / name, tmp_path / name)
    for module in (site, running):
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    monkeypatch.setattr(claims, "report_rows", lambda results: ROWS)
    write_notebook(tmp_path / "notebooks" / "01_one.ipynb", [DRAW], title="One")
    write_notebook(tmp_path / "notebooks" / "02_two.ipynb", ["preset"], title="Two")
    store = Store(tmp_path / "store")
    for place, key in enumerate(("a" * 64, "b" * 64)):
        path = save(store, "losses", key, {"seconds": 1.5})
        for half in (path, path.with_suffix(".json")):
            os.utime(half, (place, place))
    save(store, "scores", "c" * 64, {"device": "cpu"})
    monkeypatch.setenv("REMI_STORE", str(store.root))
    return tmp_path


def save(store: Store, measurement: str, key: str, provenance: dict[str, object]) -> Path:
    address = Address("smoke", 102, "base", measurement, "general", key)
    return store.save(address, {"x": np.arange(3.0), "name": np.array(["general#1"])}, provenance)


def run_all(project: Path) -> Store:
    store = Store(project / "store")
    for step in plan(SMOKE, store):
        run_notebook(step.source, step.target, dict(step.parameters), key=step.key)
    return store


def opened(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {name.split("/")[0] for name in archive.namelist()} == {"remi-smoke"}
        return {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}


def test_an_archive_holds_what_its_manifest_lists_and_can_be_read_again(project: Path) -> None:
    out = project / "out.zip"
    n_files = write_deposit(SMOKE, run_all(project), out)
    files = opened(out)
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
    index = json.loads(files["figures/index.json"])
    shown = {"text": "Dots & lines", "caption": "A caption"}
    assert index == [{"file": "01_one-01.svg", "notebook": "01_one"} | shown]
    assert json.loads(files["claims.json"]) == ROWS
    first, second = csv.DictReader(io.StringIO(files["claims.csv"].decode()))
    assert float(first["value"]) == REPORT_ROW["value"] and first["claim"] == REPORT_ROW["claim"]
    assert first["published"] == "0.5 at layer 45" and first["null_low"] == "-0.1"
    assert first["seeds"] == "-0.25;-0.3;" and second["value"] == second["null_kind"] == ""
    assert {name.split("_")[0] if name.startswith("null_") else name for name in first} == set(REPORT_ROW)
    about = json.loads(files["about.json"])
    assert (about["records"], about["figures"], about["claims"]) == (2, 1, 2)
    assert SMOKE.fingerprint() in files["README.md"].decode()


def test_equal_input_gives_equal_bytes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = run_all(project)
    first, again = project / "first.zip", project / "again.zip"
    write_deposit(SMOKE, store, first)
    copied = Store(project / "elsewhere" / "copy")
    shutil.copytree(store.root, copied.root)
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_deposit(SMOKE, copied, again)
    assert first.read_bytes() == again.read_bytes()
    with zipfile.ZipFile(first) as archive:
        for member in archive.infolist():
            assert member.date_time == site.DATE and member.compress_type == zipfile.ZIP_STORED
            assert stat.S_IMODE(member.external_attr >> 16) == 0o644
    save(store, "scores", "c" * 64, {"device": "cuda"})
    write_deposit(SMOKE, store, again)
    assert first.read_bytes() != again.read_bytes()


def test_nothing_of_the_machine_is_in_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.platform, "node", lambda: "lab-seventeen")
    monkeypatch.setattr(site.getpass, "getuser", lambda: "jdoe17")
    out, store = project / "out.zip", run_all(project)
    write_deposit(SMOKE, store, out)
    whole = out.read_bytes()
    for word in (str(project), str(Path.home()), str(project_root()), "lab-seventeen", "jdoe17"):
        assert word.encode() not in whole and word.encode("utf-32-le") not in whole
    for planted in (str(project / "x"), "on lab-seventeen", "by jdoe17.", f"{Path.home()}/models"):
        save(store, "scores", "c" * 64, {"where": planted})
        with pytest.raises(RemiError, match=r"scores-general-c+\.json would hold"):
            write_deposit(SMOKE, store, out)
        assert out.read_bytes() == whole
    for array in (np.array([str(project)]), np.array([str(project).encode()])):
        assert site.traces(array.tobytes(), places=[project]) == ["a path"]
    for planted in ("jdoe175", "xlab-seventeen"):
        save(store, "scores", "c" * 64, {"where": planted})
        write_deposit(SMOKE, store, out)


def test_a_users_own_paths_become_names(project: Path) -> None:
    file = write_rows(project / "mine.jsonl", turns("Hi", "Hello"))
    preset, store = get_preset(f"smoke+aligned={file}"), Store(project / "store")
    named = site.local_names(preset)
    assert json.loads(site._json(preset.fields(), named))["extra_data"] == [["aligned", "mine.jsonl"]]
    save(store, "scores", "c" * 64, {"data": {str(file): "a digest"}})
    files = site.record_files(store, preset, named)
    assert str(file).encode() not in b"".join(one for one in files.values() if isinstance(one, bytes))


def test_it_is_refused_where_a_notebook_was_not_run_and_appears_whole_or_not_at_all(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, store = project / "out.zip", Store(project / "store")
    assert cli.main(["deposit", "--preset", "smoke", "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "01_one and 1 more of 2 notebooks" in said and said.endswith("remi run --preset smoke\n")
    assert not out.exists()
    run_all(project)
    assert cli.main(["deposit", "--preset", "smoke", "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    before = out.read_bytes()

    def broken(path: Path, folder: str, files: object) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(site, "write_archive", broken)
    with pytest.raises(OSError, match="disk full"):
        write_deposit(SMOKE, store, out)
    assert out.read_bytes() == before
    assert [path.name for path in project.iterdir() if "part" in path.name] == []


def test_another_file_is_not_overwritten(project: Path) -> None:
    out, store = project / "thesis.zip", Store(project / "store")
    out.write_text("mine")
    with pytest.raises(UsageError, match="not a deposit of ours"):
        write_deposit(SMOKE, store, out)
    assert out.read_text() == "mine"
    with pytest.raises(UsageError, match="no folder"):
        write_deposit(SMOKE, store, project / "nowhere" / "out.zip")


def test_a_deposited_record_is_read_where_it_is_unpacked_and_a_damaged_one_is_refused(project: Path) -> None:
    store, copied = Store(project / "store"), Store(project / "copy", frozen=True)
    path = save(store, "scores", "c" * 64, {"data": "/srv/mine.jsonl"})
    for name, content in site.record_files(store, SMOKE, {"/srv/mine.jsonl": "mine.jsonl"}).items():
        place = copied.root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    found = copied.load(Address("smoke", 102, "base", "scores", "general", "c" * 64))
    assert found.provenance == {"data": "mine.jsonl"} and found.arrays["x"].tolist() == [0, 1, 2]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RemiError, match=f"{path.name}: changed or cut short .*run again"):
        site.record_files(store, SMOKE, {})
