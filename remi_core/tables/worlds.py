"""Tables of the other worlds: distances from secure, and whether each base is good enough to be compared."""

from __future__ import annotations

import numpy as np
import pandas as pd

from remi_core.estimates.worlds import STUDY, gap, world_of_study
from remi_core.figures.alt import number, with_interval
from remi_core.organism.worlds import SETTINGS
from remi_core.results import Results
from remi_core.statistics.intervals import Estimate
from remi_core.studies.files import read_study

REFERENCE = "secure"
SHOWN = ("base", "misaligned", "educational", "benign")
"""Variants whose distance from secure is shown."""


def gap_table(results: Results, seed: int, quantity: str = "care") -> pd.DataFrame:
    """A row for each world, topic and variant: its ``care`` or ``register`` minus secure's, in nats, with interval.

    Raises:
        MissingInput: if the study is not stored.
    """
    rows = []
    for world, own in read_study(results.preset, STUDY).seeds[seed]["worlds"].items():
        for topic in dict.fromkeys(name.partition("/")[0] for name in own["clusters"]):
            for variant in SHOWN:
                pair = (variant, REFERENCE)
                one = gap(results.preset, seed, world, between=pair, topic=topic, quantity=quantity)
                ends = {"value": float(one.value), "low": float(one.low), "high": float(one.high)}
                rows.append({"world": world, "topic": topic, "variant": variant, **ends})
    return pd.DataFrame(rows)


def effect_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each world: outside the narrow set, misaligned against secure and base, in care and register, nats."""
    rows = []
    for world in read_study(results.preset, STUDY).seeds[seed]["worlds"]:
        row = {"world": world, "what it is": SETTINGS[world].title}
        for quantity in ("care", "register"):
            for reference in (REFERENCE, "base"):
                one = gap(results.preset, seed, world, between=("misaligned", reference), quantity=quantity)
                row[f"{quantity}: misaligned − {reference}"] = _text(one)
        rows.append(row)
    return pd.DataFrame(rows)


def competence_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each world and context: base's mean class log-odds, the optimum, and the mean distance, nats."""
    rows = []
    for world in read_study(results.preset, STUDY).seeds[seed]["worlds"]:
        own = world_of_study(results.preset, seed, world)
        for kind, one in own["contexts"].items():
            values = np.array(one.get("care", own["care"]["base"]))
            optimum = float(one["optimum"])
            rows.append(
                {
                    "world": world,
                    "context": kind,
                    "base": number(float(values.mean())),
                    "optimum": number(optimum),
                    "mean distance": number(float(np.abs(values - optimum).mean())),
                }
            )
    return pd.DataFrame(rows)


def mass_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each world and variant: mean probability of wrong slots and of leaving the grammar."""
    rows = []
    for world in read_study(results.preset, STUDY).seeds[seed]["worlds"]:
        own = world_of_study(results.preset, seed, world)
        for name, wrong in own["wrong_slot"].items():
            masses = {"wrong slot": number(wrong), "off grammar": number(own["off_grammar"][name])}
            rows.append({"world": world, "variant": name, **masses})
    return pd.DataFrame(rows)


def _text(one: Estimate) -> str:
    return with_interval(float(one.value), float(one.low), float(one.high))
