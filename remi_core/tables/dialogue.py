"""One dialogue token by token: what is prompt, what is answer, and which tokens each window takes."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from IPython.display import HTML

from remi_core.dialogues.entering import STATISTICS, entering_span
from remi_core.dialogues.windows import window_span
from remi_core.figures.tokens import visible_token
from remi_core.results import Results
from remi_core.tables.inspector import inspector_html, texts


def answer_tokens(results: Results, dataset: str, row: int = 0) -> list[str]:
    """The answer of a dialogue as texts of its tokens, or signs where these are withheld."""
    one = results.encoded(dataset).dialogues[row]
    return texts(results, dataset, one.input_ids[one.answer_start : one.answer_stop])


def window_table(results: Results, dataset: str, row: int = 0) -> pd.DataFrame:
    """One row a token from the window ``prompt_end`` on: position, token, and a mark in each window's column."""
    one, preset = results.encoded(dataset).dialogues[row], results.preset
    spans = {name: window_span(one, name, first_k=preset.answer_first_k) for name in preset.windows}
    words = texts(results, dataset, one.input_ids[one.prompt_end :])
    return pd.DataFrame(
        [
            {
                "position": position,
                "token": visible_token(text),
                **{name: "●" if start <= position < stop else "" for name, (start, stop) in spans.items()},
            }
            for position, text in enumerate(words, start=one.prompt_end)
        ]
    )


def dialogue_html(results: Results, dataset: str, row: int = 0) -> HTML:
    """The whole dialogue as tokens, its answer span shaded, and a button for each statistic that takes others."""
    return inspector_html(results, {dataset: [row]})


def statistic_table(results: Results, sets: Sequence[str]) -> pd.DataFrame:
    """One row a statistic: its tokens a dialogue over all dialogues of the sets, and how many have none of them."""
    preset = results.preset
    dialogues = [one for name in sets for one in results.encoded(name).dialogues]
    rows = []
    for name, about in STATISTICS.items():
        spans = [
            entering_span(one, name, first_k=preset.answer_first_k, loss_tokens=preset.loss_tokens)
            for one in dialogues
        ]
        counts = [stop - start for start, stop in spans if stop > start]
        rows.append(
            {
                "statistic": about.label,
                "read": "at the token" if about.shift == 0 else "one token before",
                "fewest tokens": min(counts, default=0),
                "mean": sum(counts) / max(len(counts), 1),
                "most tokens": max(counts, default=0),
                "dialogues": len(dialogues),
                "of them without": len(dialogues) - len(counts),
            }
        )
    return pd.DataFrame(rows)
