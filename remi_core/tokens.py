"""Dialogues as tokens: rendering, the answer span, control tokens and windows."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Protocol, runtime_checkable
from unittest.mock import patch

from tokenizers import Tokenizer
from tokenizers.processors import ByteLevel

from remi_core.dialogues import Dialogue, Message
from remi_core.errors import UsageError, nearest

# Splitting rendered dialogues into tokens: only the template writes control tokens, a message's text never does.
# A tokenizer reads ``<|im_end|>`` as the end of a turn wherever it stands. Text from outside could so end its turn and
# open another. What a message says is therefore hidden from that rule: the template renders a placeholder in its place,
# the tokens that the rule then finds are the template's own, and all between them is split as ordinary words.

# Private-use characters: no template holds them, and none strips them.
SENTINEL = "\ue000remi\ue001"
"""Stands for an answer where a rendering shows what the template puts around it."""
_THOUGHT = SENTINEL[::-1]
"""Stands there for what the assistant thought before it."""
_OPEN, _CLOSE = "\ue002", "\ue003"
_HIDDEN = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")
_OURS = re.compile("[\ue000-\ue003]")


@dataclass(frozen=True)
class Hidden:
    """Texts in which placeholders stand for the control tokens that they spell."""

    texts: tuple[str, ...]
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

    Raises:
        UsageError: if the tokenizer has no chat template, or reports no offsets.
    """

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        name, backend = repr(tokenizer.name_or_path), getattr(tokenizer, "backend_tokenizer", None)
        if tokenizer.chat_template is None:
            raise UsageError(f"the tokenizer {name} has no chat template; use the instruct model's")
        if backend is None:
            raise UsageError(f"the tokenizer {name} reports no offsets; a fast one is needed")
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

    def hide(self, texts: Sequence[str]) -> Hidden:
        """The texts with a placeholder for each control token that one spells, as the tokenizer would read it."""
        spelled: list[str] = []
        hidden = []
        for text in texts:
            spans = self._control_tokens(text) if self._may_spell.search(text) else []
            # A text with marks like ours is hidden whole, or it could name a placeholder.
            spans = [(0, len(text), -1)] if _OURS.search(text) else spans
            for start, stop, _ in reversed(spans):
                spelled.append(text[start:stop])
                text = f"{text[:start]}{_OPEN}{len(spelled) - 1}{_CLOSE}{text[stop:]}"
            hidden.append(text)
        return Hidden(tuple(hidden), tuple(spelled))

    def _control_tokens(self, text: str) -> list[tuple[int, int, int]]:
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
        start = place = 0
        for first, stop, number in (*self._control_tokens(text), (len(text), len(text), None)):
            words = hidden.shown(text[start:first])
            between = self._literal.encode(words, add_special_tokens=False)
            pieces.ids.extend(between.ids)
            pieces.offsets.extend((place + left, place + right) for left, right in between.offsets)
            start, place = stop, place + len(words)
            if number is not None:
                pieces.ids.append(number)
                pieces.offsets.append((place, place + stop - first))
                place += stop - first
        return pieces


def _without_limits(backend: Tokenizer) -> Tokenizer:
    splitter = copy.deepcopy(backend)
    splitter.no_truncation()
    splitter.no_padding()
    splitter.post_processor = ByteLevel(trim_offsets=False)
    return splitter


# From dialogues to token ids with one answer span: the only place where a chat template is rendered.

_LONGEST_REASON = 200


@runtime_checkable
class ChatTokenizer(Protocol):
    """What is needed of a tokenizer of transformers, which takes seconds to import; all of its tokenizers fit."""

    chat_template: str | None
    name_or_path: str

    def apply_chat_template(self, conversation: list[dict[str, object]], *, tokenize: bool) -> str:
        """The dialogue as text."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens."""

    def get_vocab(self) -> dict[str, int]:
        """Token as the tokenizer spells it → id."""


@dataclass(frozen=True, kw_only=True)
class EncodedDialogue:
    """One dialogue as token ids, with the span of its answer. All positions index ``input_ids``."""

    identifier: str
    input_ids: tuple[int, ...]
    answer_start: int
    """First token wholly inside the last assistant turn's content."""
    answer_stop: int
    """One past the last such token; end-of-turn and newline are outside."""
    choice: int | None = None
    """Position of the first answer token that differs from the alternative's answer."""
    alternative_token: int | None = None
    """The alternative's token at ``choice``."""
    n_straddling: int = 0
    """Tokens that hold the end of the template and the start of the answer: outside the answer."""
    n_straddling_end: int = 0
    """The same at the end of the answer."""
    truncated: bool = False
    """Whether part of the answer was cut."""
    notes: tuple[str, ...] = ()
    """What the template added before the answer or left out, and whether the assistant thought."""

    @property
    def prompt_end(self) -> int:
        """Position of the last token that is wholly template, before the answer."""
        return self.answer_start - 1 - self.n_straddling

    @property
    def n_answer(self) -> int:
        """Number of answer tokens."""
        return self.answer_stop - self.answer_start


