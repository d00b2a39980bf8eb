"""Which part of a rendered dialogue each token belongs to, and where the released windows begin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Int8

from remi_core.dialogues.chat import ChatTokenizer, EncodedDialogue, pieces_of, render
from remi_core.dialogues.dialogue import Dialogue, Message
from remi_core.errors import RemiError, UsageError

PARTS = ("template", "system", "user", "earlier answer", "answer", "end")
"""Codes 0 to 5. The end is what the template writes after the answer; template is its text elsewhere."""
ROLE_WORD = "assistant"
# Not the sentinel of the chat module, which marks the answer in the same rendering.
_SENTINEL = "\ue000audit\ue001"
_BY_ROLE = {"system": "system", "user": "user", "assistant": "earlier answer"}


def parts_of(
    dialogue: Dialogue, encoded: EncodedDialogue, tokenizer: ChatTokenizer
) -> Int8[np.ndarray, " token"]:
    """The code of each token, a position in ``PARTS``.

    Raises:
        RemiError: if the tokens are not those of the encoded dialogue.
    """
    text, _, _ = render(dialogue.messages, tokenizer)
    spelled = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = spelled["input_ids"], spelled["offset_mapping"]
    if tuple(ids[: len(encoded.input_ids)]) != encoded.input_ids:
        # The text of a message spells a control token, which only the chat module reads as text.
        pieces = pieces_of(dialogue.messages, tokenizer)
        ids, offsets = pieces.ids, pieces.offsets
    if tuple(ids[: len(encoded.input_ids)]) != encoded.input_ids:
        raise RemiError(f"dialogue {dialogue.identifier!r}: two tokenisations of one rendering differ")
    codes = np.zeros(len(encoded.input_ids), dtype=np.int8)
    for place, message in enumerate(dialogue.messages[:-1]):
        first, last = _content_span(dialogue, place, tokenizer, text)
        for at, (start, stop) in enumerate(offsets[: len(codes)]):
            if first < stop and start < last:
                codes[at] = PARTS.index(_BY_ROLE[message.role])
    codes[encoded.answer_start : encoded.answer_stop] = PARTS.index("answer")
    codes[encoded.answer_stop :] = PARTS.index("end")
    return codes


def _content_span(dialogue: Dialogue, place: int, tokenizer: ChatTokenizer, text: str) -> tuple[int, int]:
    """Characters of one message in the rendering; empty where the template rewrites or refuses the sentinel."""
    marked = list(dialogue.messages)
    marked[place] = Message(marked[place].role, _SENTINEL)
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


def bare_token(encoded: EncodedDialogue, tokenizer: ChatTokenizer) -> int | None:
    """The id of the word at the choice when it is looked up without its leading space, if there is another one."""
    if encoded.choice is None:
        return None
    token = encoded.input_ids[encoded.choice]
    word = tokenizer.decode([token])
    if not word.startswith(" ") or not word.strip():
        return None
    found = tokenizer.convert_tokens_to_ids(word.strip())
    return None if found is None or found in (token, tokenizer.unk_token_id) else int(found)


def whole(encoded: EncodedDialogue) -> EncodedDialogue:
    """The same tokens with every token but the first as answer, so that all positions are measured."""
    return replace(encoded, answer_start=1, answer_stop=len(encoded.input_ids), n_straddling=0)
