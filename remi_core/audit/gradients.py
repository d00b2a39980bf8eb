"""The audit's gradients: over the whole dialogue, through two models, and in 16-bit floats without loss scaling."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from remi_core.audit.measure import in_half
from remi_core.datasets import load_dataset
from remi_core.dialogues.chat import encode
from remi_core.dialogues.dialogue import Dialogue
from remi_core.fingerprint import library_versions, make_key, text_digest
from remi_core.storage.store import Address, Record, Store
from remi_core.subject import Subject

AUDIT_GRADIENTS = "audit_gradients"


def audited_gradients(instruct: Subject, base: Subject, store: Store, datasets: Sequence[str]) -> Record:
    """Gram matrices of the gradients that the switches compare, and how many of their entries 16 bits lose.

    Arrays: ``answer`` and ``whole`` (row, row), float64, of instruct's gradients with the loss on the answer and
    on every token; ``mixed`` (row, row), the same as ``answer`` with the first set's gradients taken through
    base. ``zero`` and ``below_normal`` (dialogue of the first set, 2), shares of the entries of one dialogue's
    whole-sequence gradient that are exactly 0, and below the smallest normal 16-bit number, in float32 and in
    float16. Rows are the dialogues of the sets one after another, named by ``dataset``, ``identifier``,
    ``cluster`` and ``pair``.

    Raises:
        RemiError: if a value is not finite, or the sets differ between the models after encoding.
    """
    preset = instruct.preset
    sets = {name: load_dataset(preset, name)[: preset.n_audit_dialogues] for name in datasets}
    address = _address(instruct, base, sets)
    return store.obtain(address, lambda: _measured(instruct, base, sets))


def _measured(
    instruct: Subject, base: Subject, sets: Mapping[str, list[Dialogue]]
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Arrays and provenance of the record."""
    preset, started = instruct.preset, time.perf_counter()
    from remi_core.audit.gradient_passes import gram_passes, lost_entries  # brings torch

    tokenizer = instruct.tokenizer()
    encoded = [encode(rows, tokenizer, max_tokens=preset.max_tokens) for rows in sets.values()]
    arrays = gram_passes(instruct, base, encoded)
    with in_half(instruct).open() as loaded:
        halved = lost_entries(loaded.model, preset.gradient_layer, encoded[0].dialogues)
    lost = np.stack([arrays.pop("lost"), halved], axis=1)
    arrays |= {"zero": lost[..., 0], "below_normal": lost[..., 1]}
    counts = [len(part.dialogues) for part in encoded]
    sources = [source for part in encoded for source in part.sources]
    arrays |= {
        "dataset": np.repeat(list(sets), counts),
        "identifier": np.array([source.identifier for source in sources]),
        "cluster": np.array([source.cluster for source in sources]),
        "pair": np.array([source.pair or "" for source in sources]),
    }
    about = {
        "preset": preset.fingerprint(),
        "dtype": preset.dtype,
        "kept": len(sources),
        "dropped": {
            name: sum(map(len, one.dropped.values())) for name, one in zip(sets, encoded, strict=True)
        },
        "versions": library_versions(),
        "seconds": round(time.perf_counter() - started, 3),
    }
    return arrays, about


def _address(instruct: Subject, base: Subject, sets: dict[str, list]) -> Address:
    preset = instruct.preset
    fields = {name: getattr(preset, name) for name in ("max_tokens", "dtype", "gradient_layer")}
    fields |= {"rows": text_digest(repr(sets)), "instruct": instruct.weights, "base": base.weights}
    key = make_key(fields, [__name__])
    return Address(preset.name, instruct.seed, "instruct", AUDIT_GRADIENTS, "+".join(sets), key)
