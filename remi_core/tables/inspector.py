"""Dialogues drawn token by token, with the tokens that enter each statistic: a reader picks which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from IPython.display import HTML

from remi_core.dialogues.chat import EncodedDialogue
from remi_core.dialogues.entering import STATISTICS, entering_span
from remi_core.escaping import UNTYPESET, as_html
from remi_core.figures.tokens import visible_token
from remi_core.redaction import NOTE, is_withheld, shown_tokens
from remi_core.results import Results
from remi_core.tables.inspector_style import STYLE

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
    parts = [
        _dialogue(results, dataset, row, f"{name}-{dataset}-{row}")
        for dataset, rows in chosen.items()
        for row in rows
    ]
    return HTML(
        f'<section class="remi-inspector" aria-label="Token windows"><style>{STYLE}</style>'
        f"{_buttons(name)}{_picker(chosen, name) if len(parts) > 1 else ''}{''.join(parts)}</section>"
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


def _buttons(name: str) -> str:
    one = (
        f'<label><input type="radio" name="{as_html(name)}" value="{key}"'
        f"{' checked' if key == FIRST_SHOWN else ''}> {about.label}</label>"
        for key, about in STATISTICS.items()
    )
    return f"<fieldset><legend>Mark the tokens that enter</legend>{' '.join(one)}</fieldset>"


def _picker(chosen: Mapping[str, Sequence[int]], name: str) -> str:
    groups = []
    for dataset, rows in chosen.items():
        options = (
            f'<option value="{as_html(f"{name}-{dataset}-{row}")}">'
            f"{as_html(dataset)}, dialogue {row + 1}</option>"
            for row in rows
        )
        groups.append(f'<optgroup label="{as_html(dataset)}">{"".join(options)}</optgroup>')
    return f'<p class="remi-pick" hidden><label>Dialogue <select>{"".join(groups)}</select></label></p>'


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
    note = f" {NOTE}" if is_withheld(results.preset, [dataset]) else ""
    legend = as_html(f"{dataset}, dialogue {row + 1}. {_legend(one)}{note}")
    return (
        f'<div class="dialogue" id="{as_html(identifier)}"><p class="tokens {UNTYPESET}">{" ".join(pieces)}</p>'
        f'<p class="legend">{legend}</p><div aria-live="polite">{said}</div></div>'
    )


def _legend(one: EncodedDialogue) -> str:
    """What the marks mean, and how many tokens at the ends of the answer hold template too and enter nothing."""
    split = one.n_straddling + one.n_straddling_end
    parts = ["Shaded and in brackets: the tokens that enter.", "Dotted line: outside the answer span."]
    parts += ["Outlined: the choice."] if one.choice is not None else []
    parts += [f"{split} tokens hold template and answer; no window takes them."] if split else []
    parts += ["Its end was cut."] if one.truncated else []
    return " ".join(parts)
