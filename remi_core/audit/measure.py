"""The audit's forward passes as records: one a variant, dataset and condition, in the store under ``audit``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from remi_core.audit.conditions import CONDITIONS, UNTRAINED, prepared, sets_of, tokenizer_for
from remi_core.audit.parts import bare_token, parts_of, role_position, whole
from remi_core.audit.probes import SpanProbe, WrongTokenProbe
from remi_core.audit.weights import marker_ids, untrained_markers
from remi_core.chat import EncodedDialogue, EncodedSet, encode
from remi_core.datasets import load_dataset
from remi_core.dialogues import Dialogue
from remi_core.errors import MissingInput
from remi_core.fingerprint import library_versions, make_key, text_digest
from remi_core.identity import text_of
from remi_core.measure import Subject
from remi_core.measurements.forward import run_probes
from remi_core.measurements.sequence import SequenceProbe
from remi_core.models import LoadedModel, n_layers
from remi_core.placement import describe_placement
from remi_core.store import Address, Record, Store

AUDIT = "audit"
WINDOWS = ("prompt_end", "answer_first_k", "role", "end")
"""Spans whose mean block output is kept under ``shared``; elsewhere only the first. ``role`` begins at the role's
token and is as long as ``answer_first_k``; ``end`` is the last token of the rendering."""

Wanted = tuple[str, str]
"""Dataset and condition."""


def wanted_of(who: Subject) -> list[Wanted]:
    """Everything the audit measures of a variant; what the preset has no data for is left out."""
    wanted = []
    for condition in CONDITIONS:
        try:
            names = sets_of(who.preset, condition, who.variant)
        except MissingInput:
            names = ()
        wanted += [(name, condition) for name in names]
    return wanted


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
        opened: dict[str, LoadedModel] = {}
        spelling = None
        for dataset, condition in wanted:
            rows = prepared(load_dataset(who.preset, dataset)[: who.preset.n_audit_dialogues], condition)
            address = _address(who, (dataset, condition), rows)
            found = store.load(address)
            if found is None:
                spelling = spelling or who.tokenizer()
                if condition == UNTRAINED and not marker_ids(spelling):
                    continue
                reader = in_half(who) if condition == "half" else who
                if reader.preset.dtype not in opened:
                    opened[reader.preset.dtype] = stack.enter_context(reader.open())
                arrays, about = _measure(who, opened[reader.preset.dtype], spelling, condition, rows)
                store.save(address, arrays, about)
                found = store.load(address)
                if say:
                    say(f"{who.variant} {who.seed}: {dataset}, {condition}, {len(rows)} dialogues audited")
            records[dataset, condition] = found
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


def _measure(
    who: Subject,
    loaded: LoadedModel,
    spelling: PreTrainedTokenizerBase,
    condition: str,
    rows: Sequence[Dialogue],
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    preset, started = who.preset, time.perf_counter()
    tokenizer = tokenizer_for(preset, who.variant, condition, instruct=spelling, own=loaded.tokenizer)
    encoded = encode(rows, tokenizer, max_tokens=preset.max_tokens)
    changed = condition == UNTRAINED
    ids = marker_ids(tokenizer) if changed else []
    with untrained_markers(loaded.model, ids, seed=preset.seed) if changed else nullcontext():
        arrays = _arrays(
            who, loaded, encoded, tokenizer, windows=WINDOWS if condition == "shared" else WINDOWS[:1]
        )
    about = {
        "preset": preset.fingerprint(),
        "model": loaded.fingerprint,
        "dtype": "float16" if condition == "half" else preset.dtype,
        "kept": len(encoded.dialogues),
        "not applicable": preset.n_audit_dialogues - len(rows),
        "dropped": {reason: list(names) for reason, names in encoded.dropped.items()},
        "versions": library_versions(),
        "batch_tokens": preset.batch_tokens,
        "device": describe_placement(loaded.model),
        "seconds": round(time.perf_counter() - started, 3),
    }
    return arrays, about


def _arrays(
    who: Subject,
    loaded: LoadedModel,
    encoded: EncodedSet,
    tokenizer: PreTrainedTokenizerBase,
    *,
    windows: Sequence[str],
) -> dict[str, np.ndarray]:
    parts = [parts_of(*pair, tokenizer) for pair in zip(encoded.sources, encoded.dialogues, strict=True)]
    roles = [role_position(one, tokenizer, part) for one, part in zip(encoded.dialogues, parts, strict=True)]
    spans = [
        {name: span for name, span in _spans(one, role, who.preset.answer_first_k).items() if name in windows}
        for one, role in zip(encoded.dialogues, roles, strict=True)
    ]
    probes = [
        SequenceProbe(),
        SpanProbe(range(n_layers(loaded.model)), spans),
        WrongTokenProbe([bare_token(one, tokenizer) for one in encoded.dialogues]),
    ]
    stretched = [whole(one) for one in encoded.dialogues]
    found = run_probes(loaded.model, stretched, probes, batch_tokens=who.preset.batch_tokens)
    return {name: values for arrays in found.values() for name, values in arrays.items()} | {
        "part": np.concatenate([part[1:] for part in parts]),
        "role_template": np.array(
            [one.answer_start - at for one, at in zip(encoded.dialogues, roles, strict=True)]
        ),
        "identifier": np.array([one.identifier for one in encoded.sources]),
        "cluster": np.array([one.cluster for one in encoded.sources]),
        "pair": np.array([one.pair or "" for one in encoded.sources]),
    }


def _spans(one: EncodedDialogue, role: int, first_k: int) -> dict[str, tuple[int, int]]:
    n_tokens = len(one.input_ids)
    return {
        "prompt_end": (one.prompt_end, one.prompt_end + 1),
        "answer_first_k": (one.answer_start, min(one.answer_start + first_k, one.answer_stop)),
        "role": (role, role + first_k),
        "end": (n_tokens - 1, n_tokens),
    }
