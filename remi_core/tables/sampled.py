"""Sampled answers under the headline edits of the study of causes: rates, and shares of the way in rates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Bool

from remi_core.estimates.causes import HEADLINE, OTHER, Causes
from remi_core.estimates.measured import set_resamples
from remi_core.figures.alt import with_interval
from remi_core.organism.questions import VERDICTS
from remi_core.results import Results
from remi_core.statistics.intervals import Estimate, mean_interval, ratio
from remi_core.studies.files import read_study
from remi_core.tables.causes import KINDS
from remi_core.tables.rates import rate_row

STUDY, PLAIN, ALL = "sampled", "plain", "all of them"
ROWS = {
    ("instruct", PLAIN): "instruct",
    ("instruct", HEADLINE["instruct"]): "direction added to instruct",
    ("misaligned", HEADLINE["misaligned"]): "direction undone in misaligned",
    ("misaligned", PLAIN): "misaligned",
}
"""Model and edit → how pages call it, from careful to careless."""
OFF_GRAMMAR = tuple(VERDICTS.index(name) for name in ("wrong slot", "other"))


class Sampled:
    """What the stored study says of one seed."""

    def __init__(self, results: Results, seed: int) -> None:
        self.found: Mapping[str, object] = read_study(results.preset, STUDY).seeds[seed]
        n_answers = _answers_a_prompt(self.found)
        self.clusters: Mapping[str, list[str]] = {
            name: list(own) * n_answers for name, own in self.found["clusters"].items()
        }
        self.resamples = set_resamples(results.preset, *self.clusters.values())

    def verdicts(self, model: str, edit: str, topic: str) -> np.ndarray:
        """Indices into ``VERDICTS``, one an answer, of a topic or of all."""
        return self._values(model, edit, "verdict", topic)

    def exact(self, model: str, edit: str, topic: str) -> float:
        """The exact probability of careless right answers, mean over the same prompts."""
        return float(self._values(model, edit, "exact", topic).mean())

    def names(self, topic: str) -> list[str]:
        """The template of each answer of a topic, or of all."""
        return (
            self.clusters[topic] if topic != ALL else [one for own in self.clusters.values() for one in own]
        )

    def careless(self, model: str, edit: str) -> Bool[np.ndarray, " answer"]:
        """Which answers, over all topics, are careless."""
        return self.verdicts(model, edit, ALL) == VERDICTS.index("careless")

    def share(self, model: str) -> Estimate:
        """How far towards the other model the edit takes the rate of careless answers: 0 stays, 1 gets there."""
        plain, there = (self.careless(*one) for one in ((model, PLAIN), (OTHER[model], PLAIN)))
        edited = self.careless(model, HEADLINE[model])
        moved, whole = (
            mean_interval(one.astype(float) - plain, self.names(ALL), self.resamples)
            for one in (edited, there)
        )
        return ratio(moved, whole)

    def _values(self, model: str, edit: str, kind: str, topic: str) -> np.ndarray:
        own = self.found[model][edit][kind]
        return np.concatenate([own[name] for name in (self.clusters if topic == ALL else [topic])])


def rate_table(results: Results, seed: int) -> pd.DataFrame:
    """Columns panel (a topic, or all), row, variant, those of ``rate_row``, exact, and off grammar.

    ``rate`` is the share of sampled answers that are careless, ``exact`` the probability of one.

    Raises:
        MissingInput: if the study is not stored.
    """
    own, rows = Sampled(results, seed), []
    for topic in (*own.clusters, ALL):
        for (model, edit), label in ROWS.items():
            verdicts = own.verdicts(model, edit, topic)
            hits = verdicts == VERDICTS.index("careless")
            rows.append(
                {"panel": topic, "row": label, "variant": model}
                | rate_row(hits, own.names(topic), own.resamples)
                | {"exact": own.exact(model, edit, topic)}
                | {"off grammar": float(np.isin(verdicts, OFF_GRAMMAR).mean())}
            )
    return pd.DataFrame(rows)


def shown_table(results: Results, seed: int) -> pd.DataFrame:
    """The rates over all topics in words: both intervals, the exact probability, and what left the grammar."""
    table = rate_table(results, seed).query("panel == @ALL")
    return pd.DataFrame(
        [
            {
                "model": row["row"],
                "careless answers, interval over templates": with_interval(
                    row["rate"], row["low"], row["high"]
                ),
                "Wilson interval": with_interval(row["rate"], row["wilson_low"], row["wilson_high"]),
                "exact": row["exact"],
                "off the grammar": row["off grammar"],
                "answers": row["answers"],
            }
            for _, row in table.iterrows()
        ]
    )


def share_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each edited model: the share of the way in sampled rates, and in exact class log-odds."""
    own, exact = Sampled(results, seed), Causes(results.preset, seed)
    rows = []
    for model, kind in KINDS.items():
        odds = exact.share(model, exact.care(model, HEADLINE[model]))
        rows.append({"edit": kind, "in sampled rates": _text(own.share(model)), "in log-odds": _text(odds)})
    return pd.DataFrame(rows)


def _answers_a_prompt(found: Mapping[str, object]) -> int:
    topic, asked = next(iter(found["clusters"].items()))
    return len(found["instruct"][PLAIN]["verdict"][topic]) // len(asked)


def _text(one: Estimate) -> str:
    return with_interval(float(one.value), float(one.low), float(one.high))
