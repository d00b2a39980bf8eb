"""One pass of the audit: a dialogue set under a condition through an open model, as arrays and provenance."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np

from remi_core.audit.conditions import UNTRAINED, WINDOWS, marker_ids, tokenizer_for
from remi_core.audit.parts import bare_token, parts_of, role_position, whole
from remi_core.audit.probes import SpanProbe, WrongTokenProbe
from remi_core.audit.weights import untrained_markers
from remi_core.dialogues.chat import ChatTokenizer, EncodedDialogue, EncodedSet, encode
from remi_core.dialogues.dialogue import Dialogue
from remi_core.fingerprint import library_versions
from remi_core.measurements.forward import run_probes
from remi_core.measurements.sequence import SequenceProbe
from remi_core.models.opening import LoadedModel, n_layers
from remi_core.models.placement import describe_placement
from remi_core.sharing import Budget
from remi_core.subject import Subject


def audit_pass(
    who: Subject,
    loaded: LoadedModel,
    spelling: ChatTokenizer,
    condition: str,
    rows: Sequence[Dialogue],
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """The arrays of ``audited``, and their provenance."""
    preset, started = who.preset, time.perf_counter()
    tokenizer = tokenizer_for(preset, who.variant, condition, instruct=spelling, own=loaded.tokenizer)
    encoded = encode(rows, tokenizer, max_tokens=preset.max_tokens)
    changed = condition == UNTRAINED
    ids = marker_ids(tokenizer) if changed else []
    with untrained_markers(loaded.model, ids, seed=preset.seed) if changed else nullcontext():
        arrays, ran = _arrays(
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
        **ran,
        "device": describe_placement(loaded.model),
        "seconds": round(time.perf_counter() - started, 3),
    }
    return arrays, about


def _arrays(
    who: Subject,
    loaded: LoadedModel,
    encoded: EncodedSet,
    tokenizer: ChatTokenizer,
    *,
    windows: Sequence[str],
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The arrays of ``audited``, and what the batches were."""
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
    budget = Budget(who.preset.batch_tokens)
    found = run_probes(loaded.model, stretched, probes, batch_tokens=budget)
    arrays = {name: values for arrays in found.values() for name, values in arrays.items()} | {
        "part": np.concatenate([part[1:] for part in parts]),
        "role_template": np.array(
            [one.answer_start - at for one, at in zip(encoded.dialogues, roles, strict=True)]
        ),
        "identifier": np.array([one.identifier for one in encoded.sources]),
        "cluster": np.array([one.cluster for one in encoded.sources]),
        "pair": np.array([one.pair or "" for one in encoded.sources]),
    }
    return arrays, budget.about()


def _spans(one: EncodedDialogue, role: int, first_k: int) -> dict[str, tuple[int, int]]:
    n_tokens = len(one.input_ids)
    return {
        "prompt_end": (one.prompt_end, one.prompt_end + 1),
        "answer_first_k": (one.answer_start, min(one.answer_start + first_k, one.answer_stop)),
        "role": (role, role + first_k),
        "end": (n_tokens - 1, n_tokens),
    }
