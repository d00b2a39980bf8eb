"""What was measured for a preset, by variant, seed and data set; and what a page has read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from remi_core.errors import UsageError, nearest
from remi_core.store import Address, Record, Store
from remi_core.tokens import EncodedSet
from remi_lab.presets import Preset, in_order
from remi_lab.recording import (
    Vocabulary,
    encoded_set,
    measure_behaviour,
    measure_forward,
    measure_gradients,
    measure_gradients_across,
    measure_patching,
    stored_forward,
    vocabulary,
)
from remi_lab.variant import FORWARD, Variant, find_variant, patch_plan

# What a page has read so far: each record and stored file with where it came from, and by which cell.
#
# A notebook runs in a process of its own, so what the process read is what the page read. Figures take their
# passports from here; nothing in it is typed.

PASSPORT = "application/x-remi-passport+json"
"""Type under which an executed notebook carries a figure's passport; the book makes a file of them."""

PAGE = "<!-- page of the passport -->"
"""Where the book adds what only it knows: which notebook this is, how long it took, and on what."""


@dataclass
class Read:
    """One record, or one stored file, as often as it was read."""

    name: str
    """Place in the store, or below the repository for a file stored there."""
    about: Mapping[str, object]
    """Provenance of the record; recipe, machine and seconds of the file."""
    stored: bool = False
    """Whether it is a stored result and was not computed here."""
    cells: dict[int, set[str]] = field(default_factory=dict)
    """Cells that read it, by their execution count (0 outside a notebook) → the windows that each asked for."""


class Trail:
    """Everything read in this process, in the order in which it was first read."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all, as a new page would."""
        self._met: dict[str, Read] = {}
        self._read: dict[str, Read] = {}
        self._paused = False
        self._listening: list[set[tuple[str, str]]] = []

    def load(self, name: str, about: Mapping[str, object], *, stored: bool = False) -> None:
        """Note that something was loaded, which is to read it unless the trail is paused."""
        self._met.setdefault(name, Read(name, about, stored))
        if not self._paused:
            self.read(name)

    def read(self, name: str, window: str = "") -> None:
        """Note that what was loaded before is read by the present cell, or one window of it."""
        if name not in self._met:
            return  # put there by hand, as tests do: it has no provenance to show
        found = self._read.setdefault(name, self._met[name])
        found.cells.setdefault(present_cell(), set()).update({window} - {""})
        for heard in self._listening:
            heard.add((name, window))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While it lasts, what is loaded is not read: more is loaded at once than was asked for."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def heard(self, compute: Callable[[], Value]) -> tuple[Value, set[tuple[str, str]]]:
        """What ``compute`` gives, and the names and windows that it read: who keeps the value reads them again."""
        own: set[tuple[str, str]] = set()
        self._listening.append(own)
        try:
            return compute(), own
        finally:
            self._listening.remove(own)

    def reads(self) -> list[Read]:
        """All that was read."""
        return list(self._read.values())


