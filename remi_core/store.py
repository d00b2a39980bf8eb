"""The store: arrays with their provenance, fine-tuned weights and executed notebooks, each under its key.

This is the only module that knows a file name. Records lie at
``<root>/<preset>/<seed>/<variant>/<measurement>-<dataset>-<key8>.npz`` with a ``.json`` beside them. No pickles.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from remi_core.containment import inside
from remi_core.errors import RemiError
from remi_core.npz import read_npz, write_npz

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
KEY = re.compile(r"[0-9a-f]{8,64}")
MODELS = "models"
NOTEBOOKS = "notebooks"
PRESET_FILE = "preset.json"


@dataclass(frozen=True)
class Address:
    """What one record is: whose measurement, of what, under which key (hexadecimal, see ``make_key``)."""

    preset: str
    seed: int
    variant: str
    measurement: str
    dataset: str
    key: str

    def __post_init__(self) -> None:
        names = (self.preset, self.variant, self.measurement, self.dataset)
        for name in names:
            check_name(name)
        _check_key(self.key)


@dataclass(frozen=True)
class Record:
    """Read-only arrays by name, and the provenance saved with them."""

    arrays: Mapping[str, np.ndarray]
    provenance: Mapping[str, object]


@dataclass(frozen=True)
class Entry:
    """One record as listed: its address, the path of its arrays and the bytes on disk."""

    address: Address
    path: Path
    n_bytes: int


class Store:
    """Everything computed, under one folder (default: ``REMI_STORE``, else ``store/`` of the repository)."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = Path(root) if root is not None else default_root()

    def save(
        self, address: Address, arrays: Mapping[str, np.ndarray], provenance: Mapping[str, object]
    ) -> Path:
        """Path of the arrays just written. Both files appear whole or not at all, the provenance last.

        Raises:
            ValueError: if an array holds objects, or its name cannot be stored.
        """
        path = self._record_path(address)
        for name, array in arrays.items():
            if name in ("file", "allow_pickle") or np.asarray(array).dtype.hasobject:
                raise ValueError(
                    f"array {name!r} of {path.name} cannot be stored (objects, or a reserved name)"
                )
        content = {"address": asdict(address), "arrays": _shapes(arrays), "provenance": dict(provenance)}
        text = json.dumps(content, indent=1)
        with written_whole(path) as part:
            write_npz(part, arrays)
        with written_whole(path.with_suffix(".json")) as part:
            part.write_text(text + "\n", encoding="utf-8")
        return path

    def load(self, address: Address) -> Record | None:
        """The record at this address, or None where there is none under exactly this key.

        Raises:
            RemiError: if the files are there but cannot be read.
        """
        path = self._record_path(address)
        if not path.is_file() or not path.with_suffix(".json").is_file():
            return None
        try:
            about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            if about["address"] != asdict(address):
                return None  # the file name carries only eight digits of the key
            arrays, provenance = read_npz(path), dict(about["provenance"])
            if _shapes(arrays) != about["arrays"]:
                raise ValueError("its arrays are not those that were stored")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RemiError(f"{path} cannot be read ({error}): delete it and run again") from error
        path.touch()  # prune keeps what was used last
        return Record(arrays=arrays, provenance=provenance)

    def list(self, preset: str | None = None) -> tuple[Entry, ...]:
        """All records, or those of one preset, sorted by path."""
        entries = []
        for path in sorted(self.root.glob(f"{preset or '*'}/*/*/*.npz")):
            inside(path, self.root)
            about = path.with_suffix(".json")
            if not about.is_file():
                continue  # half of a record: its writer was killed; prune removes it
            address = Address(**json.loads(about.read_text(encoding="utf-8"))["address"])
            n_bytes = path.stat().st_size + about.stat().st_size
            entries.append(Entry(address=address, path=path, n_bytes=n_bytes))
        return tuple(entries)

    def size(self) -> int:
        """Bytes under the root: records, weights and notebooks together."""
        return sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file())

    def prune(self, keep: int = 1) -> tuple[Path, ...]:
        """Paths removed: all but the ``keep`` last used keys of each record and model, and what was left unfinished.

        Executed notebooks stay, and so does anything unfinished that was touched within the hour (it may be being
        written). What is removed is computed again when it is asked for.
        """
        groups: dict[tuple[object, ...], list[Path]] = {}
        for entry in self.list():
            a = entry.address
            groups.setdefault((a.preset, a.seed, a.variant, a.measurement, a.dataset), []).append(entry.path)
        for folder in self.root.glob(f"{MODELS}/*/*-*"):
            groups.setdefault((folder.parent, folder.name.rpartition("-")[0]), []).append(folder)
        old = [
            path
            for paths in groups.values()
            for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)[keep:]
        ]
        halves = [path for path in self.root.glob("*/*/*/*.npz") if not path.with_suffix(".json").is_file()]
        hour_ago = time.time() - 3600
        unfinished = [
            path for path in (*self.root.rglob("*.part*"), *halves) if path.stat().st_mtime < hour_ago
        ]
        removed = tuple(inside(path, self.root) for path in sorted({*old, *unfinished}))
        for path in removed:
            _remove(path)
        return removed

    def model_folder(self, seed: int, variant: str, key: str) -> Path:
        """Folder of one variant's weights, shared by all presets; made with ``written_whole`` by who trains it."""
        check_name(variant)
        _check_key(key)
        return inside(self.root / MODELS / str(seed) / f"{variant}-{key[:8]}", self.root)

    def saved_presets(self) -> dict[str, Path]:
        """Name of each preset that was saved here → its file; ``save_preset`` writes one."""
        return {path.parent.name: path for path in sorted(self.root.glob(f"*/{PRESET_FILE}"))}

    def save_preset(self, name: str, fields: Mapping[str, object]) -> Path:
        """Path of the preset just written, whole; one of that name is replaced."""
        check_name(name)
        path = inside(self.root / name / PRESET_FILE, self.root)
        with written_whole(path) as part:
            part.write_text(json.dumps(fields, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return path

    def notebook_path(self, preset: str, name: str) -> Path:
        """Where the executed notebook ``name`` of a preset lies."""
        check_name(preset)
        check_name(name)
        return inside(self.root / preset / NOTEBOOKS / f"{name}.ipynb", self.root)

    def _record_path(self, address: Address) -> Path:
        name = f"{address.measurement}-{address.dataset}-{address.key[:8]}.npz"
        return inside(self.root / address.preset / str(address.seed) / address.variant / name, self.root)


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A path that does not exist yet; what the caller makes there (file or folder) is renamed to ``target``.

    On an exception nothing appears at ``target``, and what was there stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.part-") as folder:
        part = Path(folder) / target.name
        yield part
        if part.is_dir() and target.exists():
            os.replace(target, Path(folder) / "replaced")  # a folder cannot be renamed onto a full one
        os.replace(part, target)


def project_root() -> Path:
    """The repository's folder, which holds the notebooks and the book.

    Raises:
        RemiError: if the package is not installed from a checkout (``pip install -e .``).
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / "pyproject.toml").is_file():
        raise RemiError(f"{root} is not a checkout of the repository: install with `pip install -e .` in one")
    return root


def default_root() -> Path:
    """Folder of the store: ``REMI_STORE`` where that is set, else ``store/`` in the repository."""
    named = os.environ.get("REMI_STORE")
    return Path(named).expanduser().resolve() if named else project_root() / "store"


def _shapes(arrays: Mapping[str, np.ndarray]) -> dict[str, list[object]]:
    return {name: [str(np.asarray(array).dtype), *np.shape(array)] for name, array in sorted(arrays.items())}


def check_name(name: str) -> None:
    """Nothing, if the name can be part of a file's name.

    Raises:
        ValueError: if not.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be part of a file name: letters, digits and _ . + - only")


def _check_key(key: str) -> None:
    if not KEY.fullmatch(key):
        raise ValueError(f"key {key!r} is not hexadecimal: make it with make_key")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
        if path.suffix == ".npz":
            path.with_suffix(".json").unlink(missing_ok=True)
