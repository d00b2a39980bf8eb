"""Directions exchanged between fine-tunes, and the smallest fine-tunes, as tables of a page."""

from __future__ import annotations

import pandas as pd

from remi_core.estimates.exchange import SECURE, exchange
from remi_core.figures.alt import number, with_interval
from remi_core.presets import Preset
from remi_core.statistics.intervals import Estimate


def undone_table(preset: Preset, *, seed: int) -> pd.DataFrame:
    """A row for each fine-tune: the share of its change of care undone by the displacement of each, with intervals."""
    found = exchange(preset, seed)
    givers = [*found.tunes, SECURE]
    return pd.DataFrame(
        [
            {"fine-tuned on": tune} | {f"minus {of}'s": _text(found.undone(tune, of)) for of in givers}
            for tune in found.tunes
        ]
    )


def undone_by_seed(preset: Preset) -> pd.DataFrame:
    """A row for each seed: the mean share undone by a fine-tune's own displacement and by those of the others."""
    rows = []
    for seed in preset.seeds:
        found = exchange(preset, seed)
        own, others = (found.mean_undone(own=one) for one in (True, False))
        rows.append({"seed": seed, "its own": _text(own), "another's": _text(others)})
    return pd.DataFrame(rows)


def added_table(preset: Preset, *, seed: int) -> pd.DataFrame:
    """A row for each displacement added to instruct: the share of care it restores, and what it costs."""
    found = exchange(preset, seed)
    scores = found.found["added"]
    return pd.DataFrame(
        [
            {"added to instruct": f"{of}'s displacement", "restored": _text(found.restored(of))}
            | _costs(*found.cost(scores[of]))
            for of in scores
        ]
    )


def small_table(preset: Preset) -> pd.DataFrame:
    """A row for each smallest fine-tune and seed: share of misaligned's change, cost, and cosine with it."""
    rows = []
    for seed in preset.seeds:
        found = exchange(preset, seed)
        for cause, scores in found.found["small"].items():
            end, answer = (number(one) for one in scores["cosine"])
            rows.append(
                {"trained on insecure code": cause, "seed": seed, "share": _text(found.small(cause))}
                | _costs(*found.cost(scores))
                | {"cosine, prompt end": end, "cosine, answer": answer}
            )
    return pd.DataFrame(rows)


def _text(one: Estimate) -> str:
    return with_interval(one.value, one.low, one.high)


def _costs(off: float, neutral: float) -> dict[str, str]:
    return {"off-grammar mass": number(off), "neutral loss, nats a token": number(neutral)}
