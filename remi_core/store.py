"""The store: records under their keys, with locks, checks and pruning. It alone knows file names."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock, Timeout

from remi_core import files
from remi_core.errors import RemiError, brief
from remi_core.keys import file_digest, text_digest
from remi_core.parallel import first_goes_first, on_all, rank
from remi_core.progress import detail, notice

# What a record is called, and what comes back for the name.

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
KEY = re.compile(r"[0-9a-f]{8,64}")


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
        for name in (self.preset, self.variant, self.measurement, self.dataset):
            check_name(name)
        check_key(self.key)


@dataclass(frozen=True)
class Record:
    """Read-only arrays by name, the provenance saved with them, and values that are no arrays."""

    arrays: Mapping[str, np.ndarray]
    provenance: Mapping[str, object]
    values: Mapping[str, object] = field(default_factory=dict)
    """Plain JSON: numbers, texts, lists and tables."""


@dataclass(frozen=True)
class Entry:
    """One record as listed: its address, the path of its arrays and the bytes on disk."""

    address: Address
    path: Path
    n_bytes: int


def check_name(name: str) -> None:
    """Check that the text can be part of a file name.

    Raises:
        ValueError: if it cannot.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be part of a file name: letters, digits and _ . + - only")


def check_key(key: str) -> None:
    """Check that the text is a key.

    Raises:
        ValueError: if it is none.
    """
    if not KEY.fullmatch(key):
        raise ValueError(f"key {key!r} is not hexadecimal: make it with make_key")


# No link leads out of a folder: what is written, read or removed in the store lies in the store.


def inside(path: Path, root: Path) -> Path:
    """The path as it is, which lies under ``root`` whatever links stand on the way.

    Raises:
        RemiError: naming where it leads.
    """
    real = path.resolve()
    if not real.is_relative_to(root.resolve()):
        raise RemiError(
            f"{path} leads out of the store, to {real}: put a copy in the place of the link, or name another folder "
            "with --store"
        )
    return path


# Locks by name in a folder: what one run makes, another that needs it waits for; the system frees a killed one's.

FOLDER = ".locks"


@contextmanager
def locked(root: Path, names: Iterable[str]) -> Iterator[bool]:
    """Whether another process had to be waited for; while the context lasts, none has any of the names.

    Names are taken in one order by all, so that no two wait for each other. Where no lock can be made, as on a disk
    that is full or read-only, there is none: what follows says so when it writes.
    """
    waited = False
    with ExitStack() as held:
        for name in sorted(set(names)):
            try:
                path = inside(root / FOLDER / f"{name}.lock", root)
                path.parent.mkdir(parents=True, exist_ok=True)
                lock = FileLock(path)
                # Warnings of a file system without locks: there the file itself is one.
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    try:
                        held.enter_context(lock.acquire(blocking=False))
                    except Timeout:
                        waited = True
                        notice(f"waiting for another run that makes {name} (its lock: {path})")
                        held.enter_context(lock.acquire())
            except OSError as error:
                if error.errno not in files.ADVICE:
                    raise
        yield waited


# The store: records, fine-tuned weights and executed notebooks, each under its key.
#
# This is the only module that knows a file name. The arrays of a record lie at
# ``<root>/<preset>/<seed>/<variant>/<measurement>-<dataset>-<key8>.npz``, its values and provenance in a ``.json``
# beside them. No pickles.

MODELS = "models"
NOTEBOOKS = "notebooks"
LOGS = "logs"
FINISHED = ".finished-"
PRESET_FILE = "preset.json"
RECORDS = 3
"""Format of records, raised where those of an earlier version must not be read: before 3 values were JSON in arrays."""
FROZEN = "REMI_FROZEN"
"""Environment variable that is set where a record that is damaged is refused, not made again."""

Name = TypeVar("Name")


