"""The store: arrays with their provenance, fine-tuned weights and executed notebooks, each under its key.

This is the only module that knows a file name. Records lie at
``<root>/<preset>/<seed>/<variant>/<measurement>-<dataset>-<key8>.npz`` with a ``.json`` beside them. No pickles.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import numpy as np

from remi_core.errors import RemiError
from remi_core.fingerprint import file_digest, text_digest
from remi_core.progress import detail, notice
from remi_core.storage.addresses import Address, Entry, Record, check_key, check_name
from remi_core.storage.containment import inside
from remi_core.storage.locks import locked
from remi_core.storage.npz import read_npz, write_npz
from remi_core.storage.seals import Damaged, Foreign, check_file, read_sealed, repaired, write_sealed
from remi_core.storage.writing import flush, touched, written_whole

MODELS = "models"
NOTEBOOKS = "notebooks"
LOGS = "logs"
FINISHED = ".finished-"
PRESET_FILE = "preset.json"
FROZEN = "REMI_FROZEN"
"""Environment variable that is set where a record that is damaged is refused, not made again."""

Name = TypeVar("Name")


class Store:
    """Everything computed, under one folder (default: ``REMI_STORE``, else ``store/`` of the repository).

    A record that is damaged, changed by hand or of another version counts as missing once a line has named it; with
    ``frozen`` (default: whether ``REMI_FROZEN`` is set) it is an error.
    """

    def __init__(self, root: Path | None = None, *, frozen: bool | None = None) -> None:
        self.root = Path(root) if root is not None else default_root()
        self.frozen = bool(os.environ.get(FROZEN)) if frozen is None else frozen
        self._named: set[Path | type] = set()

    def save(
        self, address: Address, arrays: Mapping[str, np.ndarray], provenance: Mapping[str, object]
    ) -> Path:
        """Path of the arrays just written. Both files appear whole or not at all, the provenance last.

        Raises:
            ValueError: if an array holds objects, or its name cannot be stored.
            RemiError: if the disk or the folder does not let it.
        """
        path = self._record_path(address)
        for name, array in arrays.items():
            if name in ("file", "allow_pickle") or np.asarray(array).dtype.hasobject:
                raise ValueError(
                    f"array {name!r} of {path.name} cannot be stored (objects, or a reserved name)"
                )
        about = path.with_suffix(".json")
        with written_whole(path) as part:
            write_npz(part, arrays)
            digest = file_digest(part)
            flush(part)
            about.unlink(missing_ok=True)  # never beside arrays that are not its own
        content = {"address": asdict(address), "arrays": _shapes(arrays), "file": path.name}
        content |= {"sha256": digest, "provenance": dict(provenance)}
        write_sealed(about, content)
        detail(f"stored {path.relative_to(self.root)}")
        return path

    def load(self, address: Address) -> Record | None:
        """The record at this address, or None where there is none under exactly this key that is whole.

        Raises:
            RemiError: if it is damaged and the store is frozen.
        """
        path = self._record_path(address)
        about = inside(path.with_suffix(".json"), self.root)
        if not about.is_file():
            return None
        try:
            content = read_sealed(about)
            if content["address"] != asdict(address):
                return None  # the file name carries only eight digits of the key
            check_file(path, content["sha256"])
            record = Record(arrays=read_npz(path), provenance=dict(content["provenance"]))
            if _shapes(record.arrays) != content["arrays"]:
                raise Damaged("its arrays are not those that were stored")
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._name(path, error)
            return None
        touched(about)  # prune keeps what was used last
        detail(f"read {path.relative_to(self.root)}")
        return record

    def obtain(
        self,
        address: Address,
        compute: Callable[[], tuple[Mapping[str, np.ndarray], Mapping[str, object]]],
    ) -> Record:
        """The record at this address, computed and stored first where there is none; another run may be waited for."""
        found = self.load(address)
        if found is None:
            with self.locked([address]):
                found = self.load(address)
                if found is None:
                    self.save(address, *compute())
                    found = self.load(address)
        return found

    @contextmanager
    def missing_of(
        self, addresses: Mapping[Name, Address], *, lock: bool = True
    ) -> Iterator[tuple[dict[Name, Record | None], list[Name]]]:
        """Records by name, None where there is none, and those names: with ``lock`` no other run makes theirs now."""
        found = {name: self.load(address) for name, address in addresses.items()}
        missing = [name for name, record in found.items() if record is None]
        with self.locked(addresses[name] for name in missing if lock):
            found |= {name: self.load(addresses[name]) for name in missing}
            yield found, [name for name in missing if found[name] is None]

    def locked(self, addresses: Iterable[Address]) -> AbstractContextManager[bool]:
        """Whether another run that makes one of the records was waited for; none makes them in the context."""
        return locked(self.root, [f"{one.measurement[:40]}-{one.key[:32]}" for one in addresses])

    def _name(self, path: Path, error: Exception) -> None:
        """Return once a file that cannot be read was named, once; of another version the first one alone.

        Raises:
            RemiError: if the store is frozen.
        """
        line = repaired(path, error, frozen=self.frozen)
        one = Foreign if isinstance(error, Foreign) else path
        if one not in self._named:
            notice(f"{line}, and what else is of that version" if one is Foreign else line)
        self._named.add(one)

    def list(self, preset: str | None = None) -> tuple[Entry, ...]:
        """All records, or those of one preset, sorted by path."""
        entries = []
        for path in sorted(self.root.glob(f"{preset or '*'}/*/*/*.npz")):
            about = inside(inside(path, self.root).with_suffix(".json"), self.root)
            if not about.is_file():
                continue  # half of a record: its writer was killed; prune removes it
            try:
                address = Address(**read_sealed(about)["address"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._name(path, error)
                continue
            n_bytes = path.stat().st_size + about.stat().st_size
            entries.append(Entry(address=address, path=path, n_bytes=n_bytes))
        return tuple(entries)

    def size(self) -> int:
        """Bytes under the root: records, weights and notebooks together."""
        return sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file())

    def model_folder(self, seed: int, variant: str, key: str) -> Path:
        """Folder of one variant's weights, shared by all presets; made with ``written_whole`` by who trains it."""
        check_name(variant)
        check_key(key)
        return inside(self.root / MODELS / str(seed) / f"{variant}-{key[:8]}", self.root)

    def finished_folder(self, keys: Iterable[str]) -> Path:
        """Where finished batches of a pass lie until its records do, which these keys name."""
        return self.root / f"{FINISHED}{text_digest(''.join(sorted(keys)))[:16]}"

    def saved_presets(self) -> dict[str, Path]:
        """Name of each preset that was saved here → its file; ``save_preset`` writes one."""
        found = sorted(self.root.glob(f"*/{PRESET_FILE}"))
        return {path.parent.name: inside(path, self.root) for path in found}

    def save_preset(self, name: str, fields: Mapping[str, object]) -> Path:
        """Path of the preset just written, whole; one of that name is replaced."""
        check_name(name)
        path = inside(self.root / name / PRESET_FILE, self.root)
        write_sealed(path, {"fields": json.loads(json.dumps(fields, sort_keys=True))})
        return path

    def log_path(self, preset: str, name: str) -> Path:
        """Where the log ``name`` of a run of a preset lies."""
        check_name(preset)
        check_name(name)
        return inside(self.root / preset / LOGS / f"{name}.jsonl", self.root)

    def notebook_path(self, preset: str, name: str) -> Path:
        """Where the executed notebook ``name`` of a preset lies."""
        check_name(preset)
        check_name(name)
        return inside(self.root / preset / NOTEBOOKS / f"{name}.ipynb", self.root)

    def _record_path(self, address: Address) -> Path:
        name = f"{address.measurement}-{address.dataset}-{address.key[:8]}.npz"
        return inside(self.root / address.preset / str(address.seed) / address.variant / name, self.root)


def project_root() -> Path:
    """The repository's folder, which holds the notebooks and the book.

    Raises:
        RemiError: if the package is not installed from a checkout (``pip install -e .``).
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        raise RemiError(f"{root} is not a checkout of the repository: install with `pip install -e .` in one")
    return root


def default_root() -> Path:
    """Folder of the store: ``REMI_STORE`` where that is set, else ``store/`` in the repository."""
    named = os.environ.get("REMI_STORE")
    return Path(named).expanduser().resolve() if named else project_root() / "store"


def _shapes(arrays: Mapping[str, np.ndarray]) -> dict[str, list[object]]:
    return {name: [str(np.asarray(array).dtype), *np.shape(array)] for name, array in sorted(arrays.items())}
