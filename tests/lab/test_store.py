"""What is stored comes back equal or not at all, and two runs on one store make it once."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from remi_core.errors import RemiError, UsageError
from remi_core.files import PART, is_left, read_sealed, scratch, write_npz, write_sealed, written_whole
from remi_core.store import FOLDER, MODELS, Address, Store, locked
from remi_lab.upkeep import FILES, forget, is_whole, made_once, prune

ADDRESS = Address("micro", 0, "base", "sequence", "code-careful", "0123456789abcdef")
ARRAYS = {"total": np.arange(6, dtype=np.float32).reshape(2, 3), "valid": np.array([True, False])}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def other(**changes: object) -> Address:
    return dataclasses.replace(ADDRESS, **changes)


def test_arrays_and_provenance_come_back_equal_and_another_key_does_not(store) -> None:
    path = store.save(ADDRESS, ARRAYS, {"seconds": 1.5})
    record = store.load(ADDRESS)
    assert record is not None and record.provenance == {"seconds": 1.5}
    assert path == store.root / "micro/0/base/sequence-code-careful-01234567.npz"
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(record.arrays[name], array, strict=True)
        assert not record.arrays[name].flags.writeable
    about = json.loads(path.with_suffix(".json").read_text())
    assert about["arrays"] == {"total": ["float32", 2, 3], "valid": ["bool", 2]}
    assert about["address"] == dataclasses.asdict(ADDRESS)
    # The same eight digits in the name of the file, and another key.
    assert store.load(other(key="0123456789abcdee")) is None and store.load(other(seed=1)) is None


def test_values_come_back_equal_beside_arrays_or_alone_and_objects_are_refused(store) -> None:
    values = {"row": "C1", "value": 0.1, "low": None, "by set": {"a": [1, 2.5]}, "undefined": float("inf")}
    path = store.save(ADDRESS, {}, {"seconds": 1.5}, values)
    record = Store(store.root, frozen=True).load(ADDRESS)
    assert record is not None and record.values == values and record.arrays == {} and path.is_file()
    objects = np.array(["a", None], dtype=object)
    for refusal, arrays, wrong in ((TypeError, {}, {"array": np.zeros(2)}), (ValueError, {"a": objects}, {})):
        with pytest.raises(refusal, match="JSON|objects"):
            store.save(other(seed=1), arrays, {}, wrong)
    assert store.load(other(seed=1)) is None and [entry.address for entry in store.list()] == [ADDRESS]


def test_a_write_that_fails_leaves_what_was_there(store, monkeypatch) -> None:
    path = store.save(ADDRESS, ARRAYS, {})
    before = path.read_bytes()
    monkeypatch.setattr("remi_core.files.write_npz", lambda part, arrays: part.write_bytes(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.save(ADDRESS, {"total": np.zeros(3)}, {})
    assert path.read_bytes() == before
    assert sorted(path.parent.iterdir()) == [path.with_suffix(".json"), path]


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edited(path: Path) -> None:
    """By someone who has also written the digest of the changed arrays into the provenance."""
    write_npz(path, {"total": np.ones(6)})
    rewrite(path, lambda about: about | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()})


def rewrite(path: Path, change: Callable[[dict], dict]) -> None:
    about = path.with_suffix(".json")
    about.write_text(json.dumps(change(json.loads(about.read_text()))))


def without(*names: str) -> Callable[[dict], dict]:
    return lambda about: {name: value for name, value in about.items() if name not in names}


def as_before_values(path: Path) -> None:
    """As the version before wrote it: sealed, and without a format of records."""
    about = path.with_suffix(".json")
    write_sealed(about, without("records", "values")(read_sealed(about)))


DAMAGES = {
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:40]), "changed or cut short"),
    "gone": (Path.unlink, "missing"),
    "flipped": (flipped, "changed or cut short"),
    "edited": (edited, "changed since it was written"),
    "another value": (lambda path: rewrite(path, lambda about: about | {"provenance": {}}), "changed since it was"),
    "not JSON": (lambda path: path.with_suffix(".json").write_text("{"), "not JSON any more"),
    "first format": (lambda path: rewrite(path, without("format", "seal", "sha256", "file")), "of format 1, not 2"),
    "before values": (as_before_values, "of records' format 2, not 3"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_record_is_named_in_one_line_and_made_again(store, capsys, kind) -> None:
    (damage, words), path = DAMAGES[kind], store.save(ADDRESS, ARRAYS, {"seconds": 1})
    damage(path)
    with pytest.raises(RemiError, match=f"{path.name}.*{words}.*refused with --frozen"):
        Store(store.root, frozen=True).load(ADDRESS)
    for _ in range(2):
        assert store.load(ADDRESS) is None
    (line,) = capsys.readouterr().err.splitlines()  # once, however often it is asked for
    assert str(path) in line and words in line and "made again" in line
    record = store.obtain(ADDRESS, lambda: (ARRAYS, {"seconds": 1}))
    np.testing.assert_array_equal(record.arrays["total"], ARRAYS["total"])
    assert Store(store.root, frozen=True).load(ADDRESS) is not None
    assert store.obtain(ADDRESS, lambda: pytest.fail("computed again")) is not None


def test_a_store_of_the_version_before_is_measured_anew_with_one_line(store, capsys) -> None:
    addresses = {name: other(dataset=name) for name in ("one", "two", "new")}
    for name in ("one", "two"):
        as_before_values(store.save(other(dataset=name, key="fedcba9876543210"), ARRAYS, {}))
    measured = store.record(addresses, lambda missing: ({name: (ARRAYS, {})} for name in missing))
    assert set(measured) == set(addresses)
    assert all(store.load(other(dataset=name, key="fedcba9876543210")) is None for name in ("one", "two"))
    (line,) = capsys.readouterr().err.splitlines()
    assert "of records' format 2, not 3: made again, and what else is of that version" in line


def test_only_what_is_missing_is_measured_and_what_is_left_of_a_whole_pass_goes(store) -> None:
    addresses = {name: other(dataset=name) for name in ("one", "two", "three")}
    finished = {name: store.root / ".finished-pass" for name in ("one", "two")}
    asked: list[list[str]] = []

    def measure(missing: Sequence[str]) -> Iterator[dict[str, tuple[dict, dict]]]:
        asked.append(list(missing))
        yield {name: (ARRAYS, {}) for name in missing if name != "three"}

    for _ in range(2):
        assert set(store.record(addresses, measure, finished=finished)) == {"one", "two"}
        finished["one"].mkdir(exist_ok=True)  # as where the run was killed before it removed the folder
    store.record(addresses, measure, finished=finished)
    assert asked == [["one", "two", "three"], ["three"], ["three"]] and not finished["one"].exists()


def test_half_of_a_record_is_none_and_a_change_after_reading_is_found(store, capsys) -> None:
    store.save(ADDRESS, ARRAYS, {}).with_suffix(".json").unlink()  # as where the writer was killed in between
    assert Store(store.root, frozen=True).load(ADDRESS) is None and store.list() == ()
    assert capsys.readouterr().err == ""
    path = store.save(ADDRESS, ARRAYS, {})
    assert store.load(ADDRESS) is not None
    flipped(path)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert store.load(ADDRESS) is None


def test_names_that_leave_the_folder_are_refused() -> None:
    for change in ({"variant": "../base"}, {"dataset": ""}, {"key": "xyz"}, {"preset": "a/b"}):
        with pytest.raises(ValueError, match="file name|hexadecimal"):
            other(**change)


def aged(path: Path, hours: float) -> Path:
    os.utime(path, (time.time() - 3600 * hours,) * 2)
    return path


def test_prune_keeps_the_key_used_last(store) -> None:
    old, new = other(key="aaaaaaaa"), other(key="bbbbbbbb")
    for hours, address in ((3, old), (2, new)):
        aged(store.save(address, ARRAYS, {}), hours)
    for address in (other(dataset="general"), other(preset="smoke")):
        store.save(address, ARRAYS, {})
    assert [entry.address for entry in store.list("smoke")] == [other(preset="smoke")]
    assert store.size() == sum(entry.n_bytes for entry in store.list())
    assert store.load(old) is not None  # used now, so newer than the one written later
    assert len(prune(store)) == 1
    assert store.load(old) is not None and store.load(new) is None
    assert len(store.list()) == 3


def test_forget_removes_a_preset_whole_and_nothing_else(store) -> None:
    for address in (other(), other(preset="smoke"), other(preset="smoke", dataset="general")):
        store.save(address, ARRAYS, {})
    (store.root / MODELS / "0").mkdir(parents=True)
    assert forget(store, "smoke") == 2 and not (store.root / "smoke").exists()
    assert store.load(other()) is not None and (store.root / MODELS).is_dir()
    for name in ("smoke", MODELS, "..", ".locks"):
        with pytest.raises(UsageError, match="nothing of a preset"):
            forget(store, name)


def test_prune_removes_what_was_left_unfinished_and_models_by_variant_and_world(store) -> None:
    stale, fresh = (store.notebook_path("micro", name).with_suffix(".part.ipynb") for name in ("a", "b"))
    for path in (stale, fresh):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    aged(stale, 10_000)
    with locked(store.root, ["micro-a"]):
        assert prune(store) == (), "what a run holds stays, however old"
    assert prune(store, dry_run=True) == (stale,) and stale.exists()
    assert prune(store) == (stale,), "what is being written stays"
    names = [("secure", "aaaaaaaa"), ("secure", "bbbbbbbb"), ("secure-rare", "cccccccc")]
    folders = [store.model_folder(0, *name) for name in names]
    folders.append(store.model_folder(1, "secure", "aaaaaaaa"))
    for age, folder in enumerate(folders):
        with written_whole(folder) as part:
            part.mkdir()
        aged(folder, age)
    assert prune(store) == (folders[1],)


def test_prune_takes_no_name_of_the_users_for_a_leftover_and_nothing_that_is_held(store, tmp_path) -> None:
    """Presets, sets and locks of any name stay; a folder that a live process fills stays, however old it looks."""
    for name in ("study.part2", "x.part-12345678", "a.part.ipynb"):
        store.save(other(preset=name, dataset=f"{name}.part1"), ARRAYS, {})
        store.save_preset(name, {"name": name})
        with locked(store.root, [f"{name}-05"]):
            pass
    everything = sorted(store.root.rglob("*"))
    for path in everything:
        aged(path, 10)
    assert prune(store) == () and sorted(store.root.rglob("*")) == everything
    with made_once(store, store.model_folder(0, "base", "00000000")) as part:
        part.mkdir()
        aged(part.parent, 10)
        assert prune(store) == () and part.is_dir()
        (part / "weights").write_text("w")
    left = tmp_path / "store" / MODELS / "0" / f".base-11111111{PART}abcdefgh"
    left.mkdir()
    assert prune(store) == (), "made just now, perhaps not held yet"
    aged(left, 10)
    assert prune(store) == (left,) and not left.exists()


def test_what_a_killed_process_left_beside_a_file_goes_with_the_next_that_writes_it(tmp_path) -> None:
    target = tmp_path / "deposit[1].zip"
    dead, other_file = tmp_path / f".deposit[1].zip{PART}abcdefgh", tmp_path / f".deposit1.zip{PART}abcdefgh"
    for folder in (dead, other_file):
        folder.mkdir()
        aged(folder, 10)
    with written_whole(target) as part, written_whole(target) as second:
        part.write_text("one")
        second.write_text("two")
        assert not dead.exists() and other_file.exists()
        # One that its owner finishes while others look is not left behind, and stops nobody.
        assert not is_left(dead)
    assert target.read_text() == "one"


def test_a_file_system_without_locks_stops_nothing(store, monkeypatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", none)
    with scratch(store.root) as folder, written_whole(folder / "file") as part:
        part.write_text("whole")
        assert is_left(part.parent) is False
        aged(part.parent, 48)
        assert is_left(part.parent), "the failing twin: nobody can tell, and it is two days old"
        aged(part.parent, 0)


def test_prune_says_what_it_could_not_remove(store, monkeypatch) -> None:
    for hours, key in ((3, "aaaaaaaa"), (2, "bbbbbbbb")):
        aged(store.save(other(key=key), ARRAYS, {}), hours)
    monkeypatch.setattr(
        Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EROFS, "read-only"))
    )
    with pytest.raises(RemiError, match=r"0 of 1 removed; .* cannot be removed: read-only"):
        prune(store)
    assert len(store.list()) == 2


def test_written_whole_replaces_a_folder_only_at_the_end(tmp_path) -> None:
    target = tmp_path / "weights"
    for text in ("first", "second"):
        with written_whole(target) as part:
            part.mkdir()
            (part / text).write_text(text)
            assert not target.exists() or text == "second"
    assert [path.name for path in target.iterdir()] == ["second"]
    with pytest.raises(RuntimeError), written_whole(target) as part:
        part.mkdir()
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


OBTAIN = """
import sys, time
from pathlib import Path
import numpy as np
from remi_core.store import Address, Store
store, log = Store(Path(sys.argv[1])), Path(sys.argv[2])
def compute():
    with log.open("a") as stream: stream.write("computed\\n")
    time.sleep(1)
    return {"total": np.arange(3)}, {}
