"""The ways in which the audit measures a dialogue set: another rendering, other turns, other weights or precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from remi_core.audit.dialogues import two_turns, without_input
from remi_core.audit.templates import BASE_HEADER, PLAIN, TUNED_HEADER, with_header, with_template
from remi_core.dialogues.chat import ChatTokenizer
from remi_core.dialogues.dialogue import Dialogue
from remi_core.errors import MissingInput, UsageError, nearest
from remi_core.presets.known import Preset
from remi_core.variants import TRIPLET

MARKERS = ("<|im_start|>", "<|im_end|>")
"""Chat markers of ChatML, which one condition makes unreadable."""
UNTRAINED = "untrained"
WINDOWS = ("prompt_end", "answer_first_k", "role", "end")
"""Spans whose mean block output is kept under ``shared``; elsewhere only the first. ``role`` begins at the role's
token and is as long as ``answer_first_k``; ``end`` is the last token of the rendering."""

CONDITIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "shared": TRIPLET,
        "tuned": TRIPLET,
        "own": ("base",),
        "plain": ("base",),
        UNTRAINED: ("base",),
        "no-input": ("base", "instruct"),
        "two-turns": ("instruct", "misaligned"),
        "half": ("instruct",),
    }
)
"""Condition → variants that are measured under it.

shared: as everywhere in the book; tuned: under instruct's own header; own: under the model's own header; plain:
without chat markers; untrained: with chat markers that the model cannot read; no-input: without what the request
gives to work on; two-turns: a second dialogue after the first; half: weights and activations in 16-bit floats.
"""

CONDITION_NEEDS: Mapping[str, str] = MappingProxyType(
    {
        UNTRAINED: f"a chat template with the markers {' and '.join(MARKERS)}",
        "own": "a base model with a chat template of its own",
        "no-input": "requests that give something to work on: a second paragraph, or words that the answer repeats",
    }
)
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
        return [one for one in map(without_input, dialogues) if one is not None]
    return list(dialogues)


def tokenizer_for(
    preset: Preset,
    variant: str,
    condition: str,
    *,
    instruct: ChatTokenizer,
    own: ChatTokenizer,
) -> ChatTokenizer:
    """The tokenizer with the template of a condition. An organism has no header, so it is given two of our words.

    Raises:
        MissingInput: if the variant's own tokenizer is asked for and has no chat template.
    """
    is_organism = preset.is_organism
    if condition == "plain":
        return with_template(instruct, PLAIN)
    if condition == "tuned":
        return with_header(instruct, TUNED_HEADER) if is_organism else instruct
    if condition == "own":
        if is_organism:
            return with_header(instruct, BASE_HEADER if variant == "base" else TUNED_HEADER)
        if own.chat_template is None:
            raise MissingInput(f"needs {CONDITION_NEEDS[condition]}")
        return own
    return instruct


def marker_ids(tokenizer: ChatTokenizer) -> list[int]:
    """Ids of the ChatML markers that the tokenizer has; empty where a model is talked to by other markers."""
    vocabulary = tokenizer.get_vocab()
    return [vocabulary[marker] for marker in MARKERS if marker in vocabulary]
