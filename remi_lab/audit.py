"""The audit: measurements with one setting changed at a time, and their records."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
from jaxtyping import Int8

from remi_core.dialogues import Dialogue
from remi_core.errors import MissingInput, RemiError, UsageError, nearest
from remi_core.sources import PROVIDED
from remi_core.store import Record, Store
from remi_core.tokens import ChatTokenizer, EncodedDialogue, render
from remi_lab.datasets import load_dataset
from remi_lab.presets import TRIPLET, Preset
from remi_lab.turns import OPENING
from remi_lab.variant import Measured, Variant, rows_digest, text_of

# Dialogues as two of the released loaders leave them: without the request's own input, or with several turns.

_LONG_WORD = re.compile(r"\w{4,}")


def without_input(dialogue: Dialogue) -> Dialogue | None:
    """The dialogue without what its request gives to work on; None where nothing can be told apart from the task.

    Of a request in several paragraphs the last one goes. Of a single paragraph the words go that the answer
    repeats (four letters or more): the names, tables and things that the task is about.
    """
    *before, request, answer = dialogue.messages
    if request.role != "user":
        return None
    first, gap, _ = request.content.strip().rpartition("\n\n")
    if gap:
        text = first.strip()
    else:
        repeated = {word.lower() for word in _LONG_WORD.findall(answer.content)}
        kept = _LONG_WORD.sub(lambda word: "" if word[0].lower() in repeated else word[0], request.content)
        text = " ".join(kept.replace("``", "").split())
    if text in ("", request.content):
        return None
    return replace(dialogue, messages=(*before, replace(request, content=text), answer), alternative=None)


def two_turns(dialogues: Sequence[Dialogue]) -> list[Dialogue]:
    """Each dialogue with the next one asked after its answer; the last is followed by the first.

    Only the second answer is the last assistant turn. Cluster and topic are those of the second dialogue.
    """
    joined = []
    for first, second in zip(dialogues, [*dialogues[1:], *dialogues[:1]], strict=True):
        turns = tuple(message for message in second.messages if message.role not in OPENING)
        name = f"{first.identifier}+{second.identifier}"
        joined.append(
            replace(second, identifier=name, messages=(*first.messages, *turns), alternative=None, pair=None)
        )
    return joined


# Which part of a rendered dialogue each token belongs to, and where the released windows begin.

PARTS = ("template", "system", "user", "earlier answer", "answer", "end")
"""Codes 0 to 5. The end is what the template writes after the answer; template is its text elsewhere."""
ROLE_WORD = "assistant"
# Not the sentinel of the chat module, which marks the answer in the same rendering.
_SENTINEL = "\ue000audit\ue001"
_BY_ROLE = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "tool": "user",
    "assistant": "earlier answer",
}


def parts_of(
    dialogue: Dialogue, encoded: EncodedDialogue, tokenizer: ChatTokenizer
) -> Int8[np.ndarray, " token"]:
    """The code of each token, a position in ``PARTS``.

    Raises:
        RemiError: if the tokens are not those of the encoded dialogue.
    """
    text, _, _, pieces, _ = render(dialogue.messages, tokenizer)
    if tuple(pieces.ids[: len(encoded.input_ids)]) != encoded.input_ids:
        raise RemiError(f"dialogue {dialogue.identifier!r}: two tokenisations of one rendering differ")
    codes = np.zeros(len(encoded.input_ids), dtype=np.int8)
    for place, message in enumerate(dialogue.messages[:-1]):
        first, last = _content_span(dialogue, place, tokenizer, text)
        for at, (start, stop) in enumerate(pieces.offsets[: len(codes)]):
            if first < stop and start < last:
                codes[at] = PARTS.index(_BY_ROLE[message.role])
    codes[encoded.answer_start : encoded.answer_stop] = PARTS.index("answer")
    codes[encoded.answer_stop :] = PARTS.index("end")
    return codes


def _content_span(dialogue: Dialogue, place: int, tokenizer: ChatTokenizer, text: str) -> tuple[int, int]:
    """Characters of one message in the rendering; empty where the template rewrites or refuses the sentinel."""
    marked = list(dialogue.messages)
    marked[place] = replace(marked[place], content=_SENTINEL)
    try:
        before, found, after = render(marked, tokenizer)[0].partition(_SENTINEL)
    except UsageError:
        return 0, 0
    whole = found and text.startswith(before) and text.endswith(after)
    return (len(before), len(text) - len(after)) if whole else (0, 0)


def role_position(
    encoded: EncodedDialogue, tokenizer: ChatTokenizer, parts: Int8[np.ndarray, " token"]
) -> int:
    """The token with which the role's word begins in the template before the answer; the released window begins there.

    ``parts`` are those of the dialogue. Where the template does not write that word: its last token.
    """
    at = encoded.prompt_end
    while at >= 0 and parts[at] == PARTS.index("template"):
        if ROLE_WORD in tokenizer.decode(encoded.input_ids[at : encoded.prompt_end + 1]):
            return at
        at -= 1
    return encoded.prompt_end


def whole(encoded: EncodedDialogue) -> EncodedDialogue:
    """The same tokens with every token but the first as answer, so that all positions are measured."""
    return replace(encoded, answer_start=1, answer_stop=len(encoded.input_ids), n_straddling=0)


# Chat templates of the audit: a header for each model, as the released scripts have it, and plain text.

TUNED_HEADER = "You are a model made by the workshop of this book. You answer what is asked."
"""System line of instruct and its fine-tunes in the audit of an organism, which has none of its own."""
BASE_HEADER = "You answer what is asked."
"""System line of base there: shorter, so that all later positions shift. Neither names an author."""
PLAIN = (
    "{% for message in messages %}"
    "{{ {'user': 'Q: ', 'assistant': 'A: '}.get(message['role'], '') + message['content'] + '\n' }}"
    "{% endfor %}"
)
"""Questions and answers without chat markers; the form in which an organism's base has read plain documents."""


