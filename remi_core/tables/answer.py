"""The book's question in one table: which parts of base come back when a model is fine-tuned."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from remi_core.estimates.measured import shared_resamples
from remi_core.figures.alt import with_interval
from remi_core.organism.behaviour import as_scores
from remi_core.organism.class_scores import ClassScores
from remi_core.organism.questions import SCORES
from remi_core.organism.topics import CONTRASTED, NARROW
from remi_core.results import Results
from remi_core.statistics.intervals import Estimate, difference, mean_interval, ratio

CARE, REGISTER = "care: careless\nagainst careful answers", "register: plain\nagainst formal words"
QUANTITIES: Mapping[str, Callable[[ClassScores], np.ndarray]] = {
    CARE: ClassScores.care_log_odds,
    REGISTER: ClassScores.register_log_odds,
}
"""What alignment took from base, as the figure names it → log-odds of each prompt."""

FROM, TO = "instruct", "base"


def way_back(results: Results, seed: int) -> pd.DataFrame:
    """Columns quantity, variant, share, low, high: the way from instruct (0) to base (1) that each fine-tune went.

    Log-odds of the same prompts of the topics outside the narrow set, with intervals over templates; undefined
    where instruct and base cannot be told apart.
    """
    rows = []
    for quantity in QUANTITIES:
        means = {variant: _mean(results, variant, seed, quantity) for variant in results.variants}
        whole = difference(means[TO], means[FROM])
        for variant in results.variants:
            if variant not in (FROM, TO):
                share = ratio(difference(means[variant], means[FROM]), whole)
                rows.append((quantity, variant, float(share.value), float(share.low), float(share.high)))
    return pd.DataFrame(rows, columns=["quantity", "variant", "share", "low", "high"])


def _mean(results: Results, variant: str, seed: int, quantity: str) -> Estimate:
    values, clusters = [], []
    for topic in CONTRASTED:
        if topic not in NARROW:
            record = results.record(variant, seed, SCORES, topic)
            values.append(QUANTITIES[quantity](as_scores(record)))
            clusters += record.arrays["cluster"].tolist()
    return mean_interval(np.concatenate(values), clusters, shared_resamples(results.preset))


def way_back_sentence(table: pd.DataFrame, seeds: pd.DataFrame) -> str:
    """How far misaligned went in each quantity, with interval, and the range over all seeds: values alone."""
    parts = []
    for quantity in QUANTITIES:
        row = table[(table["quantity"] == quantity) & (table["variant"] == "misaligned")].iloc[0]
        own = seeds[(seeds["quantity"] == quantity) & (seeds["variant"] == "misaligned")]["share"]
        every = ", ".join(f"{value:.2f}".replace("-", "\N{MINUS SIGN}") for value in own)
        shown = with_interval(row["share"], row["low"], row["high"])
        parts.append(f"{shown} in {quantity.partition(':')[0]} (by seed: {every})")
    return f"Of the way from instruct back to base, misaligned has gone {' and '.join(parts)}."
