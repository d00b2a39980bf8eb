"""Section 4.4 as tables: what the final norm, the first position and single coordinates do to the comparison."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from remi_core.errors import UsageError
from remi_core.results import Results
from remi_core.statistics.geometry import overlap_and_largest, top_components

ONE_TOKEN = ("prompt_end", "choice")
"""Windows of a single token: there the final norm of the stored mean is the norm of the activation itself."""


def after_norm(results: Results, pairs: Sequence[tuple[str, str]], *, seed: int, window: str) -> pd.DataFrame:
    """One row a pair and state: S and the largest |cos| of instruct − base, at the last block, centred.

    The states are the raw block output and the same activations after each model's own final norm, which is
    what the last entry of ``hidden_states`` holds. Source: released scripts (the second).

    Raises:
        UsageError: if the window may hold more than one token.
    """
    if window not in ONE_TOKEN:
        raise UsageError(
            f"window {window!r} averages tokens before the norm (choices: {', '.join(ONE_TOKEN)})"
        )
    from remi_core.measurements.final_norm import after_final_norm  # brings torch

    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    raw, normed = ({name: 0.0 for name in names} for _ in range(2))
    for variant, sign in (("instruct", 1), ("base", -1)):
        with results.subject(variant, seed).open() as loaded:
            for name in names:
                values = results.activations(variant, seed, name, window)[:, -1]
                raw[name] = raw[name] + sign * values.astype(np.float64)
                normed[name] = normed[name] + sign * after_final_norm(loaded, values)
    rows = []
    for pair in pairs:
        for state, sets in (("raw block output", raw), ("after the final norm", normed)):
            count = results.preset.n_components
            bases = [top_components(sets[name], count, centred=True).vectors for name in pair]
            rows.append((" × ".join(pair), state, *map(float, overlap_and_largest(*bases))))
    return pd.DataFrame(rows, columns=["pair", "state", "S", "largest cosine"])


def position_table(results: Results, dataset: str, *, seed: int, n_dialogues: int = 16) -> pd.DataFrame:
    """One row a layer of instruct: length at position 0, at the other positions, and the largest coordinate's share.

    Medians over the first ``n_dialogues`` of the set; lengths in units of the residual stream.
    """
    from remi_core.measurements.position_norms import measure_position_norms  # brings torch

    encoded = results.encoded(dataset)
    with results.subject("instruct", seed).open() as loaded:
        found = measure_position_norms(
            loaded, encoded.dialogues[:n_dialogues], batch_tokens=results.preset.batch_tokens
        )
    first, others, share = (np.median(found[name], axis=0) for name in ("first", "others", "largest_share"))
    return pd.DataFrame(
        {
            "layer": np.arange(len(first)),
            "length at position 0": first.astype(float),
            "length elsewhere": others.astype(float),
            "first over elsewhere": (first / others).astype(float),
            "largest coordinate's share": share.astype(float),
        }
    )


def position_sentence(results: Results, datasets: Sequence[str]) -> str:
    """The earliest position that any window of these sets reads."""
    earliest = min(one.prompt_end for name in datasets for one in results.encoded(name).dialogues)
    word = "so position 0 is in no window" if earliest else "so position 0 is in some windows"
    return f"The earliest token that any window reads is at position {earliest}, {word}."
