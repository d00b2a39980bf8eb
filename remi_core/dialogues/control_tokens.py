"""Splitting rendered dialogues into tokens: only the template writes control tokens, a message's text never does.

A tokenizer reads ``<|im_end|>`` as the end of a turn wherever it stands. Text from outside could so end its turn and
open another. What a message says is therefore hidden from that rule: the template renders a placeholder in its place,
the tokens that the rule then finds are the template's own, and all between them is split as ordinary words.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tokenizers import Tokenizer
from tokenizers.processors import ByteLevel

from remi_core.dialogues.dialogue import Message

# Private-use characters: no template holds them, and none strips them.
SENTINEL = "\ue000remi\ue001"
"""Stands for an answer where a rendering shows what the template puts around it."""
_OPEN, _CLOSE = "\ue002", "\ue003"
_HIDDEN = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")
_OURS = re.compile("[\ue000-\ue003]")


@dataclass(frozen=True)
class Hidden:
    """Messages in which placeholders stand for the control tokens that their texts spell."""

    messages: tuple[Message, ...]
    spelled: tuple[str, ...]
    """What each placeholder stands for, by its number; none where no text spells a control token."""

    def shown(self, text: str) -> str:
        """The text with what its placeholders stand for."""
        return _HIDDEN.sub(lambda found: self.spelled[int(found[1])], text) if self.spelled else text


@dataclass(frozen=True)
class Pieces:
    """The tokens of a text: ids, and where in the text, in characters, each starts and stops."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class Splitter:
    """A tokenizer's rules without truncation and padding, with offsets that cover all text.

    Byte-level tokenizers may trim white space from the offsets they report; a token that holds the template's
    space and the answer's first word would then look as if it lay wholly inside the answer. Added tokens that are not
    marked special, such as those for runs of line ends, are words like others.
    """

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend
        added = backend.get_added_tokens_decoder()
        control = {number: token for number, token in added.items() if token.special}
        self._control = frozenset(control)
        words = "|".join(re.escape(token.content) for token in control.values())
        # Where no control token is looked for in normalised text, a text that has none of their words spells none.
        exact = backend.normalizer is None or not any(token.normalized for token in control.values())
        self._may_spell = re.compile(words if exact and words else "" if control else "(?!)")

    @cached_property
    def _plain(self) -> Tokenizer:
        return _without_limits(self._backend)

    @cached_property
    def _literal(self) -> Tokenizer:
        """The same rules without control tokens; made only where a text needs it, since a copy takes a while."""
        literal = _without_limits(self._backend)
        literal.encode_special_tokens = True
        return literal

    def hide(self, messages: Sequence[Message]) -> Hidden:
        """The messages with a placeholder for each control token that a text spells, as the tokenizer would read it."""
        spelled: list[str] = []
        hidden = []
        for message in messages:
            text = message.content
            for start, stop in reversed(self._control_spans(text)):
                spelled.append(text[start:stop])
                text = f"{text[:start]}{_OPEN}{len(spelled) - 1}{_CLOSE}{text[stop:]}"
            hidden.append(replace(message, content=text))
        return Hidden(tuple(hidden), tuple(spelled))

    def _control_spans(self, text: str) -> list[tuple[int, int]]:
        if _OURS.search(text):
            return [
                (0, len(text))
            ]  # a text with marks like ours is hidden whole, or it could name a placeholder
        if not self._may_spell.search(text):
            return []
        return [(start, stop) for start, stop, _ in self._found(text)]

    def _found(self, text: str) -> list[tuple[int, int, int]]:
        """Where the control tokens of a text start and stop, and their ids."""
        pieces = self._plain.encode(text, add_special_tokens=False)
        both = zip(pieces.offsets, pieces.ids, strict=True)
        return [(*span, number) for span, number in both if number in self._control]

    def split(self, text: str, hidden: Hidden) -> Pieces:
        """The tokens of a rendering of the hidden messages; offsets are those in what it shows."""
        if not hidden.spelled:
            # The template writes its own beginning-of-text token: adding special tokens would double it.
            whole = self._plain.encode(text, add_special_tokens=False)
            return Pieces(whole.ids, whole.offsets)
        pieces = Pieces([], [])
        start = at = 0
        for first, stop, number in (*self._found(text), (len(text), len(text), None)):
            words = hidden.shown(text[start:first])
            between = self._literal.encode(words, add_special_tokens=False)
            pieces.ids.extend(between.ids)
            pieces.offsets.extend((at + left, at + right) for left, right in between.offsets)
            start, end = stop, at + len(words) + stop - first
            if number is not None:
                pieces.ids.append(number)
                pieces.offsets.append((at + len(words), end))
            at = end
        return pieces


def _without_limits(backend: Tokenizer) -> Tokenizer:
    splitter = copy.deepcopy(backend)
    splitter.no_truncation()
    splitter.no_padding()
    splitter.post_processor = ByteLevel(trim_offsets=False)
    return splitter
