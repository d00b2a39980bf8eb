"""A stored report holds rows, recipe, machine and seconds, and appears whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from notebook_files import write_notebook

from remi_book import stored
from remi_core.errors import RemiError, UsageError
from remi_core.store import Address, Store
from remi_lab.presets import get_preset

SMOKE = get_preset("smoke")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one notebook, whose report is one row."""
    write_notebook(tmp_path / "notebooks" / "01_one.ipynb", ["1 + 1"])
    monkeypatch.setattr("remi_lab.organism.variants.ensure", lambda *_: None)
    monkeypatch.setattr("remi_book.running.project_root", lambda: tmp_path)
    monkeypatch.setattr(stored, "project_root", lambda: tmp_path)
    monkeypatch.setattr(stored, "report_rows", lambda results, notebook: [{"id": "C1", "from": notebook}])
    return tmp_path


def test_rows_and_how_they_were_had(checkout: Path) -> None:
    (target,) = stored.write_stored(SMOKE, Store(checkout / "store"), ["01"])
    before = target.read_text()
    assert target == checkout / "stored" / "smoke" / "report.json"
    about = json.loads(target.read_text())
    assert about["rows"] == [{"id": "C1", "from": "01_one"}] and about["fingerprint"] == SMOKE.fingerprint()
    assert about["recipe"] == "python -m remi_book.stored results smoke 01" and set(
        about["seconds of notebooks"]
    ) == {"01_one"}
    assert str(checkout) not in target.read_text() and about["machine"] and about["versions"]["torch"]
    stored.write_stored(SMOKE, Store(checkout / "store"), ["01"])
    assert target.read_text() == before


def test_records_of_one_pass_count_their_seconds_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for measurement, dataset, seconds in (("a", "x", 2.5), ("b", "x", 2.5), ("a", "y", 2.5), ("c", "y", 4.0)):
        address = Address("smoke", 0, "base", measurement, dataset, "0" * 64)
        store.save(address, {"value": np.zeros(1)}, {"seconds": seconds})
    store.save(Address("smoke", 0, "all", "headline", "C1", "0" * 64), {"value": np.zeros(1)}, {})
    assert stored.measuring_seconds(SMOKE, store) == 9


def test_the_audit_is_a_file_of_its_own(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_notebook(checkout / "notebooks" / "08_audit.ipynb", ["1 + 1"])
    monkeypatch.setattr(stored, "_findings", lambda *_: [{"row": 10}])
    targets = stored.write_stored(SMOKE, Store(checkout / "store"), ["01", "08"])
    report, audit = (json.loads(target.read_text()) for target in targets)
    assert [target.name for target in targets] == ["report.json", "audit.json"]
    assert audit["findings"] == [{"row": 10}] and set(audit["seconds of notebooks"]) == {"08_audit"}
    assert "findings" not in report and set(report["seconds of notebooks"]) == {"01_one"}


def test_nothing_appears_where_a_notebook_fails_or_is_missing(checkout: Path) -> None:
    write_notebook(checkout / "notebooks" / "01_one.ipynb", ["1 / 0"])
    with pytest.raises(RemiError):
        stored.write_stored(SMOKE, Store(checkout / "store"), ["01"])
    with pytest.raises(UsageError, match="no notebook '07'"):
        stored.write_stored(SMOKE, Store(checkout / "store"), ["07"])
    assert not (checkout / "stored").exists()
