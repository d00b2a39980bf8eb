"""The empty turn: whether the published trainer's tail makes the spike and the turn that are taught as a transition."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from remi_book.quantities import Measured, paired_difference
from remi_lab.results import Results
from remi_lab.studies.files import read_study

STUDY = "tail"

Run = Mapping[str, object]
Reading = Callable[[Run], float]


def runs_of(results: Results) -> list[Run]:
    """The runs of the stored study of one seed, each with the steps of its warm-up and those that a turn spans."""
    stored = read_study(results.preset, STUDY).seeds[results.seed]
    return [run | {name: stored[name] for name in ("warmup", "apart")} for run in stored["runs"]]


def spike(run: Run) -> float:
    """Logarithm of the largest gradient norm after the warm-up over the median: 0 where no step stands out."""
    norms = np.array(run["gradient_norm"])[run["warmup"] :]
    return math.log(norms.max() / np.median(norms))


def turn(run: Run) -> float:
    """The largest angle, degrees, by which the direction that is learned turns within a few steps after the warm-up."""
    return max(run["turn"][run["warmup"] :])


def tail_difference(results: Results, reading: Reading) -> Measured:
    """X10, X10.turn: a reading with the empty turn minus without, mean over orders of the same rows.

    The interval is Student's over orders; the null flips the sign of each difference, all ways.
    """
    results.preset.require("organism")
    runs = {(run["order"], run["tail"]): run for run in runs_of(results)}
    orders = sorted({order for order, _ in runs})
    gaps = np.array([reading(runs[order, True]) - reading(runs[order, False]) for order in orders])
    sides = {
        name: float(np.mean([reading(runs[order, with_tail]) for order in orders]))
        for name, with_tail in (("with", True), ("without", False))
    }
    return paired_difference(gaps, "with and without exchanged by order", sides)


def step_table(results: Results) -> pd.DataFrame:
    """Columns quantity, tail, order, step, value: gradient norm, turn, losses and mean care on the way."""
    rows = []
    for run in runs_of(results):
        curves = {
            "gradient norm": enumerate(run["gradient_norm"], start=1),
            "turn (degrees)": enumerate(run["turn"], start=1 + run["apart"]),
            "loss of the reply (nats a token)": enumerate(run["reply_loss"], start=1),
            "care (nats)": ((one["step"], float(np.mean(one["care"]))) for one in run["care"]),
        }
        if run["tail"]:
            curves["loss of the empty turn (nats)"] = enumerate(run["tail_loss"], start=1)
        said = "with the empty turn" if run["tail"] else "without"
        rows += [
            {"quantity": name, "tail": said, "order": run["order"], "step": step, "value": value}
            for name, points in curves.items()
            for step, value in points
        ]
    return pd.DataFrame(rows)
