"""Dialogues on a page: tokens, spans and windows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from IPython.display import HTML

from remi_book.figures.style import visible_token
from remi_book.words import NOTE, UNTYPESET, as_html, folded, is_withheld, shown_tokens
from remi_core.errors import UsageError, nearest
from remi_core.tokens import WINDOWS, EncodedDialogue, window_span
from remi_lab.results import Results
from remi_lab.strict import read_yaml

# Which tokens of a dialogue enter each statistic of this book: the windows, and what is scored or differentiated.


@dataclass(frozen=True)
class Statistic:
    """What a token that enters gives to a statistic, and where the model is read for it."""

    label: str
    takes: str
    """One sentence, which ends in a full stop."""
    shift: int = 0
    """Where the model is read, against the token: 0 at the token itself, -1 at the one before, which predicts it."""


@dataclass(frozen=True)
class _Told:
    """What the YAML file beside this module says."""

    statistics: dict[str, Statistic]
    style: str
    rule: str
    """Of each statistic, whose name stands for KEY."""


_TOLD = read_yaml(Path(__file__).with_suffix(".yaml"), _Told)
STATISTICS: Mapping[str, Statistic] = _TOLD.statistics
"""Every statistic of one dialogue, the windows first, in their order."""


def entering_span(
    dialogue: EncodedDialogue, statistic: str, *, first_k: int, loss_tokens: int
) -> tuple[int, int]:
    """Token positions [start, stop) that enter a statistic; empty where the dialogue has no part in it.

    ``first_k`` is the preset's ``answer_first_k``, ``loss_tokens`` the length of its loss vectors.

    Raises:
        UsageError: if the statistic is none of ``STATISTICS``.
    """
    window = {"log_probability": "answer_all", "gradient": "answer_all", "next_token": "choice"}
    if (name := window.get(statistic, statistic)) in WINDOWS:
        return window_span(dialogue, name, first_k=first_k)
    if statistic == "loss_vector":
        # A shorter answer has no such vector: all are of one length.
        enough = dialogue.n_answer >= loss_tokens
        return (dialogue.answer_start, dialogue.answer_start + loss_tokens) if enough else (0, 0)
    if statistic == "gradient_as_released":
        return 1, len(dialogue.input_ids)
    raise UsageError(f"unknown statistic {statistic!r} {nearest(statistic, STATISTICS)}")


STYLE = _TOLD.style + "".join(_TOLD.rule.replace("KEY", key) for key in STATISTICS)
"""How the token inspector looks; by a rule for each statistic the button that is pressed decides, without a script."""


# Dialogues drawn token by token, with the tokens that enter each statistic: a reader picks which.

FIRST_SHOWN = "answer_all"
"""The statistic whose tokens are marked until the reader picks another."""


def inspector_html(results: Results, chosen: Mapping[str, Sequence[int]], *, group: str = "") -> HTML:
    """The dialogues of ``chosen`` (set → rows, from 0), each with its tokens, and a button for each statistic.

    No script is needed to pick a statistic. Where the book's script runs, one dialogue is shown at a time and a list
    picks it; elsewhere all stand one below the other. ``group`` tells two inspectors of one page apart.

    Raises:
        UsageError: if there is no such set.
        IndexError: if a set has no such row.
    """
    name = f"remi-inspector-{group or '-'.join(chosen)}"
    buttons = (
        f'<label><input type="radio" name="{as_html(name)}" value="{key}"'
        f"{' checked' if key == FIRST_SHOWN else ''}> {about.label}</label>"
        for key, about in STATISTICS.items()
    )
    dialogues, groups = [], []
    for dataset, rows in chosen.items():
        dialogues += [_dialogue(results, dataset, row, f"{name}-{dataset}-{row}") for row in rows]
        options = (
            f'<option value="{as_html(f"{name}-{dataset}-{row}")}">'
            f"{as_html(dataset)}, dialogue {row + 1}</option>"
            for row in rows
        )
        groups.append(f'<optgroup label="{as_html(dataset)}">{"".join(options)}</optgroup>')
    picker = f'<p class="remi-pick" hidden><label>Dialogue <select>{"".join(groups)}</select></label></p>'
    return HTML(
        f'<section class="remi-inspector" aria-label="Token windows"><style>{STYLE}</style>'
        f"<fieldset><legend>Mark the tokens that enter</legend>{' '.join(buttons)}</fieldset>"
        f"{picker if len(dialogues) > 1 else ''}{''.join(dialogues)}</section>"
    )


def entering_sentence(results: Results, dataset: str, one: EncodedDialogue, statistic: str) -> str:
    """Which tokens of a dialogue enter a statistic, in words: how many, at which positions, and what they read."""
    start, stop = _span(results, one, statistic)
    about = STATISTICS[statistic]
    if start == stop:
        return f"{about.label}: no token of this dialogue enters."
    words = [visible_token(text) for text in texts(results, dataset, one.input_ids[start:stop])]
    # Positions are counted from 0, as everywhere in the code.
    places = f"position {start}" if stop == start + 1 else f"positions {start} to {stop - 1}"
    verb = "token enters" if stop == start + 1 else "tokens enter"
    shown = " ".join(words) if len(words) <= 12 else f"{' '.join(words[:6])} … {' '.join(words[-5:])}"
    return f"{about.label}: {stop - start} of {len(one.input_ids)} {verb}, {places}: {shown} — {about.takes}"


def texts(results: Results, dataset: str, tokens: Iterable[int]) -> list[str]:
    """Tokens of a set as texts, or signs in their place where these are withheld."""
    words = results.vocabulary
    return shown_tokens(results.preset, [dataset], [words.text(token) for token in tokens])


def _span(results: Results, one: EncodedDialogue, statistic: str) -> tuple[int, int]:
    preset = results.preset
    return entering_span(one, statistic, first_k=preset.answer_first_k, loss_tokens=preset.loss_tokens)


def _dialogue(results: Results, dataset: str, row: int, identifier: str) -> str:
    one = results.encoded(dataset).dialogues[row]
    spans = {key: _span(results, one, key) for key in STATISTICS}
    pieces = []
    for position, text in enumerate(texts(results, dataset, one.input_ids)):
        entered = [f"in-{key}" for key, (start, stop) in spans.items() if start <= position < stop]
        own = ["choice"] if position == one.choice else []
        inside = one.answer_start <= position < one.answer_stop
        classes = " ".join([*entered, *own, "answer" if inside else "around"])
        pieces.append(f'<span class="{classes}">{as_html(visible_token(text))}</span>')
        pieces.append("<br>" if text == "\n" and not inside else "<wbr>")
    said = "".join(
        f'<p class="said for-{key}">{as_html(entering_sentence(results, dataset, one, key))}</p>'
        for key in spans
    )
    # What the marks mean, and how many tokens at the ends of the answer hold template too and enter nothing.
    legend = [f"{dataset}, dialogue {row + 1}.", "Shaded and in brackets: the tokens that enter."]
    legend += ["Dotted line: outside the answer span."]
    legend += ["Outlined: the choice."] if one.choice is not None else []
    split = one.n_straddling + one.n_straddling_end
    legend += [f"{split} tokens hold template and answer; no window takes them."] if split else []
    legend += ["Its end was cut."] if one.truncated else []
    legend += [NOTE] if is_withheld(results.preset, [dataset]) else []
    return (
        f'<div class="dialogue" id="{as_html(identifier)}"><p class="tokens {UNTYPESET}">{" ".join(pieces)}</p>'
        f'<p class="legend">{as_html(" ".join(legend))}</p><div aria-live="polite">{said}</div></div>'
    )


# One dialogue token by token: what is prompt, what is answer, and which tokens each window takes.


def answer_tokens(results: Results, dataset: str, row: int = 0) -> list[str]:
    """The answer of a dialogue as texts of its tokens, or signs where these are withheld."""
    one = results.encoded(dataset).dialogues[row]
    return texts(results, dataset, one.input_ids[one.answer_start : one.answer_stop])


def opening_sentence(results: Results, first: str, second: str, row: int = 0) -> str:
    """How many tokens two replies to one prompt share from their first on, and what follows from that."""
    ends = (results.encoded(name).dialogues[row] for name in (first, second))
    one, two = (each.input_ids[each.answer_start : each.answer_stop] for each in ends)
    shared = next(
        (at for at, ids in enumerate(zip(one, two, strict=False)) if len(set(ids)) > 1),
        min(len(one), len(two)),
    )
    if not shared:
        return "The two replies part at their first token."
    opening = "The first token is" if shared == 1 else f"The first {shared} tokens are"
    return f"{opening} the same in both replies: no model's opinion of that is one about harm."


def window_table(results: Results, dataset: str, row: int = 0) -> pd.DataFrame:
    """One row a token from the window ``prompt_end`` on: position, token, and a mark in each window's column."""
    one, preset = results.encoded(dataset).dialogues[row], results.preset
    spans = {name: window_span(one, name, first_k=preset.answer_first_k) for name in preset.windows}
    words = texts(results, dataset, one.input_ids[one.prompt_end :])
    return pd.DataFrame(
        {"position": position, "token": visible_token(text)}
        | {name: "●" if start <= position < stop else "" for name, (start, stop) in spans.items()}
        for position, text in enumerate(words, start=one.prompt_end)
    )


def dialogue_html(results: Results, dataset: str, row: int = 0, *, fold: str = "") -> HTML:
    """The whole dialogue as tokens, its answer span shaded, and a button for each statistic that takes others.

    With ``fold`` it opens when that summary is clicked.
    """
    page = inspector_html(results, {dataset: [row]})
    return HTML(folded(fold, page.data)) if fold else page


def statistic_table(results: Results, sets: Sequence[str]) -> pd.DataFrame:
    """One row a statistic: its tokens a dialogue over all dialogues of the sets, and how many have none of them."""
    dialogues = [dialogue for name in sets for dialogue in results.encoded(name).dialogues]
    rows = []
    for name, about in STATISTICS.items():
        spans = (_span(results, dialogue, name) for dialogue in dialogues)
        counts = [stop - start for start, stop in spans if stop > start]
        row = {"statistic": about.label, "read": "one token before" if about.shift else "at the token"}
        row |= {"fewest tokens": min(counts, default=0), "mean": sum(counts) / max(len(counts), 1)}
        row |= {"most tokens": max(counts, default=0), "dialogues": len(dialogues)}
        rows.append(row | {"of them without": len(dialogues) - len(counts)})
    return pd.DataFrame(rows)
