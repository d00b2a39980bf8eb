"""Passes of encoded dialogues through one open model: the arrays of its records, and their provenance."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from remi_core.dialogues.chat import ChatTokenizer, EncodedSet, encode
from remi_core.fingerprint import library_versions
from remi_core.measurements.activations import ActivationProbe
from remi_core.measurements.forward import run_probes
from remi_core.measurements.gradients import measure_gradient_gram
from remi_core.measurements.next_token import NextTokenProbe
from remi_core.measurements.sequence import SequenceProbe
from remi_core.models.opening import LoadedModel, check_vocabulary, n_layers
from remi_core.models.placement import describe_placement
from remi_core.models.spec import ModelSpec
from remi_core.progress import Meter, outward
from remi_core.published.load import LoadedSet
from remi_core.ranks import n_ranks, rank
from remi_core.recording.parts import read_gradients, read_probes, spelled_gradients, spelled_probes
from remi_core.sharing import Budget
from remi_core.storage.finished import FinishedBatches
from remi_core.storage.npz import RowFile
from remi_core.subject import Subject

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
    preset, started, budget = who.preset, time.perf_counter(), Budget(who.preset.batch_tokens)
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


def _seconds(started: float, budget: Budget) -> float:
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
    started, budget = time.perf_counter(), Budget(who.preset.batch_tokens)
    if finished is not None and not rank():
        budget.finished = FinishedBatches(finished, spell=spelled_gradients, read=read_gradients)
    with who.open() as loaded:
        tokenizer = checked_tokenizer(who, loaded)
        encoded = {name: encoded_rows(who, tokenizer, source) for name, source in sources.items()}
        joined = _joined(encoded)
        n_tokens = sum(len(one.input_ids) for one in joined.dialogues)
        budget.progress = Meter(f"{who.variant}, seed {who.seed}: gradients", n_tokens, outward())
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