record = store.obtain(Address("smoke", 0, "base", "sequence", "general", "0123456789abcdef"), compute)
print(record.arrays["total"].tolist())
"""
HOLD = """
import sys, time
from pathlib import Path
from remi_core.store import locked
with locked(Path(sys.argv[1]), ["one"]):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_two_runs_at_once_measure_a_record_once(tmp_path) -> None:
    words = [sys.executable, "-c", OBTAIN, str(tmp_path / "store"), str(tmp_path / "log")]
    runs = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [run.communicate()[0] for run in runs] == ["[0, 1, 2]\n"] * 2
    assert (tmp_path / "log").read_text() == "computed\n"


@contextmanager
def held(folder: Path, seconds: float) -> Iterator[subprocess.Popen]:
    """Another process that holds the lock of ``one``."""
    words = [sys.executable, "-c", HOLD, str(folder), str(seconds)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "held\n"
        yield run


def test_who_waits_says_so_and_a_lock_of_a_killed_run_blocks_nobody(tmp_path, capsys) -> None:
    with held(tmp_path, 600) as run:
        run.kill()
    with locked(tmp_path, ["one"]) as waited:
        assert not waited
    assert (tmp_path / FOLDER / "one.lock").is_file() and capsys.readouterr().err == ""
    with held(tmp_path, 1), locked(tmp_path, ["two", "one"]) as waited:
        assert waited
    assert capsys.readouterr().err.startswith("remi: waiting for another run that makes one (its lock: ")


def test_where_no_lock_can_be_made_work_goes_on(tmp_path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("filelock._unix.os.open", refuse)
    with locked(tmp_path, ["one"]) as waited:
        assert not waited


def make(store: Store, target: Path) -> bool:
    """Whether the folder of weights had to be made."""
    with made_once(store, target) as part:
        if part is not None:
            part.mkdir()
            (part / "model.safetensors").write_bytes(b"weights")
        return part is not None


def test_a_folder_of_weights_is_made_once_and_again_where_it_is_damaged(tmp_path, capsys) -> None:
    store, target = Store(tmp_path), tmp_path / "models" / "0" / "secure-aaaaaaaa"
    assert [make(store, target), make(store, target)] == [True, False]
    (target / "model.safetensors").write_bytes(b"Weights")
    with pytest.raises(Exception, match="'model.safetensors' is changed .*refused with --frozen"):
        is_whole(Store(tmp_path, frozen=True), target)
    assert make(store, target) and is_whole(store, target)
    (target / FILES).unlink()
    assert make(store, target) and not make(store, target)
    (target / "model.safetensors").unlink()
    assert make(store, target)
    assert capsys.readouterr().err.count("made again") >= 3
