"""The audit's forward passes as records: one a variant, dataset and condition, in the store under ``audit``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

from remi_core.audit.conditions import CONDITIONS, UNTRAINED, marker_ids, prepared, sets_of
from remi_core.datasets import load_dataset
from remi_core.dialogues.dialogue import Dialogue
from remi_core.errors import MissingInput
from remi_core.fingerprint import make_key, text_digest
from remi_core.models.identity import text_of
from remi_core.models.spec import PROVIDED
from remi_core.storage.store import Address, Record, Store
from remi_core.subject import Subject

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
        from remi_core.models.loading import load_tokenizer  # brings transformers

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
                    from remi_core.audit.passes import audit_pass  # brings torch

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