def present_cell() -> int:
    """Execution count of the cell that runs; 0 outside a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "execution_count", 0) or 0


TRAIL = Trail()
"""The trail of this process."""


# What statistics and notebooks read: arrays by variant, seed and dataset, measured when they are missing.

Value = TypeVar("Value")


class ReadStore(Store):
    """A store that leaves a trail of what is loaded from it."""

    def __init__(self, root: Path, *, frozen: bool | None = None) -> None:
        super().__init__(root, frozen=frozen)
        self._names: dict[tuple[str, int, str, str, str], str] = {}

    def load(self, address: Address) -> Record | None:
        """The record at this address, as the store has it."""
        record = super().load(address)
        if record is not None:
            where = (address.preset, address.seed, address.variant, address.measurement, address.dataset)
            kind = f"{address.measurement}-{address.dataset}-{address.key[:8]}"
            self._names[where] = f"{address.preset}/{address.seed}/{address.variant}/{kind}"
            TRAIL.load(self._names[where], record.provenance)
        return record

    def read(self, *where: str | int, window: str = "") -> None:
        """Note that a record loaded before is read: preset, seed, variant, measurement, dataset."""
        TRAIL.read(self._names.get(where, ""), window)


@dataclass
class Results:
    """The records of one preset, kept in memory once read.

    Each reading leaves its trail, also of what is kept in memory (see ``trail``).

    Raises:
        UsageError: from any method, if the preset has no such variant, seed or measurement.
    """

    preset: Preset
    store: Store
    _variants: dict[tuple[str, int], Variant] = field(default_factory=dict)
    _records: dict[tuple[str, int, str, str], Record] = field(default_factory=dict)
    _known: dict[Hashable, tuple[object, set[tuple[str, str]]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.store, ReadStore):
            self.store = ReadStore(self.store.root, frozen=self.store.frozen)

    @property
    def variants(self) -> list[str]:
        """The preset's variants, in the one order."""
        return in_order(list(self.preset.variants))

    @property
    def is_organism(self) -> bool:
        """Whether answers can be scored exactly by the grammar."""
        return self.preset.is_organism

    def variant(self, variant: str, seed: int) -> Variant:
        """The variant of one seed, and where its weights lie."""
        if variant not in self.preset.variants:
            raise UsageError(
                f"no variant {variant!r} in {self.preset.name!r} {nearest(variant, self.variants)}"
            )
        if seed not in self.preset.seeds:
            raise UsageError(f"no seed {seed} in preset {self.preset.name!r} (seeds: {self.preset.seeds})")
        if (variant, seed) not in self._variants:
            self._variants[variant, seed] = find_variant(self.preset, variant, seed, self.store)
        return self._variants[variant, seed]

    def record(self, variant: str, seed: int, measurement: str, dataset: str) -> Record:
        """One record: a forward measurement of a dataset, or an organism's ``scores`` or ``samples`` of a topic."""
        wanted = (variant, seed, measurement, dataset)
        if wanted not in self._records:
            with TRAIL.paused():
                found = self._found(self.variant(variant, seed), measurement, dataset)
            self._records |= {(variant, seed, *key): record for key, record in found.items()}
        if wanted not in self._records:
            raise UsageError(
                f"no {measurement} of {dataset!r} for {variant!r} in preset {self.preset.name!r}"
            )
        self.store.read(self.preset.name, seed, variant, measurement, dataset)
        return self._records[wanted]

    def _found(self, variant: Variant, measurement: str, dataset: str) -> dict[tuple[str, str], Record]:
        """The record, and those that come with it."""
        if measurement not in FORWARD:
            return measure_behaviour(variant, self.store)
        one = stored_forward(variant, self.store, measurement, dataset)
        if one is not None:
            return {(measurement, dataset): one}
        return measure_forward(variant, self.store, datasets=(dataset,))

    def arrays(self, variant: str, seed: int, measurement: str, dataset: str) -> Mapping[str, np.ndarray]:
        """The arrays of ``record``."""
        return self.record(variant, seed, measurement, dataset).arrays

    def gradients(self, variant: str, seed: int, datasets: Sequence[str]) -> Mapping[str, np.ndarray]:
        """The gradient Gram matrix of several datasets together, rows in their order."""
        variant = self.variant(variant, seed)
        key = ("gradients", variant, seed, *datasets)
        return self.cached(key, lambda: measure_gradients(variant, self.store, datasets).arrays)

    def patched(self, donor: str, recipient: str, seed: int, dataset: str) -> Mapping[str, np.ndarray]:
        """The donor's first blocks before the recipient's others, by layer: the arrays of ``measure_patching``.

        What the seed lacks of all pairs that the book shows is measured together, each model opened once or twice.
        """
        pair, measurement = (donor, recipient), f"patched-{donor}"
        if (recipient, seed, measurement, dataset) not in self._records:
            plan = patch_plan(self.preset)
            if dataset not in plan.get(pair, ()):
                plan = {pair: (dataset,)}
            names = {"instruct", *(name for one in plan for name in one)}
            variants = {name: self.variant(name, seed) for name in names}
            with TRAIL.paused():
                found = measure_patching(variants, self.store, plan)
            self._records |= {
                (into, seed, f"patched-{of}", name): record for ((of, into), name), record in found.items()
            }
        self.store.read(self.preset.name, seed, recipient, measurement, dataset)
        return self._records[recipient, seed, measurement, dataset].arrays

    def gradients_across(self, models: Mapping[str, str], seed: int) -> Mapping[str, np.ndarray]:
        """The same with each dataset through a model of its own: dataset → variant."""
        sides = {dataset: self.variant(variant, seed) for dataset, variant in models.items()}
        key = ("gradients across", *models.items(), seed)
        return self.cached(key, lambda: measure_gradients_across(sides, self.store).arrays)

    def per_dialogue(self, variant: str, seed: int, dataset: str, name: str) -> np.ndarray:
        """Mean per answer token of ``log_probability`` or ``entropy``, shape (dialogue,), nats."""
        arrays = self.arrays(variant, seed, "sequence", dataset)
        starts, stops = arrays["offsets"][:-1], arrays["offsets"][1:]
        totals = np.add.reduceat(arrays[name].astype(np.float64), starts)
        return totals / (stops - starts)

    def activations(self, variant: str, seed: int, dataset: str, window: str) -> np.ndarray:
        """Mean block output in a window, shape (dialogue, layer, d_model), float32."""
        if window not in self.preset.windows:
            raise UsageError(f"no window {window!r} {nearest(window, self.preset.windows)}")
        arrays = self.arrays(variant, seed, "activations", dataset)
        self.store.read(self.preset.name, seed, variant, "activations", dataset, window=window)
        return arrays["mean"][:, self.preset.windows.index(window)]

    def encoded(self, dataset: str) -> EncodedSet:
        """A set as tokens, as the measurements of all variants and seeds read it, rows in their order."""
        variant = self.variant("instruct", self.preset.seeds[0])
        return self.cached(("encoded", dataset), lambda: encoded_set(variant, self.store, dataset))

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens of the tokenizer that serves all variants and seeds."""
        variant = self.variant("instruct", self.preset.seeds[0])
        return self.cached("vocabulary", lambda: vocabulary(variant, self.store))

    def cached(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """What ``compute`` gives, computed once; the key names all that it depends on."""
        if key not in self._known:
            self._known[key] = TRAIL.heard(compute)
        value, read = self._known[key]
        for name, window in read:
            TRAIL.read(name, window)
        return value

    def clusters(self, *datasets: str) -> list[str]:
        """The prompt template of each dialogue of the datasets, one set after another."""
        first = self.preset.seeds[0]
        return [
            str(name)
            for one in datasets
            for name in self.arrays("instruct", first, "sequence", one)["cluster"]
        ]
