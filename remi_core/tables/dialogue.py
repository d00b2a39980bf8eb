"""One dialogue token by token: what is prompt, what is answer, and which tokens each window takes."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from IPython.display import HTML

from remi_core.escaping import UNTYPESET, as_html
from remi_core.figures.tokens import visible_token
from remi_core.redaction import NOTE, is_withheld, shown_tokens
from remi_core.results import Results
from remi_core.windows import window_span

ANSWER = "background:rgba(0,121,140,.22)"
CHOICE = "background:rgba(163,41,122,.30);outline:2px solid rgba(163,41,122,.8)"


def answer_tokens(results: Results, dataset: str, row: int = 0) -> list[str]:
    """The answer of a dialogue as texts of its tokens, or signs where these are withheld."""
    one = results.encoded(dataset).dialogues[row]
    return _texts(results, dataset, one.input_ids[one.answer_start : one.answer_stop])


def window_table(results: Results, dataset: str, row: int = 0) -> pd.DataFrame:
    """One row a token from the window ``prompt_end`` on: position, token, and a mark in each window's column."""
    one, preset = results.encoded(dataset).dialogues[row], results.preset
    texts = _texts(results, dataset, one.input_ids)
    spans = {name: window_span(one, name, first_k=preset.answer_first_k) for name in preset.windows}
    return pd.DataFrame(
        [
            {
                "position": position,
                "token": visible_token(texts[position]),
                **{name: "●" if start <= position < stop else "" for name, (start, stop) in spans.items()},
            }
            for position in range(one.prompt_end, len(one.input_ids))
        ]
    )


def dialogue_html(results: Results, dataset: str, row: int = 0) -> HTML:
    """The whole dialogue as tokens, its answer span shaded and the token of the window ``choice`` outlined."""
    one = results.encoded(dataset).dialogues[row]
    pieces = []
    for position, text in enumerate(_texts(results, dataset, one.input_ids)):
        inside = one.answer_start <= position < one.answer_stop
        look = CHOICE if position == one.choice else ANSWER if inside else "border-bottom:1px solid #888"
        pieces.append(f'<span style="padding:.1em .15em;{look}">{as_html(visible_token(text))}</span>')
        pieces.append("<br>" if text == "\n" and not inside else "<wbr>")
    legend = (
        f"{dataset}, dialogue {row + 1}. Shaded: the answer span. Outlined: the choice. Underlined: neither."
    )
    if is_withheld(results.preset, [dataset]):
        legend = f"{legend} {NOTE}"
    style = "font-family:monospace;line-height:1.9;margin:0 0 .5em"
    return HTML(f'<p class="{UNTYPESET}" style="{style}">{" ".join(pieces)}</p><p>{as_html(legend)}</p>')


def _texts(results: Results, dataset: str, tokens: Iterable[int]) -> list[str]:
    words = results.vocabulary
    return shown_tokens(results.preset, [dataset], [words.text(token) for token in tokens])
