"""The forward and backward passes that records are made of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from remi_core.batches import BatchBudget
from remi_core.files import FinishedBatches, RowFile
from remi_core.forward import run_probes
from remi_core.gradients import measure_gradient_gram
from remi_core.keys import library_versions
from remi_core.models import LoadedModel, check_vocabulary, n_layers
from remi_core.parallel import n_ranks, rank
from remi_core.patching import (
    QUANTITIES,
    PatchSet,
    bare_tokens,
    head_alone,
    patch,
    patch_layers,
    record_outputs,
    require_equal,
    tolerance,
)
from remi_core.placement import describe_placement
from remi_core.probes import ActivationProbe, Columns, NextTokenProbe, Probe, SequenceProbe
from remi_core.progress import Meter, progress_sink
from remi_core.sources import ModelSpec
from remi_core.tokens import ChatTokenizer, EncodedSet, encode
from remi_lab.paper import LoadedSet
from remi_lab.presets import in_order
from remi_lab.subject import MAIN_PAIRS, Pair, Subject

# What passes take of a batch, as arrays and back: so that a finished batch can lie on disk.

GradientParts = list[tuple[tuple[Tensor, Tensor], float]]
"""Of each dialogue of a batch: the factors of its gradient, and its loss."""


def spelled_probes(parts: Sequence[Probe]) -> dict[str, np.ndarray]:
    """The arrays and counts that probes have taken of one batch; their settings are left out."""
    found = {}
    for number, probe in enumerate(parts):
        for name, value in vars(probe).items():
            if isinstance(value, Columns):
                held = value.held()
                found |= {f"{number}.{name}.{at:02d}": array for at, array in enumerate(held)}
            elif name.startswith("_") and isinstance(value, np.ndarray | int):
                found[f"{number}.{name}"] = np.asarray(value)
    return found


def read_probes(probes: Sequence[Probe], arrays: Mapping[str, np.ndarray]) -> list[Probe]:
    """Probes of the same settings that have taken what ``spelled_probes`` has spelled."""
    parts = [probe.empty() for probe in probes]
    for number, part in enumerate(parts):
        for name, value in vars(part).items():
            prefix = f"{number}.{name}"
            own = [arrays[key] for key in sorted(arrays) if key.startswith(f"{prefix}.")]
            if isinstance(value, Columns) and own:
                value.add(*own)
            elif prefix in arrays:
                setattr(part, name, int(arrays[prefix]) if isinstance(value, int) else arrays[prefix])
    return parts


def spelled_gradients(parts: GradientParts) -> dict[str, np.ndarray]:
    """Factors and losses of a batch as arrays; factors are float32."""
    factors = {
        f"{row}.{side}": one.detach().cpu().numpy()
        for row, (pair, _) in enumerate(parts)
        for side, one in enumerate(pair)
    }
    return factors | {"loss": np.array([loss for _, loss in parts])}


def read_gradients(arrays: Mapping[str, np.ndarray]) -> GradientParts:
    """What ``spelled_gradients`` has spelled."""
    pairs = [
        tuple(torch.from_numpy(np.array(arrays[f"{row}.{side}"])) for side in (0, 1))
        for row in range(len(arrays["loss"]))
    ]
    return list(zip(pairs, arrays["loss"].tolist(), strict=True))


# Passes of encoded dialogues through one open model: the arrays of its records, and their provenance.

Measured = tuple[dict[str, np.ndarray], dict[str, object]]
"""Arrays of a record, and its provenance."""


def checked_tokenizer(who: Subject, loaded: LoadedModel) -> ChatTokenizer:
    """The tokenizer for every variant, whose ids this model is known to have.

    Raises:
        RemiError: if it has ids that the model has not.
    """
    tokenizer = who.tokenizer()
    check_vocabulary(loaded, tokenizer, who.text.source)
    return tokenizer


def forward_passes(
    who: Subject,
    loaded: LoadedModel,
    encoded: EncodedSet,
    *,
    folder: Path,
    finished: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Measured]:
    """Measurement → its arrays and provenance, of every forward measurement of a set, from one pass.

    Block outputs are read from ``folder``, as long as it is there. Of several processes only the first has any.
    Batches that are done lie in ``finished``, so that a pass that is killed goes on behind them.
    """
    preset, started, budget = who.preset, time.perf_counter(), BatchBudget(who.preset.batch_tokens)
    layers, n_dialogues = range(n_layers(loaded.model)), len(encoded.dialogues)
    file = RowFile(folder / f"{n_dialogues}-means.npy", n_dialogues)
    probes = [
        SequenceProbe(),
        NextTokenProbe(preset.top_k),
        ActivationProbe(layers, preset.windows, first_k=preset.answer_first_k, file=file),
    ]
    if finished is not None and not rank():
        budget.finished = FinishedBatches(finished, spell=spelled_probes, read=partial(read_probes, probes))
    arrays = run_probes(loaded.model, encoded.dialogues, probes, batch_tokens=budget, progress=progress)
    about = _provenance(who, loaded, encoded, _seconds(started, budget)) | budget.about()
    return {name: (own | _labels(encoded), about) for name, own in arrays.items()}


def _seconds(started: float, budget: BatchBudget) -> float:
    """Time since then, and of the runs before that were killed."""
    before = 0.0 if budget.finished is None else budget.finished.seconds
    return before + time.perf_counter() - started


def encoded_rows(who: Subject, tokenizer: ChatTokenizer, source: LoadedSet) -> EncodedSet:
    """The encoded dialogues; rows that were dropped in loading are counted among those dropped here."""
    encoded = encode(source.dialogues, tokenizer, max_tokens=who.preset.max_tokens)
    return replace(encoded, dropped={**source.dropped, **encoded.dropped})


def _labels(encoded: EncodedSet) -> dict[str, np.ndarray]:
    """Who each row is: identifier, cluster and pair, as text arrays."""
    return {
        "identifier": np.array([source.identifier for source in encoded.sources]),
        "cluster": np.array([source.cluster for source in encoded.sources]),
        "pair": np.array([source.pair or "" for source in encoded.sources]),
    }


def _provenance(who: Subject, loaded: LoadedModel, encoded: EncodedSet, seconds: float) -> dict[str, object]:
    return {
        "preset": who.preset.fingerprint(),
        "model": loaded.fingerprint,
        "weights": who.weights,
        **({"quantization": _quantization(who.spec)} if who.spec.quantization else {}),
        "dtype": who.preset.dtype,
        "kept": len(encoded.dialogues),
        "dropped": {reason: list(names) for reason, names in encoded.dropped.items()},
        "versions": library_versions(),
        "processes": n_ranks(),
        "device": describe_placement(loaded.model),
        "seconds": round(seconds, 3),
    }


def _quantization(spec: ModelSpec) -> dict[str, object]:
    note = "passed to transformers as it is; this project has never run it"
    return {"fields": dict(spec.quantization), "note": note}


def gradient_passes(
    who: Subject, sources: Mapping[str, LoadedSet], *, finished: Path | None = None
) -> Measured | None:
    """Arrays and provenance of the gradient Gram matrix of several sets together.

    Of several processes only the first has them. Batches that are done lie in ``finished`` meanwhile.
    """
    started, budget = time.perf_counter(), BatchBudget(who.preset.batch_tokens)
    if finished is not None and not rank():
        budget.finished = FinishedBatches(finished, spell=spelled_gradients, read=read_gradients)
    with who.open() as loaded:
        tokenizer = checked_tokenizer(who, loaded)
        encoded = {name: encoded_rows(who, tokenizer, source) for name, source in sources.items()}
        joined = _joined(encoded)
        n_tokens = sum(len(one.input_ids) for one in joined.dialogues)
        budget.progress = Meter(f"{who.variant}, seed {who.seed}: gradients", n_tokens, progress_sink())
        arrays = measure_gradient_gram(
            loaded.model, joined.dialogues, weight=who.preset.gradient_layer, batch_tokens=budget
        )
        if not arrays:
            return None
        arrays["dataset"] = np.repeat(list(sources), [len(part.dialogues) for part in encoded.values()])
        about = _provenance(who, loaded, joined, _seconds(started, budget)) | budget.about()
    data = {name: dict(source.about) for name, source in sources.items()}
    return arrays | _labels(joined), about | {"data": data}


def _joined(encoded: Mapping[str, EncodedSet]) -> EncodedSet:
    """Sets one after another, each reason of a drop with its set's name."""
    return EncodedSet(
        tuple(dialogue for part in encoded.values() for dialogue in part.dialogues),
        tuple(source for part in encoded.values() for source in part.sources),
        {
            f"{name}: {reason}": names
            for name, part in encoded.items()
            for reason, names in part.dropped.items()
        },
    )


# One seed's stitching: every model's own recordings in a folder, and the records that come of them.


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
                values = patch(loaded.model, material, place, layers)
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
                arrays |= _patched_labels(encoded)
                about = self._about(loaded, pair, encoded, time.perf_counter() - started)
                yield (pair, name), arrays, about | {"data": dict(self.rows[name].about)}

    def _start(self, loaded: LoadedModel, recipient: str, name: str) -> float:
        """Largest difference made by giving the recipient its own stream back, where nothing may change."""
        material, first = self.sets[name][1], patch_layers(n_layers(loaded.model))[0]
        (values,) = patch(loaded.model, material, self._place(recipient, name), [first])
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


def _patched_labels(encoded: EncodedSet) -> dict[str, np.ndarray]:
    return {
        "identifier": np.array([source.identifier for source in encoded.sources]),
        "cluster": np.array([source.cluster for source in encoded.sources]),
    }