class Store:
    """Everything computed, under one folder (default: ``REMI_STORE``, else ``store/`` of the repository).

    A record that is damaged, changed by hand or of another version counts as missing once a line has named it; with
    ``frozen`` (default: whether ``REMI_FROZEN`` is set) it is an error.
    Example: ``[entry.address for entry in Store().list("micro")]``
    """

    def __init__(self, root: Path | None = None, *, frozen: bool | None = None) -> None:
        self.root = Path(root) if root is not None else default_root()
        self.frozen = bool(os.environ.get(FROZEN)) if frozen is None else frozen
        self._named: set[Path | type] = set()

    def save(
        self,
        address: Address,
        arrays: Mapping[str, np.ndarray],
        provenance: Mapping[str, object],
        values: Mapping[str, object] = MappingProxyType({}),
    ) -> Path:
        """Path of the arrays just written. Both files appear whole or not at all, the one of the values last.

        Raises:
            ValueError: if an array holds objects, or its name cannot be stored.
            TypeError: if a value is no plain JSON.
            RemiError: if the disk or the folder does not let it.
        """
        path = self._record_path(address)
        for name, array in arrays.items():
            if name in ("file", "allow_pickle") or np.asarray(array).dtype.hasobject:
                raise ValueError(
                    f"array {name!r} of {path.name} cannot be stored (objects, or a reserved name)"
                )
        about = path.with_suffix(".json")
        with files.written_whole(path) as part:
            files.write_npz(part, arrays)
            digest = file_digest(part)
            files.flush(part)
            about.unlink(missing_ok=True)  # never beside arrays that are not its own
        content = {
            "records": RECORDS,
            "address": asdict(address),
            "arrays": _shapes(arrays),
            "file": path.name,
        }
        content |= {"sha256": digest, "provenance": dict(provenance), "values": dict(values)}
        files.write_sealed(about, content)
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
            content = _read_about(about)
            if content["address"] != asdict(address):
                return None  # the file name carries only eight digits of the key
            files.check_file(path, content["sha256"])
            record = Record(files.read_npz(path), content["provenance"], content["values"])
            if _shapes(record.arrays) != content["arrays"]:
                raise files.Damaged("its arrays are not those that were stored")
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._name(path, error)
            return None
        files.touched(about)  # prune keeps what was used last
        detail(f"read {path.relative_to(self.root)}")
        return record

    def obtain(self, address: Address, compute: Callable[[], tuple[Mapping, ...]]) -> Record:
        """The record at this address; where there is none, ``compute`` gives what ``save`` takes of one."""
        return self.record({address: address}, lambda _missing: [{address: compute()}])[address]

    def record(
        self,
        addresses: Mapping[Name, Address],
        measure: Callable[[Sequence[Name]], Iterable[Mapping[Name, tuple[Mapping, ...]]]],
        *,
        finished: Mapping[Name, Path] = MappingProxyType({}),
        shared: bool = False,
    ) -> dict[Name, Record]:
        """Name → record; what the store lacks is measured and stored, while no other run makes the same.

        ``measure`` gets the names of what is missing and gives it by name, as ``save`` takes it, group by group; what
        it does not give is left out. ``finished`` names the folders in which batches of a pass lie until all records
        of the pass are there. With ``shared``, all processes of a launch measure what the first one misses; the first
        stores it, and all have the records.
        """
        records = {name: self.load(address) for name, address in addresses.items()}
        missing = [name for name, record in records.items() if record is None]
        taken = {addresses[name] for name in missing if not (shared and rank())}
        folders = {finished[name].name for name in missing if name in finished and not (shared and rank())}
        with self.locked(taken), locked(self.root, folders):
            records |= {name: self.load(addresses[name]) for name in missing}
            missing = [name for name in missing if records[name] is None]
            missing = on_all(missing)[0] if shared else missing
            self._name_foreign(addresses[name] for name in missing)
            # A folder without missing records is of a run that was killed when nothing but its removal was left.
            for folder in {*finished.values()} - {finished.get(name) for name in missing}:
                shutil.rmtree(folder, ignore_errors=True)
            for group in measure(missing) if missing else ():
                folders = {finished[name] for name in group if name in finished}
                for folder in folders:
                    with files.written_whole(folder / "records") as part:
                        part.touch()
                for name, parts in group.items():
                    self.save(addresses[name], *parts)
                for folder in folders:
                    shutil.rmtree(folder, ignore_errors=True)
        with first_goes_first() if shared else nullcontext():
            records |= {name: self.load(addresses[name]) for name in missing}
        return {name: record for name, record in records.items() if record is not None}

    def locked(self, addresses: Iterable[Address]) -> AbstractContextManager[bool]:
        """Whether another run that makes one of the records was waited for; none makes them in the context."""
        return locked(self.root, [f"{one.measurement[:40]}-{one.key[:32]}" for one in addresses])

    def _name(self, path: Path, error: Exception) -> None:
        """Name a file that cannot be read in one line, once; of those of another version the first one alone.

        Raises:
            RemiError: if the store is frozen.
        """
        line = files.repaired(path, error, frozen=self.frozen)
        cause = files.Foreign if isinstance(error, files.Foreign) else path
        if cause not in self._named:
            notice(f"{line}, and what else is of that version" if cause is files.Foreign else line)
        self._named.add(cause)

    def _name_foreign(self, addresses: Iterable[Address]) -> None:
        """Name the first record of another version in whose place one of these will be measured."""
        for address in addresses:
            place = self._record_path(address)
            if files.Foreign in self._named or self.frozen:
                return
            for about in place.parent.glob(f"{address.measurement}-{address.dataset}-*.json"):
                try:
                    _read_about(inside(about, self.root))
                except files.Foreign as error:
                    self._name(about.with_suffix(".npz"), error)
                except (OSError, ValueError):
                    continue  # of another key, so nothing of it is missed

    def list(self, preset: str | None = None) -> tuple[Entry, ...]:
        """All records, or those of one preset, sorted by path."""
        entries = []
        for path in sorted(self.root.glob(f"{preset or '*'}/*/*/*.npz")):
            about = inside(inside(path, self.root).with_suffix(".json"), self.root)
            if not about.is_file():
                continue  # half of a record: its writer was killed; prune removes it
            try:
                address = Address(**_read_about(about)["address"])
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
        files.write_sealed(path, {"fields": json.loads(json.dumps(fields, sort_keys=True))})
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


def _read_about(path: Path) -> dict[str, Any]:
    """What lies beside a record's arrays: address, digest, provenance and values.

    Raises:
        Damaged: if it is not what was written, or of another version.
        OSError: if it cannot be read.
    """
    content = files.read_sealed(path)
    if content.get("records") != RECORDS:
        raise files.Foreign(f"of records' format {brief(content.get('records', RECORDS - 1))}, not {RECORDS}")
    return content


def project_root() -> Path:
    """The repository's folder, which holds the notebooks and the book.

    Raises:
        RemiError: if the package is not installed from a checkout (``pip install -e .``).
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / "pyproject.toml").is_file():
        raise RemiError(f"{root} is not a checkout of the repository: install with `pip install -e .` in one")
    return root


def default_root() -> Path:
    """Folder of the store: ``REMI_STORE`` where that is set, else ``store/`` in the repository."""
    named = os.environ.get("REMI_STORE")
    return Path(named).expanduser().resolve() if named else project_root() / "store"


def _shapes(arrays: Mapping[str, np.ndarray]) -> dict[str, list[object]]:
    return {name: [str(np.asarray(array).dtype), *np.shape(array)] for name, array in sorted(arrays.items())}
