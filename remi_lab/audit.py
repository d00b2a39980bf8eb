"""Records of the audit: measurements with one setting changed at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from remi_core.dialogues import Dialogue
from remi_core.errors import MissingInput
from remi_core.sources import PROVIDED
from remi_core.store import Record, Store
from remi_lab.audit_conditions import CONDITIONS, UNTRAINED, in_half, marker_ids, prepared, sets_of
from remi_lab.datasets import load_dataset
from remi_lab.variant import Measured, Variant, rows_digest, text_of

# The audit's forward passes as records: one a variant, dataset and condition, in the store under ``audit``.

Wanted = tuple[str, str]
"""Dataset and condition."""


def wanted_of(variant: Variant) -> list[Wanted]:
    """Everything the audit measures of a variant; what preset, dialogues or model cannot give is left out."""
    wanted = []
    for condition in CONDITIONS:
        try:
            names = sets_of(variant.preset, condition, variant.name)
        except MissingInput:
            names = ()
        wanted += [(name, condition) for name in names if _applies(variant, name, condition)]
    return wanted


def _applies(variant: Variant, dataset: str, condition: str) -> bool:
    """Whether a condition can differ from ``shared``, as ``CONDITION_NEEDS`` says; no weights are loaded for it."""
    if condition == "own" and variant.preset.variants["base"].source not in PROVIDED:
        from remi_core.loading import load_tokenizer  # brings transformers

        return load_tokenizer(variant.spec.source, variant.spec.revision).chat_template is not None
    return condition != "no-input" or bool(_rows(variant, dataset, condition))


def _rows(variant: Variant, dataset: str, condition: str) -> list[Dialogue]:
    return prepared(load_dataset(variant.preset, dataset)[: variant.preset.n_audit_dialogues], condition)


def audited(
    variant: Variant,
    store: Store,
    wanted: Sequence[Wanted],
    *,
    say: Callable[[str], None] | None = None,
) -> dict[Wanted, Record]:
    """(dataset, condition) → record; what the store lacks is measured, the weights being loaded once a precision.

    Without a record stays the condition of unread markers where the chat template has none.

    Arrays over all tokens but the first of all dialogues, dialogue i at ``offsets[i]:offsets[i + 1]``:
    ``log_probability`` and ``entropy`` (nats), ``token``, ``part`` (a position in ``PARTS``). By dialogue:
    ``mean`` (dialogue, window, layer, d_model) over ``WINDOWS``; ``count`` (dialogue, window); ``normed_end``
    (dialogue, d_model); ``role_template`` (dialogue,), tokens of the window ``role`` before the answer;
    ``in_context`` and ``bare`` (dialogue,), nats. Then identifier, cluster and pair.

    Raises:
        RemiError: if a measured value is non-finite.
    """
    rows = {(dataset, condition): _rows(variant, dataset, condition) for dataset, condition in wanted}
    addresses = {
        name: variant.address("audit", "+".join(name), rows_digest(own), own_text=text_of(variant.spec))
        for name, own in rows.items()
    }

    def measure(missing: Sequence[Wanted]) -> Iterator[dict[Wanted, Measured]]:
        from remi_lab.audit_passes import audit_pass  # brings torch

        tokenizer, opened = variant.tokenizer(), {}
        with ExitStack() as stack:
            for dataset, condition in missing:
                if condition == UNTRAINED and not marker_ids(tokenizer):
                    continue
                reader = in_half(variant) if condition == "half" else variant
                if reader.preset.dtype not in opened:
                    opened[reader.preset.dtype] = stack.enter_context(reader.open())
                own = rows[dataset, condition]
                loaded = opened[reader.preset.dtype]
                yield {(dataset, condition): audit_pass(variant, loaded, tokenizer, condition, own)}
                if say:
                    say(
                        f"{variant.name} {variant.seed}: {dataset}, {condition}, {len(own)} dialogues audited"
                    )

    return store.record(addresses, measure)


# The audit's gradients: over the whole dialogue, through two models, and in 16-bit floats without loss scaling.


def audited_gradients(instruct: Variant, base: Variant, store: Store, datasets: Sequence[str]) -> Record:
    """Gram matrices of the gradients that the switches compare, and how many of their entries 16 bits lose.

    Arrays: ``answer`` and ``whole`` (row, row), float64, of instruct's gradients with the loss on the answer and
    on every token; ``mixed`` (row, row), the same as ``answer`` with the first set's gradients taken through
    base. ``zero`` and ``below_normal`` (dialogue of the first set, 2), shares of the entries of one dialogue's
    whole-sequence gradient that are exactly 0, and below the smallest normal 16-bit number, in float32 and in
    float16. Rows are the dialogues of the sets one after another, named by ``dataset``, ``identifier``,
    ``cluster`` and ``pair``.

    Raises:
        RemiError: if a value is non-finite, or the sets differ between the models after encoding.
    """
    preset = instruct.preset
    sets = {name: load_dataset(preset, name)[: preset.n_audit_dialogues] for name in datasets}
    weights = [instruct.weights, base.weights]
    address = instruct.address(
        "audit_gradients", "+".join(sets), rows_digest(*sets.values()), weights=weights
    )

    def measured() -> Measured:
        from remi_lab.audit_passes import gradient_pass  # brings torch

        return gradient_pass(instruct, base, sets)

    return store.obtain(address, measured)
