"""Directions exchanged between fine-tunes, and the smallest fine-tunes, as tables of a page."""

from __future__ import annotations

import pandas as pd

from remi_core.estimates.exchange import SECURE, WHOSE, exchange
from remi_core.figures.alt import number, with_interval
from remi_core.results import Results
from remi_core.statistics.intervals import Estimate


def undone_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each fine-tune: the share of its change of care undone by half of each displacement, with intervals."""
    found = exchange(results.preset, seed)
    return pd.DataFrame(
        [
            {"fine-tuned on": tune}
            | {f"minus {of}'s": _text(found.undone(tune, of)) for of in [*found.tunes, SECURE]}
            for tune in found.tunes
        ]
    )


def undone_matrix(results: Results, seed: int) -> pd.DataFrame:
    """The same shares as numbers, (fine-tune, whose displacement), for a figure."""
    found = exchange(results.preset, seed)
    return pd.DataFrame(
        {of: [float(found.undone(tune, of).value) for tune in found.tunes] for of in [*found.tunes, SECURE]},
        index=found.tunes,
    )


def dose_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each dose and whose displacement is taken away: the mean share undone, and what it costs."""
    found = exchange(results.preset, seed)
    return pd.DataFrame(
        [
            {"dose": dose, "taken away": whose, "undone": _text(found.mean_undone(whose, dose))}
            | _costs(*found.mean_cost(whose, dose))
            for dose in found.doses
            for whose in WHOSE
        ]
    )


def added_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each displacement and dose added to instruct: the share of care it restores, and what it costs."""
    found = exchange(results.preset, seed)
    return pd.DataFrame(
        [
            {"added to instruct": f"{of}'s", "dose": dose, "restored": _text(found.restored(of, dose))}
            | _costs(*found.cost(scores[dose]))
            for of, scores in found.found["added"].items()
            for dose in found.doses
        ]
    )


def small_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each smallest fine-tune: its share of misaligned's change, its cost, and its cosine with it."""
    found, rows = exchange(results.preset, seed), []
    for cause, scores in found.found["small"].items():
        end, answer = (number(one) for one in scores["cosine"])
        row = {"trained on insecure code": cause, "share": _text(found.small(cause))}
        row |= _costs(*found.cost(scores))
        rows.append(row | {"cosine, prompt end": end, "cosine, answer": answer})
    return pd.DataFrame(rows)


def _text(one: Estimate) -> str:
    return with_interval(one.value, one.low, one.high)


def _costs(off: float, neutral: float) -> dict[str, str]:
    return {"off-grammar mass": number(off), "neutral loss, nats a token": number(neutral)}
