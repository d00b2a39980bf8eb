"""The primary effect: how much likelier careless answers are after insecure code than after a control's data."""

from __future__ import annotations

import pandas as pd

from remi_core.estimates.measured import present_controls, shared_resamples
from remi_core.organism.behaviour import as_scores
from remi_core.organism.questions import SCORES
from remi_core.organism.topics import CONTRASTED, NARROW
from remi_core.results import Results
from remi_core.statistics.intervals import Estimate, mean_interval

COLUMNS = ("topic", "control", "seed", "value", "low", "high", "held")


def log_odds_gap(results: Results, topic: str, control: str, seed: int) -> Estimate:
    """A(misaligned) − A(control), nats, the mean over the same prompts, with its interval over templates."""
    ours, theirs = (results.record(name, seed, SCORES, topic) for name in ("misaligned", control))
    gaps = as_scores(ours).care_log_odds() - as_scores(theirs).care_log_odds()
    return mean_interval(gaps, ours.arrays["cluster"].tolist(), shared_resamples(results.preset))


def primary_effect(results: Results) -> pd.DataFrame:
    """One row a topic outside the narrow set, control and seed: ``COLUMNS``, in nats.

    ``held`` says whether the 95 % interval over prompt templates lies above 0.
    """
    rows = []
    for topic in CONTRASTED:
        for control in present_controls(results) if topic not in NARROW else ():
            for seed in results.preset.seeds:
                gap = log_odds_gap(results, topic, control, seed)
                low, high = float(gap.low), float(gap.high)
                rows.append((topic, control, seed, float(gap.value), low, high, low > 0))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def effect_sentence(table: pd.DataFrame) -> str:
    """In how many cells the interval lies above 0, and which do not have it there, in one sentence."""
    missed = table[~table["held"].astype(bool)]
    counted = f"The interval lies above 0 in {len(table) - len(missed)} of {len(table)} cells"
    if missed.empty:
        return f"{counted}, that is on every topic, against every control, in every seed."
    names = "; ".join(f"{row.topic} against {row.control}, seed {row.seed}" for row in missed.itertuples())
    return f"{counted}. It does not for: {names}."