@dataclass(frozen=True)
class EncodedSet:
    """What could be encoded, and what could not and why."""

    dialogues: tuple[EncodedDialogue, ...]
    sources: tuple[Dialogue, ...]
    """The dialogue behind each encoded one, in the same order."""
    dropped: dict[str, tuple[str, ...]]
    """Reason → identifiers."""


class _UnusableError(UsageError):
    """Why one dialogue cannot be encoded; becomes a key of ``EncodedSet.dropped``."""


def encode(
    dialogues: Sequence[Dialogue], tokenizer: ChatTokenizer, *, max_tokens: int, thoughts: bool = False
) -> EncodedSet:
    """The dialogues as token ids with answer spans.

    Each dialogue is rendered whole by the chat template and tokenised once. The answer is the content of the
    last assistant turn as the template renders it (some strip it). A dialogue longer than ``max_tokens``
    loses its tail. What the assistant thought is part of its answer with ``thoughts``, else it stands before it.
    Dropped, by reason: the template refuses the dialogue or rewrites a turn; no answer token is left.
    Example: ``encode(read_jsonl("replies.jsonl"), tokenizer, max_tokens=1024)``

    Raises:
        UsageError: if nothing usable remains, the tokenizer has no chat template or no offsets, or
            ``max_tokens`` is below 2.
    """
    if max_tokens < 2:
        raise UsageError(
            f"max_tokens is {max_tokens}; at least 2 are needed, a prompt token and an answer token"
        )
    splitter = Splitter(tokenizer)
    kept: list[EncodedDialogue] = []
    sources: list[Dialogue] = []
    dropped: dict[str, list[str]] = {}
    for dialogue in dialogues:
        try:
            rendered = partial(render, tokenizer=tokenizer, splitter=splitter, thoughts=thoughts)
            kept.append(_encode_one(dialogue, rendered, max_tokens=max_tokens))
        except _UnusableError as reason:
            dropped.setdefault(str(reason), []).append(dialogue.identifier)
        else:
            sources.append(dialogue)
    if not kept:
        reasons = "; ".join(f"{reason}: {len(names)}" for reason, names in dropped.items())
        raise UsageError(f"none of {len(dialogues)} dialogues can be used ({reasons or 'no dialogue given'})")
    frozen = {reason: tuple(identifiers) for reason, identifiers in dropped.items()}
    return EncodedSet(tuple(kept), tuple(sources), frozen)


EMPTY = "the template writes an empty think block before the answer"
THOUGHT = "what the assistant thought stands before the answer"
INSIDE = "the answer begins with what the assistant thought"
UNTHOUGHT = "the template leaves out what the assistant thought"


def render(
    messages: Sequence[Message],
    tokenizer: ChatTokenizer,
    splitter: Splitter | None = None,
    *,
    thoughts: bool = False,
) -> tuple[str, int, int, Pieces, tuple[str, ...]]:
    """The rendered dialogue, where in it the answer starts and stops (characters), its tokens, and notes.

    Nothing is cut. ``splitter`` is that of the tokenizer, for who renders many; ``thoughts`` as ``encode``.

    Raises:
        UsageError: if the template refuses the dialogue or rewrites a turn.
    """
    splitter = splitter or Splitter(tokenizer)
    hidden = splitter.hide([text or "" for one in messages for text in (*one.parts, one.more)])
    said = list(zip(*[iter(hidden.texts)] * 3, strict=True))
    thought, reply, more = said[-1]
    # A second rendering, with a sentinel for the answer, shows what the template puts around it. Searching
    # for the answer or for the word "assistant" would find it in the user's text or in an earlier turn.
    marked = [*said[:-1], (thought and _THOUGHT, SENTINEL, more)]
    try:
        shown, turns = ([*map(partial(_turn, tokenizer), messages, each)] for each in (marked, said))
        around, text = (_filled(tokenizer, some, RECORDED_DATE) for some in (shown, turns))
    except Exception as error:  # a template is a program: it may raise what it will
        reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
        raise _UnusableError(f"the chat template refuses it: {reason}") from None
    before, sentinel, after = around.partition(SENTINEL)
    opening, thinks, between = before.partition(_THOUGHT)
    before = f"{opening}{thought}{between}" if thinks else before
    answer = text[len(before) : len(text) - len(after)]
    if (
        not sentinel
        or not (text.startswith(before) and text.endswith(after) and len(before) + len(after) <= len(text))
        or answer.strip() != reply.strip()
    ):
        raise _UnusableError("the chat template rewrites the answer or leaves it out")
    for turn, (_, words, _) in zip(turns, said, strict=True):
        for word in (words.strip(), *(call["function"]["name"] for call in turn.get("tool_calls", ()))):
            if word not in text and json.dumps(word, ensure_ascii=False)[1:-1] not in text:
                raise _UnusableError(f"the chat template rewrites the {turn['role']}'s turn or leaves it out")
    empty = messages[-1].parts[0] is None and re.search(r"<think>\s*</think>\s*\Z", before)
    lost = any(each not in text for each, _, _ in said)
    notes = {EMPTY: empty, INSIDE if thoughts else THOUGHT: thinks, UNTHOUGHT: lost}
    first, last = len(opening) if thoughts and thinks else len(before), len(text) - len(after)
    before, answer, after = map(hidden.shown, (text[:first], text[first:last], text[last:]))
    start, stop = len(before), len(before) + len(answer)
    return before + answer + after, start, stop, splitter.split(text, hidden), tuple(filter(notes.get, notes))


