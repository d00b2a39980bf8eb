"""Records of the audit: measurements with one setting changed at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from remi_core.dialogues import Dialogue
from remi_core.errors import MissingInput
from remi_core.keys import library_versions, make_key, text_digest
from remi_core.sources import PROVIDED, text_of
from remi_core.store import Address, Record, Store
from remi_core.tokens import encode
from remi_lab.audit_conditions import CONDITIONS, UNTRAINED, marker_ids, prepared, sets_of
from remi_lab.datasets import load_dataset
from remi_lab.subject import Subject

# The audit's forward passes as records: one a variant, dataset and condition, in the store under ``audit``.

AUDIT = "audit"
Wanted = tuple[str, str]
"""Dataset and condition."""


def wanted_of(who: Subject) -> list[Wanted]:
    """Everything the audit measures of a variant; what preset, dialogues or model cannot give is left out."""
    wanted = []
    for condition in CONDITIONS:
        try:
            names = sets_of(who.preset, condition, who.variant)
        except MissingInput:
            names = ()
        wanted += [(name, condition) for name in names if _applies(who, name, condition)]
    return wanted


def _applies(who: Subject, dataset: str, condition: str) -> bool:
    """Whether a condition can differ from ``shared``, as ``CONDITION_NEEDS`` says; no weights are loaded for it."""
    if condition == "own" and who.preset.variants["base"].source not in PROVIDED:
        from remi_core.loading import load_tokenizer  # brings transformers

        return load_tokenizer(who.spec.source, who.spec.revision).chat_template is not None
    return condition != "no-input" or bool(_rows(who, dataset, condition))


def _rows(who: Subject, dataset: str, condition: str) -> list[Dialogue]:
    return prepared(load_dataset(who.preset, dataset)[: who.preset.n_audit_dialogues], condition)


def audited(
    who: Subject,
    store: Store,
    wanted: Sequence[Wanted],
    *,
    say: Callable[[str], None] | None = None,
) -> dict[Wanted, Record]:
    """(dataset, condition) → record; what the store lacks is measured, the weights being loaded once a precision.

    Without a record stays the condition of unread markers where the chat template has none.

    Arrays over all tokens but the first of all dialogues, dialogue i at ``offsets[i]:offsets[i + 1]``:
    ``log_probability`` and ``entropy`` (nats), ``token``, ``part`` (a position in ``parts.PARTS``). By dialogue:
    ``mean`` (dialogue, window, layer, d_model) over ``WINDOWS``; ``count`` (dialogue, window); ``normed_end``
    (dialogue, d_model); ``role_template`` (dialogue,), tokens of the window ``role`` before the answer;
    ``in_context`` and ``bare`` (dialogue,), nats. Then identifier, cluster and pair.

    Raises:
        RemiError: if a measured value is not finite.
    """
    records: dict[Wanted, Record] = {}
    with ExitStack() as stack:
        opened = {}
        spelling = None
        for dataset, condition in wanted:
            rows = _rows(who, dataset, condition)
            address = _address(who, (dataset, condition), rows)
            with store.missing_of({address: address}) as (found, missing):
                if missing:
                    spelling = spelling or who.tokenizer()
                    if condition == UNTRAINED and not marker_ids(spelling):
                        continue
                    reader = in_half(who) if condition == "half" else who
                    if reader.preset.dtype not in opened:
                        opened[reader.preset.dtype] = stack.enter_context(reader.open())
                    from remi_lab.audit_passes import audit_pass  # brings torch

                    store.save(
                        address, *audit_pass(who, opened[reader.preset.dtype], spelling, condition, rows)
                    )
                    if say:
                        say(
                            f"{who.variant} {who.seed}: {dataset}, {condition}, {len(rows)} dialogues audited"
                        )
            records[dataset, condition] = found[address] or store.load(address)
    return records


def in_half(who: Subject) -> Subject:
    """The same subject with weights and activations in float16; logits are still raised to float32."""
    return replace(who, preset=replace(who.preset, dtype="float16"))


def _address(who: Subject, wanted: Wanted, rows: Sequence[Dialogue]) -> Address:
    preset = who.preset
    fields = {name: getattr(preset, name) for name in ("max_tokens", "dtype", "answer_first_k", "seed")}
    fields |= {"condition": wanted[1], "rows": text_digest(repr(list(rows)))}
    fields |= {"weights": who.weights, "own text": text_of(who.spec)}
    key = make_key(fields, [__name__])
    return Address(preset.name, who.seed, who.variant, AUDIT, "+".join(wanted), key)


# The audit's gradients: over the whole dialogue, through two models, and in 16-bit floats without loss scaling.

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
    address = _gradients_address(instruct, base, sets)
    return store.obtain(address, lambda: _measured(instruct, base, sets))


def _measured(
    instruct: Subject, base: Subject, sets: Mapping[str, list[Dialogue]]
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Arrays and provenance of the record."""
    preset, started = instruct.preset, time.perf_counter()
    from remi_lab.audit_passes import gram_passes, lost_entries  # brings torch

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


def _gradients_address(instruct: Subject, base: Subject, sets: dict[str, list]) -> Address:
    preset = instruct.preset
    fields = {name: getattr(preset, name) for name in ("max_tokens", "dtype", "gradient_layer")}
    fields |= {"rows": text_digest(repr(sets)), "instruct": instruct.weights, "base": base.weights}
    key = make_key(fields, [__name__])
    return Address(preset.name, instruct.seed, "instruct", AUDIT_GRADIENTS, "+".join(sets), key)
