"""One seed's stitching: every model's own recordings in a folder, and the records that come of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from remi_core.dialogues.chat import EncodedSet, encode
from remi_core.fingerprint import library_versions
from remi_core.measurements.patching import (
    QUANTITIES,
    PatchSet,
    bare_tokens,
    head_alone,
    patch_layers,
    record_outputs,
    require_equal,
    stitch,
    tolerance,
)
from remi_core.models.opening import LoadedModel, check_vocabulary, n_layers
from remi_core.models.placement import describe_placement
from remi_core.published.load import LoadedSet
from remi_core.recording.patching_plan import MAIN_PAIRS, Pair
from remi_core.subject import Subject
from remi_core.variants import in_order


@dataclass
class StitchingRun:
    """One seed's recordings in a temporary folder, and what every model makes of the answers by itself."""

    subjects: Mapping[str, Subject]
    rows: Mapping[str, LoadedSet]
    folder: Path
    own: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    sets: dict[str, tuple[EncodedSet, PatchSet]] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)

    def measure(
        self, missing: list[tuple[Pair, str]]
    ) -> Iterator[tuple[tuple[Pair, str], dict[str, np.ndarray], dict[str, object]]]:
        """Key, arrays and provenance of each missing record."""
        self._encode([name for _, name in missing])
        variants = {variant for pair, _ in missing for variant in pair}
        # Recipients last: the one with most donors is stitched while it is open for its own recording.
        into = {one: [key for key in missing if key[0][1] == one] for one in in_order(list(variants))}
        waiting = sorted(into, key=lambda one: len(into[one]))
        left = [*waiting, *[one for one in waiting[:-1] if into[one]]]
        while left:
            variant = left.pop(0)
            with self.subjects[variant].open() as loaded:
                check_vocabulary(
                    loaded, self.subjects["instruct"].tokenizer(), self.subjects["instruct"].source
                )
                if variant not in self.models:
                    self._record(loaded, variant, [name for pair, name in missing if variant in pair])
                if set(waiting) <= set(self.models):
                    yield from self._stitch(loaded, variant, into[variant])

    def _encode(self, names: list[str]) -> None:
        who = self.subjects["instruct"]
        preset = who.preset
        tokenizer = who.tokenizer()
        for name in dict.fromkeys(names):
            encoded = encode(self.rows[name].dialogues, tokenizer, max_tokens=preset.max_tokens)
            encoded = replace(encoded, dropped={**self.rows[name].dropped, **encoded.dropped})
            bare = bare_tokens(encoded.dialogues, tokenizer)
            self.sets[name] = encoded, PatchSet(encoded.dialogues, bare, preset.batch_tokens)

    def _place(self, variant: str, name: str) -> Path:
        place = self.folder / variant / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    def _record(self, loaded: LoadedModel, variant: str, names: list[str]) -> None:
        self.models[variant] = loaded.fingerprint
        for name in dict.fromkeys(names):
            material = self.sets[name][1]
            self.own[variant, name] = record_outputs(loaded.model, material, self._place(variant, name))

    def _stitch(
        self, loaded: LoadedModel, recipient: str, keys: list[tuple[Pair, str]]
    ) -> Iterator[tuple[tuple[Pair, str], dict[str, np.ndarray], dict[str, object]]]:
        n_blocks = n_layers(loaded.model)
        for name in dict.fromkeys(name for _, name in keys):
            encoded, material = self.sets[name]
            start = self._start(loaded, recipient, name)
            for pair in [pair for pair, other in keys if other == name]:
                started, place = time.perf_counter(), self._place(pair[0], name)
                layers = patch_layers(n_blocks, thinned=pair not in MAIN_PAIRS)
                values = stitch(loaded.model, material, place, layers)
                end = require_equal(
                    values[-1],
                    head_alone(loaded.model, material, place),
                    material.dialogues,
                    place=f"layer {layers[-1]}, {pair[0]} into {recipient}",
                    tolerance=tolerance(loaded.model),
                )
                rows = np.stack([self.own[recipient, name], *values, self.own[pair[0], name]])
                arrays = {quantity: rows[:, at] for at, quantity in enumerate(QUANTITIES)}
                arrays |= {"layers": np.array(layers), "start": np.array(start), "end": np.array(end)}
                arrays |= _labels(encoded)
                about = self._about(loaded, pair, encoded, time.perf_counter() - started)
                yield (pair, name), arrays, about | {"data": dict(self.rows[name].about)}

    def _start(self, loaded: LoadedModel, recipient: str, name: str) -> float:
        """Largest difference made by giving the recipient its own stream back, where nothing may change."""
        material, first = self.sets[name][1], patch_layers(n_layers(loaded.model))[0]
        (values,) = stitch(loaded.model, material, self._place(recipient, name), [first])
        return require_equal(
            values,
            self.own[recipient, name],
            material.dialogues,
            place=f"layer {first}, {recipient} into itself",
            tolerance=tolerance(loaded.model),
        )

    def _about(
        self, loaded: LoadedModel, pair: Pair, encoded: EncodedSet, seconds: float
    ) -> dict[str, object]:
        who = self.subjects[pair[1]]
        return {
            "preset": who.preset.fingerprint(),
            "model": loaded.fingerprint,
            "donor": self.models[pair[0]],
            "dtype": who.preset.dtype,
            "kept": len(encoded.dialogues),
            "dropped": {reason: list(names) for reason, names in encoded.dropped.items()},
            "versions": library_versions(),
            "batch_tokens": who.preset.batch_tokens,
            "device": describe_placement(loaded.model),
            "seconds": round(seconds, 3),
        }


def _labels(encoded: EncodedSet) -> dict[str, np.ndarray]:
    return {
        "identifier": np.array([source.identifier for source in encoded.sources]),
        "cluster": np.array([source.cluster for source in encoded.sources]),
    }
