"""One dialogue token by token: what is prompt, what is answer, and which tokens each window takes."""

from __future__ import annotations

import pandas as pd
from IPython.display import HTML

from remi_core.figures.tokens import visible_token
from remi_core.results import Results
from remi_core.tables.inspector import inspector_html
from remi_core.windows import window_span


def answer_tokens(results: Results, dataset: str, row: int = 0) -> list[str]:
    """The answer of a dialogue as texts of its tokens."""
    one, words = results.encoded(dataset).dialogues[row], results.vocabulary
    return [words.text(token) for token in one.input_ids[one.answer_start : one.answer_stop]]


def window_table(results: Results, dataset: str, row: int = 0) -> pd.DataFrame:
    """One row a token from the window ``prompt_end`` on: position, token, and a mark in each window's column."""
    one, words = results.encoded(dataset).dialogues[row], results.vocabulary
    preset = results.preset
    spans = {name: window_span(one, name, first_k=preset.answer_first_k) for name in preset.windows}
    return pd.DataFrame(
        [
            {
                "position": position,
                "token": visible_token(words.text(one.input_ids[position])),
                **{name: "●" if start <= position < stop else "" for name, (start, stop) in spans.items()},
            }
            for position in range(one.prompt_end, len(one.input_ids))
        ]
    )


def dialogue_html(results: Results, dataset: str, row: int = 0) -> HTML:
    """The whole dialogue as tokens, its answer span shaded, and a button for each statistic that takes others."""
    return inspector_html(results, {dataset: [row]})
