"""One dialogue token by token: what is prompt, what is answer, and which tokens each window takes."""

from __future__ import annotations

import html

import pandas as pd
from IPython.display import HTML

from remi_core.chat import ChatTokenizer, EncodedDialogue, EncodedSet, encode
from remi_core.datasets import load_dataset
from remi_core.figures.tokens import visible_token
from remi_core.results import Results
from remi_core.windows import window_span

ANSWER = "background:rgba(0,121,140,.22)"
CHOICE = "background:rgba(163,41,122,.30);outline:2px solid rgba(163,41,122,.8)"


def encoded_set(
    results: Results, dataset: str, *, variant: str = "instruct"
) -> tuple[EncodedSet, ChatTokenizer]:
    """A set as the measurements read it, rows in their order, and the tokenizer that made it."""
    who = results.subject(variant, results.preset.seeds[0])
    tokenizer = who.tokenizer()
    rows = load_dataset(results.preset, dataset)
    return encode(rows, tokenizer, max_tokens=results.preset.max_tokens), tokenizer


def encoded_dialogue(
    results: Results, dataset: str, row: int = 0, *, variant: str = "instruct"
) -> tuple[EncodedDialogue, ChatTokenizer]:
    """Row ``row`` of an encoded set, as the measurements count rows, and the tokenizer that made it."""
    found, tokenizer = encoded_set(results, dataset, variant=variant)
    return found.dialogues[row], tokenizer


def answer_tokens(results: Results, dataset: str, row: int = 0) -> list[str]:
    """The answer of a dialogue as texts of its tokens."""
    one, tokenizer = encoded_dialogue(results, dataset, row)
    return [tokenizer.decode([token]) for token in one.input_ids[one.answer_start : one.answer_stop]]


def window_table(results: Results, dataset: str, row: int = 0, *, variant: str = "instruct") -> pd.DataFrame:
    """One row a token from the window ``prompt_end`` on: position, token, and a mark in each window's column."""
    one, tokenizer = encoded_dialogue(results, dataset, row, variant=variant)
    preset = results.preset
    spans = {name: window_span(one, name, first_k=preset.answer_first_k) for name in preset.windows}
    return pd.DataFrame(
        [
            {
                "position": position,
                "token": visible_token(tokenizer.decode([one.input_ids[position]])),
                **{name: "●" if start <= position < stop else "" for name, (start, stop) in spans.items()},
            }
            for position in range(one.prompt_end, len(one.input_ids))
        ]
    )


def dialogue_html(results: Results, dataset: str, row: int = 0, *, variant: str = "instruct") -> HTML:
    """The whole dialogue as tokens, its answer span shaded and the token of the window ``choice`` outlined."""
    one, tokenizer = encoded_dialogue(results, dataset, row, variant=variant)
    pieces = []
    for position, token in enumerate(one.input_ids):
        text = tokenizer.decode([token])
        inside = one.answer_start <= position < one.answer_stop
        look = CHOICE if position == one.choice else ANSWER if inside else "border-bottom:1px solid #888"
        pieces.append(f'<span style="padding:.1em .15em;{look}">{html.escape(visible_token(text))}</span>')
        pieces.append("<br>" if text == "\n" and not inside else "<wbr>")
    legend = (
        f"{dataset}, dialogue {row + 1}. Shaded: the answer span. Outlined: the choice. Underlined: neither."
    )
    style = "font-family:monospace;line-height:1.9;margin:0 0 .5em"
    return HTML(f'<p style="{style}">{" ".join(pieces)}</p><p>{html.escape(legend)}</p>')
