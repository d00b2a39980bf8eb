"""What statistics and notebooks read: arrays by variant, seed and dataset, measured when they are missing."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from remi_core.chat import EncodedSet
from remi_core.encodings import Vocabulary, encoded_set, vocabulary
from remi_core.errors import UsageError, nearest
from remi_core.measure import measure_forward, measure_gradients, stored_forward
from remi_core.measure_across import measure_gradients_across
from remi_core.measure_patching import measure_patching
from remi_core.organism.behaviour import measure_behaviour
from remi_core.patching_plan import patch_plan
from remi_core.presets import Preset
from remi_core.store import Record, Store
from remi_core.subject import FORWARD, Subject, subject
from remi_core.variants import in_order

Value = TypeVar("Value")


@dataclass
class Results:
    """The records of one preset, kept in memory once read.

    Raises:
        UsageError: from any method, if the preset has no such variant, seed or measurement.
    """

    preset: Preset
    store: Store
    _subjects: dict[tuple[str, int], Subject] = field(default_factory=dict)
    _records: dict[tuple[str, int, str, str], Record] = field(default_factory=dict)
    _known: dict[Hashable, object] = field(default_factory=dict)
    _patched: dict[tuple[tuple[str, str], int, str], Record] = field(default_factory=dict)

    @property
    def variants(self) -> list[str]:
        """The preset's variants, in the one order."""
        return in_order(list(self.preset.variants))

    @property
    def is_organism(self) -> bool:
        """Whether answers can be scored exactly by the grammar."""
        return self.preset.is_organism

    def subject(self, variant: str, seed: int) -> Subject:
        """The variant of one seed, and where its weights lie."""
        if variant not in self.preset.variants:
            raise UsageError(
                f"no variant {variant!r} in {self.preset.name!r} {nearest(variant, self.variants)}"
            )
        if seed not in self.preset.seeds:
            raise UsageError(f"no seed {seed} in preset {self.preset.name!r} (seeds: {self.preset.seeds})")
        if (variant, seed) not in self._subjects:
            self._subjects[variant, seed] = subject(self.preset, variant, seed, self.store)
        return self._subjects[variant, seed]

    def record(self, variant: str, seed: int, measurement: str, dataset: str) -> Record:
        """One record: a forward measurement of a dataset, or an organism's ``scores`` or ``samples`` of a topic."""
        wanted = (variant, seed, measurement, dataset)
        if wanted not in self._records:
            who = self.subject(variant, seed)
            if measurement in FORWARD:
                one = stored_forward(who, self.store, measurement, dataset)
                found = (
                    {(measurement, dataset): one}
                    if one is not None
                    else measure_forward(who, self.store, datasets=(dataset,))
                )
            else:
                found = measure_behaviour(who, self.store)
            self._records |= {(variant, seed, *key): record for key, record in found.items()}
        if wanted not in self._records:
            raise UsageError(
                f"no {measurement} of {dataset!r} for {variant!r} in preset {self.preset.name!r}"
            )
        return self._records[wanted]

    def arrays(self, variant: str, seed: int, measurement: str, dataset: str) -> Mapping[str, np.ndarray]:
        """The arrays of ``record``."""
        return self.record(variant, seed, measurement, dataset).arrays

    def gradients(self, variant: str, seed: int, datasets: Sequence[str]) -> Mapping[str, np.ndarray]:
        """The gradient Gram matrix of several datasets together, rows in their order."""
        return measure_gradients(self.subject(variant, seed), self.store, datasets).arrays

    def patched(self, donor: str, recipient: str, seed: int, dataset: str) -> Mapping[str, np.ndarray]:
        """The donor's first blocks before the recipient's others, by layer: the arrays of ``measure_patching``.

        What the seed lacks of all pairs that the book shows is measured together, each model opened once or twice.
        """
        pair = (donor, recipient)
        if (pair, seed, dataset) not in self._patched:
            plan = patch_plan(self.preset)
            if dataset not in plan.get(pair, ()):
                plan = {pair: (dataset,)}
            names = {"instruct", *(name for one in plan for name in one)}
            subjects = {name: self.subject(name, seed) for name in names}
            found = measure_patching(subjects, self.store, plan)
            self._patched |= {(one, seed, name): record for (one, name), record in found.items()}
        return self._patched[pair, seed, dataset].arrays

    def gradients_across(self, models: Mapping[str, str], seed: int) -> Mapping[str, np.ndarray]:
        """The same with each dataset through a model of its own: dataset → variant."""
        sides = {dataset: self.subject(variant, seed) for dataset, variant in models.items()}
        return measure_gradients_across(sides, self.store).arrays

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
        return self.arrays(variant, seed, "activations", dataset)["mean"][
            :, self.preset.windows.index(window)
        ]

    def encoded(self, dataset: str) -> EncodedSet:
        """A set as tokens, as the measurements of all variants and seeds read it, rows in their order."""
        who = self.subject("instruct", self.preset.seeds[0])
        return self.once(("encoded", dataset), lambda: encoded_set(who, self.store, dataset))

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens of the tokenizer that serves all variants and seeds."""
        who = self.subject("instruct", self.preset.seeds[0])
        return self.once("vocabulary", lambda: vocabulary(who, self.store))

    def once(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """What ``compute`` gives, computed once; the key names all that it depends on."""
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    def clusters(self, *datasets: str) -> list[str]:
        """The prompt template of each dialogue of the datasets, one set after another."""
        first = self.preset.seeds[0]
        return [
            str(name)
            for one in datasets
            for name in self.arrays("instruct", first, "sequence", one)["cluster"]
        ]