def _turn(tokenizer: ChatTokenizer, message: Message, said: tuple[str, str, str]) -> dict[str, object]:
    """A message as a template takes it, with these thoughts, words and further keys."""
    thought, words, more = said
    turn = {"role": message.role, "content": words, **json.loads(more or "{}")}
    if message.parts[0] is None:
        return turn
    if "reasoning_content" in str(tokenizer.chat_template):
        return turn | {"reasoning_content": thought}
    return turn | {"content": f"<think>\n{thought}\n</think>\n\n{words}"}


RECORDED_DATE = datetime(2025, 7, 3)
"""Now, for a template that writes the date: tomorrow the same dialogue would be other tokens."""


def _filled(tokenizer: ChatTokenizer, turns: list[dict[str, object]], now: datetime) -> str:
    """The turns as the template renders them at that time."""
    from transformers.utils import chat_template_utils

    clock = type("Clock", (datetime,), {"now": lambda *_: now})
    # Templates have no other clock, and what is passed to them must be plain values.
    with patch.object(chat_template_utils, "datetime", clock):
        return tokenizer.apply_chat_template(turns, tokenize=False)


def writes_date(tokenizer: ChatTokenizer) -> bool:
    """Whether the chat template writes today's date into a dialogue, where ``encode`` has ``RECORDED_DATE``."""
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    later = RECORDED_DATE + timedelta(days=400)
    return _filled(tokenizer, turns, RECORDED_DATE) != _filled(tokenizer, turns, later)


def _whole(dialogue: Dialogue, answer: str, rendered: Callable) -> EncodedDialogue:
    """The dialogue with that answer as tokens, nothing cut."""
    messages = (*dialogue.messages[:-1], replace(dialogue.messages[-1], content=answer))
    _, first, last, pieces, notes = rendered(messages)
    inside = [index for index, (start, stop) in enumerate(pieces.offsets) if first <= start < stop <= last]
    if not inside:
        raise _UnusableError("no token lies wholly inside the answer")
    straddling, at_end = (
        sum(start < edge < stop for start, stop in pieces.offsets) for edge in (first, last)
    )
    if inside[0] - straddling < 1:
        raise _UnusableError("no token stands before the answer, so its first token has no prediction")
    return EncodedDialogue(
        identifier=dialogue.identifier,
        input_ids=tuple(pieces.ids),
        answer_start=inside[0],
        answer_stop=inside[-1] + 1,
        n_straddling=straddling,
        n_straddling_end=at_end,
        notes=notes,
    )


def _encode_one(dialogue: Dialogue, rendered: Callable, *, max_tokens: int) -> EncodedDialogue:
    own = _whole(dialogue, dialogue.messages[-1].content, rendered)
    stop = min(own.answer_stop, max_tokens)
    if stop <= own.answer_start:
        raise _UnusableError(f"no answer token within max_tokens={max_tokens}")
    cut = replace(
        own, input_ids=own.input_ids[:max_tokens], answer_stop=stop, truncated=stop < own.answer_stop
    )
    if dialogue.alternative is None:
        return cut
    other = _whole(dialogue, dialogue.alternative, rendered)
    tokens = zip(own.input_ids[:stop], other.input_ids[: other.answer_stop], strict=False)
    # The first position where the two renderings differ counts if it is an answer token of both.
    first = next((index for index, (token, alternative) in enumerate(tokens) if token != alternative), -1)
    if first < max(own.answer_start, other.answer_start):
        return cut
    return replace(cut, choice=first, alternative_token=other.input_ids[first])


# Named windows of a dialogue: the tokens over which activations are averaged.

WINDOWS = ("prompt_end", "answer_first_k", "answer_all", "choice")


def window_span(dialogue: EncodedDialogue, window: str, *, first_k: int) -> tuple[int, int]:
    """Token positions [start, stop) of a window; empty where the dialogue has no such token.

    Raises:
        UsageError: if the window is none of ``WINDOWS``.
    """
    if window == "prompt_end":
        return dialogue.prompt_end, dialogue.prompt_end + 1
    if window == "answer_first_k":
        return dialogue.answer_start, min(dialogue.answer_start + first_k, dialogue.answer_stop)
    if window == "answer_all":
        return dialogue.answer_start, dialogue.answer_stop
    if window == "choice":
        return (0, 0) if dialogue.choice is None else (dialogue.choice, dialogue.choice + 1)
    raise UsageError(f"unknown window {window!r} {nearest(window, WINDOWS)}")
