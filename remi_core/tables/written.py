"""Section 4.3 as tables: the tokens that the direction from base to instruct writes, by layer and by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from remi_core.dialogues.chat import ChatTokenizer
from remi_core.estimates.direction import stacked
from remi_core.figures.tokens import visible_token
from remi_core.redaction import shown_tokens
from remi_core.results import Results
from remi_core.tables.direction import Reading


@dataclass(frozen=True, eq=False)
class Written:
    """By layer, texts of the tokens that the direction raises and lowers most, and the changes of their logits."""

    raised: list[list[str]]
    raised_change: Float[np.ndarray, "layer rank"]
    lowered: list[list[str]]
    lowered_change: Float[np.ndarray, "layer rank"]


def written(results: Results, reading: Reading, *, seed: int) -> Written:
    """What the unit direction from base's mean to instruct's writes at instruct's mean, with instruct's unembedding."""
    from remi_core.measurements.written_tokens import written_tokens  # brings torch

    base, instruct = (
        stacked(results, name, seed, reading.datasets, reading.window).mean(axis=0, dtype=np.float64)
        for name in ("base", "instruct")
    )
    with results.subject("instruct", seed).open() as loaded:
        found = written_tokens(loaded, instruct - base, instruct, top_k=results.preset.top_k)
        raised, lowered = (
            [_texts(results, reading, loaded.tokenizer, layer) for layer in ids.tolist()]
            for ids in (found.raised, found.lowered)
        )
    return Written(raised, found.raised_change, lowered, found.lowered_change)


def _texts(results: Results, reading: Reading, tokenizer: ChatTokenizer, layer: Sequence[int]) -> list[str]:
    """The tokens that a direction of these sets writes, or signs where their words are withheld."""
    return shown_tokens(results.preset, reading.datasets, [_text(tokenizer, token) for token in layer])


def _text(tokenizer: ChatTokenizer, token: int) -> str:
    """The token's text, or its number where it is only part of a character."""
    text = tokenizer.decode([token])
    return f"‹{token}›" if "\N{REPLACEMENT CHARACTER}" in text else text


def written_by_layer(found: Written, *, n_tokens: int = 5) -> pd.DataFrame:
    """One row a layer: the tokens raised and lowered most, strongest first, blanks made visible."""
    rows = [
        (layer, _listed(up[:n_tokens]), _listed(down[:n_tokens]))
        for layer, (up, down) in enumerate(zip(found.raised, found.lowered, strict=True))
    ]
    return pd.DataFrame(rows, columns=["layer", "raises (toward instruct)", "lowers (toward base)"])


def written_by_seed(
    results: Results, reading: Reading, *, layer: int = -1, n_tokens: int = 5
) -> pd.DataFrame:
    """One row a seed: the same at one layer."""
    rows = []
    for seed in results.preset.seeds:
        found = written(results, reading, seed=seed)
        rows.append((seed, _listed(found.raised[layer][:n_tokens]), _listed(found.lowered[layer][:n_tokens])))
    return pd.DataFrame(rows, columns=["seed", "raises (toward instruct)", "lowers (toward base)"])


def _listed(tokens: list[str]) -> str:
    return "  ".join(visible_token(token) for token in tokens)
