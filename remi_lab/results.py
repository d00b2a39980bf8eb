"""What was measured for a preset, by variant, seed and data set; and what a page has read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from remi_core.errors import RemiError, UsageError, nearest
from remi_core.store import Address, Record, Store
from remi_core.tokens import EncodedSet
from remi_lab import recording
from remi_lab.presets import Preset, in_order
from remi_lab.variant import FORWARD, Variant, find_variant, is_made, patch_plan

# What a page has read so far: each record and stored file with where it came from, and by which cell.
#
# A notebook runs in a process of its own, so what the process read is what the page read. Figures take their
# passports from here; nothing in it is typed.

PASSPORT = "application/x-remi-passport+json"
"""Type under which an executed notebook carries a figure's passport; the book makes a file of them."""

TABLE = "application/x-remi-table+json"
"""The same for the numbers of a table: caption, columns and rows; ``remi export`` makes a file of them."""

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
        self._met: dict[Hashable, Read] = {}
        self._read: dict[str, Read] = {}
        self._paused = False
        self._listening: list[set[tuple[Hashable, str]]] = []

    def load(
        self, name: str, about: Mapping[str, object], *, stored: bool = False, place: Hashable = None
    ) -> None:
        """Note that something was loaded, which is to read it unless the trail is paused.

        ``place`` is what it is called when it is read again, its name where nothing is said.
        """
        self._met[place or name] = Read(name, about, stored)
        if not self._paused:
            self.read(place or name)

    def read(self, place: Hashable, window: str = "") -> None:
        """Note that what was loaded before is read by the present cell, or one window of it."""
        if place not in self._met:
            return  # put there by hand, as tests do: it has no provenance to show
        loaded = self._met[place]
        cells = self._read.setdefault(loaded.name, loaded).cells
        cells.setdefault(present_cell(), set()).update({window} - {""})
        for heard in self._listening:
            heard.add((place, window))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While it lasts, what is loaded is not read: more is loaded at once than was asked for."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def heard(self, compute: Callable[[], Value]) -> tuple[Value, set[tuple[Hashable, str]]]:
        """What ``compute`` gives, and the places and windows that it read: who keeps the value reads them again."""
        own: set[tuple[Hashable, str]] = set()
        self._listening.append(own)
        try:
            return compute(), own
        finally:
            self._listening.pop()

    def names(self, places: Iterable[Hashable]) -> tuple[str, ...]:
        """What the records and stored files at these places are called, sorted, each once."""
        return tuple(sorted({self._met[place].name for place in places}))

    def reads(self) -> list[Read]:
        """All that was read."""
        return list(self._read.values())


