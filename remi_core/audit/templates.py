"""Chat templates of the audit: a header for each model, as the released scripts have it, and plain text."""

from __future__ import annotations

import copy

from remi_core.dialogues.chat import ChatTokenizer

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
