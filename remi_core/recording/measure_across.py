"""Gradients of two models in one Gram matrix: each set through a model of its own, as in one published figure.

Such a matrix confounds model and data; it exists to be compared with one model on both sets. The two models
are in memory one after the other, and between them only the factors of the gradients are kept.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from remi_core.datasets import load_set
from remi_core.dialogues.chat import EncodedSet, encode
from remi_core.dialogues.dialogue import Dialogue
from remi_core.fingerprint import library_versions, make_key, text_digest
from remi_core.published.load import LoadedSet
from remi_core.storage.store import Address, Record, Store
from remi_core.subject import CODE, ENCODING, FIELDS, Subject


def measure_gradients_across(sides: Mapping[str, Subject], store: Store) -> Record:
    """One Gram matrix of answer-loss gradients of several sets, each through its own subject.

    ``sides`` maps a dataset to the model it goes through. Arrays: ``gram``, ``loss``, ``dataset``, ``cluster`` and
    ``pair``, rows one set after another, as those of ``measure_gradients``.
    """
    preset = next(iter(sides.values())).preset
    sources = {name: load_set(preset, name) for name in sides}
    sets = {name: list(one.dialogues[: preset.n_gradient_dialogues]) for name, one in sources.items()}
    address = _address(sides, text_digest(repr(sets)))
    return store.obtain(address, lambda: _measured(sides, sources, sets))


def _measured(
    sides: Mapping[str, Subject], sources: Mapping[str, LoadedSet], sets: Mapping[str, list[Dialogue]]
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Arrays and provenance of the record."""
    from remi_core.measurements.gradients import gradient_factors, gram_of_factors  # brings torch
    from remi_core.recording.passes import checked_tokenizer
    from remi_core.sharing import Budget

    preset = next(iter(sides.values())).preset
    started, budget, factors, losses, parts = time.perf_counter(), Budget(preset.batch_tokens), [], [], []
    for name, who in sides.items():
        with who.open() as loaded:
            encoded = encode(sets[name], checked_tokenizer(who, loaded), max_tokens=preset.max_tokens)
            parts.append(replace(encoded, dropped={**sources[name].dropped, **encoded.dropped}))
            own, loss = gradient_factors(
                loaded.model,
                parts[-1].dialogues,
                weight=preset.gradient_layer,
                batch_tokens=budget,
            )
            factors += own
            losses.append(loss)
    arrays = {"gram": gram_of_factors(factors), "loss": np.concatenate(losses)} | _labels(sides, parts)
    about = _provenance(sides, parts, time.perf_counter() - started)
    about |= budget.about() | {"data": {name: dict(one.about) for name, one in sources.items()}}
    return arrays, about


def _address(sides: Mapping[str, Subject], rows: str) -> Address:
    first = next(iter(sides.values()))
    preset = first.preset
    fields = {name: getattr(preset, name) for name in ("max_tokens", "dtype", *FIELDS["gradients"])}
    fields |= {"rows": rows, "weights": [who.weights for who in sides.values()]}
    key = make_key(fields, [CODE["gradients"], ENCODING, __name__])
    models = "+".join(dict.fromkeys(who.variant for who in sides.values()))
    return Address(preset.name, first.seed, models, "gradients", "+".join(sides), key)


def _labels(sides: Mapping[str, Subject], parts: list[EncodedSet]) -> dict[str, np.ndarray]:
    sources = [source for part in parts for source in part.sources]
    return {
        "dataset": np.repeat(list(sides), [len(part.dialogues) for part in parts]),
        "cluster": np.array([source.cluster for source in sources]),
        "pair": np.array([source.pair or "" for source in sources]),
    }


def _provenance(sides: Mapping[str, Subject], parts: list[EncodedSet], seconds: float) -> dict[str, object]:
    first = next(iter(sides.values()))
    return {
        "preset": first.preset.fingerprint(),
        "weights": [who.weights for who in sides.values()],
        "dtype": first.preset.dtype,
        "kept": sum(len(part.dialogues) for part in parts),
        "dropped": {
            f"{name}: {reason}": list(names)
            for name, part in zip(sides, parts, strict=True)
            for reason, names in part.dropped.items()
        },
        "versions": library_versions(),
        "seconds": round(seconds, 3),
    }