def present_cell() -> int:
    """Execution count of the cell that runs; 0 outside a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "execution_count", 0) or 0


TRAIL = Trail()
"""The trail of this process."""


def models_of(place: Hashable) -> tuple[str, ...]:
    """The variants that a place of the trail holds something of; none for a stored file."""
    if isinstance(place, str):
        return ()
    _, _, variant, measurement, _ = place
    kind, _, donor = measurement.partition("-")
    return (*variant.split("+"), *([donor] if kind == "patched" else ()))


# What statistics and notebooks read: arrays by variant, seed and dataset, measured when they are missing.

Value = TypeVar("Value")


HEADLINE = "headline"
"""Measurement under which a headline quantity is stored: statistics of records, which open no model."""


class NotMeasured(RemiError):
    """A record or the weights of a model that are not there, where nothing may be measured or trained."""


class ReadStore(Store):
    """A store that leaves a trail of what is loaded from it; where it does not measure, what it lacks is an error."""

    def __init__(self, root: Path, *, frozen: bool, measures: bool) -> None:
        super().__init__(root, frozen=frozen)
        self.measures = measures
        self.asked: set[Address] = set()
        """Every record that was asked for, whether it is there or not."""

    def record(self, addresses: Mapping, measure: Callable, **options: object) -> dict:
        """As every store does; the errors are those of ``measure``.

        Raises:
            NotMeasured: if the store does not measure and lacks a record that is no headline.
        """
        wanted = {name: address for name, address in addresses.items() if address.measurement != HEADLINE}
        if wanted and not self.measures:
            found = {name: self.load(address) for name, address in wanted.items()}
            for name, record in found.items():
                if record is None:
                    lacked = wanted[name]
                    raise NotMeasured(
                        f"{lacked.measurement} of {lacked.dataset} for {lacked.variant} is not there"
                    )
            return found
        return super().record(addresses, measure, **options)

    def load(self, address: Address) -> Record | None:
        """The record at this address, as the store has it."""
        self.asked.add(address)
        record = super().load(address)
        if record is not None:
            *place, key = astuple(address)
            name = "/".join(map(str, place[:3])) + f"/{address.measurement}-{address.dataset}-{key[:8]}"
            TRAIL.load(name, record.provenance, place=tuple(place))
        return record


@dataclass
class Results:
    """The records of one preset at one seed, its first where none is said, kept in memory once read.

    ``at`` gives those of another seed. Each reading leaves its trail, also of what is kept in memory.

    Raises:
        UsageError: from any method, if the preset has no such variant, seed or measurement.
    """

    preset: Preset
    store: Store
    measures: bool = True
    """Whether what is missing is measured when it is asked for, and weights that the package makes are made."""
    seed: int = field(init=False)
    """Which of the preset's seeds the records are of."""
    _variants: dict[tuple[str, int], Variant] = field(default_factory=dict)
    _records: dict[tuple[str, int, str, str], Record] = field(default_factory=dict)
    _known: dict[Hashable, tuple[object, set[tuple[Hashable, str]]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (isinstance(self.store, ReadStore) and self.store.measures == self.measures):
            self.store = ReadStore(self.store.root, frozen=self.store.frozen, measures=self.measures)
        self.seed = self.preset.seeds[0]

    def at(self, seed: int) -> Results:
        """The records of the same preset at another seed; what either has read is kept for both."""
        if seed not in self.preset.seeds:
            raise UsageError(f"no seed {seed} in preset {self.preset.name!r} (seeds: {self.preset.seeds})")
        if seed == self.seed:
            return self
        other = copy(self)
        other.seed = seed
        return other

    @property
    def variants(self) -> list[str]:
        """The preset's variants, in the one order."""
        return in_order(list(self.preset.variants))

    def present(self, names: Sequence[str]) -> list[str]:
        """Those of the names that the preset has a variant of, in the one order."""
        return [name for name in self.variants if name in names]

    def variant(self, name: str) -> Variant:
        """A variant, and where its weights lie."""
        if name in ("base", "misaligned"):
            self.preset.require(name)
        if name not in self.preset.variants:
            raise UsageError(f"no variant {name!r} in {self.preset.name!r} {nearest(name, self.variants)}")
        if not (self.measures or is_made(self.preset, name, self.seed, self.store)):
            raise NotMeasured(f"{name} of seed {self.seed} is not made yet")
        if (name, self.seed) not in self._variants:
            self._variants[name, self.seed] = find_variant(self.preset, name, self.seed, self.store)
        return self._variants[name, self.seed]

    def record(self, variant: str, measurement: str, dataset: str) -> Record:
        """One record: a forward measurement of a dataset, or an organism's ``scores`` or ``samples`` of a topic."""
        wanted = (variant, self.seed, measurement, dataset)
        if wanted not in self._records:
            with TRAIL.paused():
                measured = self._measured(self.variant(variant), measurement, dataset)
            self._records |= {(variant, self.seed, *key): record for key, record in measured.items()}
        if wanted not in self._records:
            raise UsageError(
                f"no {measurement} of {dataset!r} for {variant!r} in preset {self.preset.name!r}"
            )
        TRAIL.read((self.preset.name, self.seed, variant, measurement, dataset))
        return self._records[wanted]

    def _measured(self, variant: Variant, measurement: str, dataset: str) -> dict[tuple[str, str], Record]:
        """The record, and those that come with it."""
        if measurement not in FORWARD:
            self.preset.require("organism")
            return recording.measure_behaviour(variant, self.store)
        stored = recording.stored_forward(variant, self.store, measurement, dataset)
        if stored is not None:
            return {(measurement, dataset): stored}
        # The model is opened once for all sets that some chapter asks for: opening it costs more than a small set.
        asked = dict.fromkeys((dataset, *self.preset.roles.names()))
        return recording.measure_forward(variant, self.store, datasets=tuple(asked))

    def arrays(self, variant: str, measurement: str, dataset: str) -> Mapping[str, np.ndarray]:
        """The arrays of ``record``."""
        return self.record(variant, measurement, dataset).arrays

    def gradients(self, variant: str, datasets: Sequence[str]) -> Mapping[str, np.ndarray]:
        """The gradient Gram matrix of several datasets together, rows in their order."""
        model = self.variant(variant)
        key = ("gradients", variant, *datasets)
        return self.cached(key, lambda: recording.measure_gradients(model, self.store, datasets).arrays)

    def patched(self, donor: str, recipient: str, dataset: str) -> Mapping[str, np.ndarray]:
        """The donor's first blocks before the recipient's others, by layer: the arrays of ``measure_patching``.

        What the seed lacks of all pairs that the book shows is measured together, each model opened once or twice.
        """
        pair, measurement = (donor, recipient), f"patched-{donor}"
        if (recipient, self.seed, measurement, dataset) not in self._records:
            plan = patch_plan(self.preset)
            if dataset not in plan.get(pair, ()):
                plan = {pair: (dataset,)}
            variants = {
                name: self.variant(name) for name in {"instruct", *(role for pair in plan for role in pair)}
            }
            with TRAIL.paused():
                measured = recording.measure_patching(variants, self.store, plan)
            self._records |= {
                (into, self.seed, f"patched-{of}", name): record
                for ((of, into), name), record in measured.items()
            }
        TRAIL.read((self.preset.name, self.seed, recipient, measurement, dataset))
        return self._records[recipient, self.seed, measurement, dataset].arrays

    def gradients_across(self, models: Mapping[str, str]) -> Mapping[str, np.ndarray]:
        """The same with each dataset through a model of its own: dataset → variant."""
        sides = {dataset: self.variant(variant) for dataset, variant in models.items()}
        key = ("gradients across", *models.items())
        return self.cached(key, lambda: recording.measure_gradients_across(sides, self.store).arrays)

    def per_dialogue(self, variant: str, dataset: str, name: str) -> np.ndarray:
        """Mean per answer token of ``log_probability`` or ``entropy``, shape (dialogue,), nats."""
        arrays = self.arrays(variant, "sequence", dataset)
        starts, stops = arrays["offsets"][:-1], arrays["offsets"][1:]
        totals = np.add.reduceat(arrays[name].astype(np.float64), starts)
        return totals / (stops - starts)

    def activations(self, variant: str, dataset: str, window: str) -> np.ndarray:
        """Mean block output in a window, shape (dialogue, layer, d_model), float32."""
        if window not in self.preset.windows:
            raise UsageError(f"no window {window!r} {nearest(window, self.preset.windows)}")
        arrays = self.arrays(variant, "activations", dataset)
        TRAIL.read((self.preset.name, self.seed, variant, "activations", dataset), window)
        return arrays["mean"][:, self.preset.windows.index(window)]

    def encoded(self, dataset: str) -> EncodedSet:
        """A set as tokens, as the measurements of all variants and seeds read it, rows in their order."""
        first = self.at(self.preset.seeds[0])
        return first.cached(
            ("encoded", dataset),
            lambda: recording.encoded_set(first.variant("instruct"), self.store, dataset),
        )

    @property
    def vocabulary(self) -> recording.Vocabulary:
        """The tokens of the tokenizer that serves all variants and seeds."""
        first = self.at(self.preset.seeds[0])
        return first.cached("vocabulary", lambda: recording.vocabulary(first.variant("instruct"), self.store))

    def cached(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """What ``compute`` gives, computed once a seed; the key names all else that it depends on."""
        if (self.seed, key) not in self._known:
            self._known[self.seed, key] = TRAIL.heard(compute)
        value, read = self._known[self.seed, key]
        for place, window in read:
            TRAIL.read(place, window)
        return value

    def clusters(self, *datasets: str) -> list[str]:
        """The prompt template of each dialogue of the datasets, one set after another."""
        first = self.at(self.preset.seeds[0])
        return [
            str(name)
            for dataset in datasets
            for name in first.arrays("instruct", "sequence", dataset)["cluster"]
        ]