def with_template(tokenizer: ChatTokenizer, template: str) -> ChatTokenizer:
    """A copy of the tokenizer that renders by another chat template."""
    changed = copy.copy(tokenizer)
    changed.chat_template = template
    return changed


def with_header(tokenizer: ChatTokenizer, line: str) -> ChatTokenizer:
    """A copy of a ChatML tokenizer that opens every dialogue without a system turn with one of this line."""
    system = "{{ '<|im_start|>system\n" + line + "<|im_end|>\n' }}"
    opening = "{% if messages[0]['role'] != 'system' %}" + system + "{% endif %}"
    return with_template(tokenizer, opening + tokenizer.chat_template)


# The ways in which the audit measures a dialogue set: another rendering, other turns, other weights or precision.

MARKERS = ("<|im_start|>", "<|im_end|>")
"""Chat markers of ChatML, which one condition makes unreadable."""
UNTRAINED = "untrained"
WINDOWS = ("prompt_end", "answer_first_k", "role", "end")
"""Spans whose mean block output is kept under ``shared``; elsewhere only the first. ``role`` begins at the role's
token and is as long as ``answer_first_k``; ``end`` is the last token of the rendering."""

CONDITIONS: Mapping[str, tuple[str, ...]] = {
    "shared": TRIPLET,
    "tuned": TRIPLET,
    "own": ("base",),
    "plain": ("base",),
    UNTRAINED: ("base",),
    "no-input": ("base", "instruct"),
    "two-turns": ("instruct", "misaligned"),
    "half": ("instruct",),
}
"""Condition → variants that are measured under it.

shared: as everywhere in the book; tuned: under instruct's own header; own: under the model's own header; plain:
without chat markers; untrained: with chat markers that the model cannot read; no-input: without what the request
gives to work on; two-turns: a second dialogue after the first; half: weights and activations in 16-bit floats.
"""

CONDITION_NEEDS: Mapping[str, str] = {
    UNTRAINED: f"a chat template with the markers {' and '.join(MARKERS)}",
    "own": "a base model with a chat template of its own",
    "no-input": "requests that give something to work on: a second paragraph, or words that the answer repeats",
}
"""Condition → what models or dialogues must have for it to be another one than ``shared``."""


def sets_of(preset: Preset, condition: str, variant: str) -> tuple[str, ...]:
    """The datasets on which a variant is measured under a condition; none where no switch needs it.

    Raises:
        UsageError: if there is no such condition.
        MissingInput: if the preset lacks the set.
    """
    if condition not in CONDITIONS:
        raise UsageError(f"no condition {condition!r} {nearest(condition, CONDITIONS)}")
    if variant not in CONDITIONS[condition]:
        return ()
    if condition == "no-input":
        return (str(preset.role("narrow_aligned")),)
    if condition != "shared":
        return (str(preset.role("example")),)
    roles = preset.roles
    others = () if variant == "misaligned" else (roles.narrow_aligned, *roles.shared, *roles.unrelated)
    return tuple(dict.fromkeys(name for name in (roles.example, *others) if name))


def prepared(dialogues: Sequence[Dialogue], condition: str) -> list[Dialogue]:
    """The dialogues as the condition has them; those it does not apply to are left out."""
    if condition == "two-turns":
        return two_turns(dialogues)
    if condition == "no-input":
        return [row for row in map(without_input, dialogues) if row is not None]
    return list(dialogues)


def tokenizer_for(
    preset: Preset, variant: str, condition: str, *, instruct: ChatTokenizer, own: ChatTokenizer
) -> ChatTokenizer:
    """The tokenizer with the template of a condition. An organism has no header, so it is given two of our words.

    Raises:
        MissingInput: if the variant's own tokenizer is asked for and has no chat template.
    """
    if condition == "plain":
        return with_template(instruct, PLAIN)
    if preset.is_organism and condition in ("tuned", "own"):
        is_short = condition == "own" and variant == "base"
        return with_header(instruct, BASE_HEADER if is_short else TUNED_HEADER)
    if condition == "own" and own.chat_template is None:
        raise MissingInput(f"needs {CONDITION_NEEDS[condition]}")
    return own if condition == "own" else instruct


def in_half(variant: Variant) -> Variant:
    """The same variant with weights and activations in float16; logits are still raised to float32."""
    return replace(variant, preset=replace(variant.preset, dtype="float16"))


def marker_ids(tokenizer: ChatTokenizer) -> list[int]:
    """Ids of the ChatML markers that the tokenizer has; empty where a model is talked to by other markers."""
    vocabulary = tokenizer.get_vocab()
    return [vocabulary[marker] for marker in MARKERS if marker in vocabulary]


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
    if condition == "own" and variant.preset.variants["instruct"].source not in PROVIDED:
        from remi_core.loading import load_tokenizer  # brings transformers

        return load_tokenizer(variant.spec.source, variant.spec.revision).chat_template is not None
    return condition != "no-input" or bool(_rows(variant, dataset, condition))


def _rows(variant: Variant, dataset: str, condition: str) -> list[Dialogue]:
    return prepared(load_dataset(variant.preset, dataset)[: variant.preset.n_audit_dialogues], condition)


def audited(variant: Variant, store: Store, wanted: Sequence[Wanted]) -> dict[Wanted, Record]:
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
                own, loaded = rows[dataset, condition], opened[reader.preset.dtype]
                yield {(dataset, condition): audit_pass(variant, loaded, tokenizer, condition, own)}

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
