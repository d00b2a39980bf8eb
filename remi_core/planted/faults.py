"""Results with a fault planted in them: what the estimates read is changed, the estimates themselves are not."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool

from remi_core.results import Results, Value
from remi_core.storage.store import Record

WHO = ("identifier", "cluster", "pair", "dataset")
"""Arrays that say which row it is: they stay in their place, and the label is what changes."""

Unit = Literal["row", "template"]


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A fair coin for each row, or each prompt template, exchanges what was measured under two labels."""

    sets: Mapping[str, str] = field(default_factory=dict)
    """Dataset → the dataset it is exchanged with, row by row, in both directions."""
    models: Mapping[str, str] = field(default_factory=dict)
    """Variant → the variant it is exchanged with, in both directions."""
    unit: Unit
    seed: int

    def swapped(self, clusters: Sequence[str] | np.ndarray) -> Bool[np.ndarray, " row"]:
        """Which rows of a set are exchanged, given the template of each."""
        names = (
            range(len(clusters))
            if self.unit == "row"
            else [zlib.crc32(str(one).encode()) for one in clusters]
        )
        coins = {name: np.random.default_rng([self.seed, name]).random() < 0.5 for name in set(names)}
        return np.array([coins[name] for name in names], dtype=bool)


@dataclass(frozen=True, kw_only=True)
class Substitute:
    """One variant is measured wherever another is asked for."""

    place: str
    by: str


@dataclass
class FaultyResults(Results):
    """Results as an estimate sees them after the fault; ``touched`` says whether anything read was changed.

    The records themselves are those of ``true``: nothing is measured again.
    """

    true: Results | None = None
    fault: Exchange | Substitute | None = None
    touched: bool = False

    def _stand_in(self, variant: str) -> str:
        if isinstance(self.fault, Substitute) and variant == self.fault.place:
            self.touched = True
            return self.fault.by
        return variant

    def once(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """What ``compute`` gives under the fault, computed once; whether it was touched is known again, too."""
        before, self.touched = self.touched, False
        value, touched = super().once(key, lambda: (compute(), self.touched))
        self.touched = before or touched
        return value

    def record(self, variant: str, seed: int, measurement: str, dataset: str) -> Record:
        """The record that the fault puts in this place."""
        own = self.true.record(self._stand_in(variant), seed, measurement, dataset)
        if not isinstance(self.fault, Exchange):
            return own
        other_set = self.fault.sets.get(dataset, dataset)
        other_model = self.fault.models.get(variant, variant)
        if (other_set, other_model) == (dataset, variant):
            return own
        self.touched = True
        other = self.true.record(other_model, seed, measurement, other_set)
        swapped = self.fault.swapped(own.arrays["cluster"])
        return Record(exchanged(own.arrays, other.arrays, swapped), own.provenance)

    def gradients(self, variant: str, seed: int, datasets: Sequence[str]) -> Mapping[str, np.ndarray]:
        """The Gram matrix with the rows of the two sets exchanged."""
        return self._rows_exchanged(self.true.gradients(self._stand_in(variant), seed, datasets))

    def gradients_across(self, models: Mapping[str, str], seed: int) -> Mapping[str, np.ndarray]:
        """The same across models."""
        stand_ins = {dataset: self._stand_in(variant) for dataset, variant in models.items()}
        return self._rows_exchanged(self.true.gradients_across(stand_ins, seed))

    def _rows_exchanged(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        if not isinstance(self.fault, Exchange):
            return arrays
        order = np.arange(len(arrays["dataset"]))
        for first, second in self.fault.sets.items():
            places = [np.flatnonzero(arrays["dataset"] == name) for name in (first, second)]
            if not all(map(len, places)):
                continue
            swapped = self.fault.swapped(arrays["cluster"][places[0]])
            order[places[0][swapped]] = places[1][swapped]
            self.touched = True
        changed = {"gram": arrays["gram"][np.ix_(order, order)], "loss": arrays["loss"][order]}
        return {**arrays, **changed}

    def patched(self, donor: str, recipient: str, seed: int, dataset: str) -> Mapping[str, np.ndarray]:
        """The stitched models' arrays, rows exchanged with those of the other set."""
        pair = self._stand_in(donor), self._stand_in(recipient)
        own = self.true.patched(*pair, seed, dataset)
        if not isinstance(self.fault, Exchange) or dataset not in self.fault.sets:
            return own
        self.touched = True
        other = self.true.patched(*pair, seed, self.fault.sets[dataset])
        swapped = self.fault.swapped(own["cluster"])
        return {
            name: np.where(swapped, other[name], values) if values.shape[-1:] == swapped.shape else values
            for name, values in own.items()
        } | {name: own[name] for name in WHO if name in own}


def exchanged(
    own: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], swapped: Bool[np.ndarray, " row"]
) -> dict[str, np.ndarray]:
    """The arrays of a record with the marked rows taken from another record of as many rows.

    Arrays without an axis of rows, and those that say which row it is, stay as they are.

    Raises:
        ValueError: if the records have not the same number of rows.
    """
    if len(own["cluster"]) != len(other["cluster"]):
        raise ValueError(
            f"records of {len(own['cluster'])} and {len(other['cluster'])} rows cannot be exchanged"
        )
    result = dict(own)
    if "offsets" in own:
        parts = [[each["offsets"][row : row + 2] for row in range(len(swapped))] for each in (own, other)]
        for name in set(own) - {"offsets", *WHO}:
            rows = [
                (other if swap else own)[name][slice(*parts[int(swap)][row])]
                for row, swap in enumerate(swapped)
            ]
            result[name] = np.concatenate(rows)
        lengths = [np.diff(parts[int(swap)][row])[0] for row, swap in enumerate(swapped)]
        return result | {"offsets": np.cumsum([0, *lengths])}
    for name in set(own) - set(WHO):
        if len(own[name]) == len(swapped):
            mask = swapped.reshape(-1, *[1] * (own[name].ndim - 1))
            result[name] = np.where(mask, other[name], own[name])
    return result
